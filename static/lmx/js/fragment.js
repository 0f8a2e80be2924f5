// A part of a page that the server draws: fetched again when what it shows takes another shape, but not while one of its
// buttons is pressed or answered, nor while somebody reads an open dialog or types in it.

import { onRefusal } from "./http.js";
import { live } from "./live.js";

export class Fragment {
  #id;
  #parts = new Map();
  #drawn = null;
  #fetching = false;
  #skipped = false;
  #refused = null;
  #onDrawn;

  constructor(id, onDrawn = () => {}) {
    this.#id = id;
    this.#onDrawn = onDrawn;
    document.addEventListener("htmx:beforeSwap", (event) => this.#keepPressed(event));
    document.addEventListener("pointerup", () => setTimeout(() => this.refresh())); // after the click
    document.addEventListener("htmx:afterSettle", () => {
      this.#onDrawn();
      this.#showRefusal();
    });
    document.addEventListener("htmx:afterRequest", ({ detail }) => {
      if (detail.successful && detail.requestConfig.verb === "post") this.#refused = null;
      this.refresh();
    });
    onRefusal((words) => this.#complain(words));
    document.addEventListener("close", () => this.refresh(), true); // of a dialog, whichever way
    live.onGap(() => {
      this.#drawn = "";
      this.refresh();
    });
  }

  get element() {
    return document.getElementById(this.#id);
  }

  // What the fragment shows of one thing; it is fetched again when that changes.
  changed(part, shape) {
    this.#parts.set(part, JSON.stringify(shape));
    this.refresh();
  }

  async refresh() {
    const now = [...this.#parts.values()].join("\n");
    if (this.#drawn === null) this.#drawn = now; // the server drew what is now known for the first time
    if (now === this.#drawn || this.#fetching || this.#held() || !this.element) return;
    this.#fetching = true;
    try {
      this.#skipped = false;
      await window.htmx.ajax("GET", this.element.dataset.refresh, { target: `#${this.#id}`, swap: "outerHTML" });
      if (!this.#skipped) this.#drawn = now;
    } finally {
      this.#fetching = false;
    }
    this.refresh(); // what has changed meanwhile
  }

  #held() {
    return document.querySelector(`#${this.#id} :is(.htmx-request, button:active, summary:active), dialog.confirm[open]`);
  }

  // A button that was pressed while the fragment was on its way must stay until it is answered.
  #keepPressed(event) {
    const ours = this.#fetching && event.detail.requestConfig.path === this.element?.dataset.refresh;
    if (!ours || !this.#held()) return;
    event.detail.shouldSwap = false;
    this.#skipped = true;
  }

  #complain(words) {
    this.#refused = words;
    this.#showRefusal();
  }

  #showRefusal() {
    if (!this.element) return;
    this.element.querySelectorAll(":scope > .notice[data-refused]").forEach((old) => old.remove());
    if (this.#refused === null) return;
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.setAttribute("role", "alert");
    notice.textContent = this.#refused;
    notice.dataset.refused = "yes";
    this.element.prepend(notice);
  }
}

// Dialogs that the server draws into #dialog-place open when they come, and close by their button.
export function installDialogs() {
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog-place") event.detail.target.querySelector("dialog")?.showModal();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest('[data-command="close-dialog"]')) event.target.closest("dialog").close();
  });
}

// Jobs of the fragment: their bars are filled in place.
export function followJobs(fragment, concerns = () => true) {
  const jobs = new Map();
  live.on("jobs", (told, { key }) => {
    const job = told?.state === "running" ? told : null; // what waits or is over is told by Transfers
    if (job && concerns(job)) jobs.set(key, job);
    else jobs.delete(key);
    const element = job && fragment.element?.querySelector(`[data-job="${CSS.escape(String(job.id))}"]`);
    if (element) {
      element.querySelector('[data-f="message"]').textContent = job.message ?? job.state;
      if (job.total) Object.assign(element.querySelector("progress"), { max: job.total, value: job.done });
    }
    fragment.changed("jobs", [...jobs].map(([name, { state }]) => [name, state]));
  });
}
