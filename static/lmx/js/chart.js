// The memory chart: past from the server, present from the socket, values under the pointer in the legend.

import { clock, short, size, sizeOrDash, write } from "./format.js";
import { eventShape, eventWords } from "./events.js";
import { live } from "./live.js";
import { Painter } from "./painter.js";
import { Series } from "./series.js";

const TABLE_ROWS = 20;
const MARKS_KEPT = 500;

class Chart {
  #root = document.getElementById("chart");
  #canvas = this.#root.querySelector("canvas");
  #painter = new Painter(this.#canvas);
  #series = new Series();
  #events = new Map();
  #cursor = null; // a time under the pointer, or null
  #wanted = false;
  #waiting = []; // readings that came while the past was being fetched
  #fetching = 0;
  #otherName = `${document.body.dataset.system} and other apps`;

  constructor() {
    live.on("memory", (memory) => this.#add(memory));
    live.on("events", (event) => this.#remember(event));
    live.onGap(() => this.#fetch());
    new ResizeObserver(() => this.#redraw()).observe(this.#canvas);
    document.addEventListener("lmx:theme", () => this.#redraw());
    this.#root.closest("section").querySelector("details").addEventListener("toggle", () => this.#table());
    this.#pointer();
    this.#spans();
    this.#fetch();
  }

  get #span() {
    return Number(this.#root.dataset.span);
  }

  async #fetch() {
    const turn = (this.#fetching += 1);
    const span = this.#span;
    try {
      const response = await fetch(`${this.#root.dataset.url}?span=${span}`);
      if (!response.ok || turn !== this.#fetching) return;
      const columns = await response.json();
      if (turn !== this.#fetching) return;
      columns.events.forEach((event) => this.#remember(event));
      document.dispatchEvent(new CustomEvent("lmx:history", { detail: columns }));
      this.#series.reset(columns, span);
      this.#waiting.forEach((memory) => this.#series.add(memory));
    } catch {
      // The socket says that the server is gone; when it comes back this is fetched again.
    } finally {
      if (turn === this.#fetching) {
        this.#waiting = [];
        this.#fetching = 0;
        this.#redraw();
      }
    }
  }

  #add(memory) {
    if (this.#fetching) this.#waiting.push(memory);
    this.#series.add(memory);
    this.#redraw();
    if (Math.floor(memory.at) % 5 === 0) this.#table();
  }

  #remember(event) {
    if (!eventShape(event)) return;
    this.#events.set(event.seq, event);
    if (this.#events.size > MARKS_KEPT) this.#events.delete(this.#events.keys().next().value);
  }

  #redraw() {
    if (this.#wanted) return;
    this.#wanted = true;
    requestAnimationFrame(() => {
      this.#wanted = false;
      this.#draw();
    });
  }

  #draw() {
    const series = this.#series;
    const [start, end] = this.#window();
    const bands = series.bands(this.#otherName);
    const cursor = this.#cursor === null ? -1 : series.nearest(this.#cursor);
    const marks = [...this.#events.values()].map((event) => ({ at: event.at, shape: eventShape(event) }));
    this.#root.querySelector(".chart-empty").hidden = series.length > 0;
    this.#root.dataset.points = series.length;
    this.#root.dataset.last = series.at.at(-1) ?? "";
    this.#painter.draw({ series, bands, start, end, marks, cursor });
    this.#legend(bands, cursor);
  }

  #window() {
    const end = this.#series.at.at(-1) ?? Math.floor(Date.now() / 1000);
    return [end - this.#span, end];
  }

  #legend(bands, cursor) {
    const index = cursor >= 0 ? cursor : this.#series.length - 1;
    const lines = [...bands].reverse().map((band) => ({ css: `swatch ${band.css}`, name: short(band.name), value: band.values[index] ?? 0 }));
    lines.push({ css: "swatch none", name: "in use", value: this.#series.used[index] ?? 0 });
    const list = document.getElementById("legend");
    while (list.children.length > lines.length) list.lastChild.remove();
    lines.forEach((entry, i) => fillLegend(list.children[i] ?? list.appendChild(legendItem()), entry));
    write(document.getElementById("chart-time"), cursor >= 0 ? `at ${clock(this.#series.at[index])}` : "now");
    write(document.getElementById("chart-event"), cursor >= 0 ? this.#eventsNear(this.#series.at[index]) : "");
  }

  #eventsNear(time) {
    const near = Math.max(3, this.#span / 100);
    return [...this.#events.values()]
      .filter((event) => Math.abs(event.at - time) <= near)
      .map((event) => `${clock(event.at)} ${eventWords(event)}`)
      .join(" · ");
  }

  #pointer() {
    const point = (event) => {
      const [start, end] = this.#window();
      this.#cursor = this.#painter.timeAt(event.offsetX, start, end);
      this.#redraw();
    };
    const leave = () => {
      this.#cursor = null;
      this.#redraw();
    };
    this.#canvas.addEventListener("pointermove", point);
    this.#canvas.addEventListener("pointerdown", point);
    this.#canvas.addEventListener("pointerleave", leave);
    this.#canvas.addEventListener("blur", leave);
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction || !this.#series.length) return;
    event.preventDefault();
    const last = this.#series.length - 1;
    const index = this.#cursor === null ? last : this.#series.nearest(this.#cursor) + direction;
    this.#cursor = this.#series.at[Math.max(0, Math.min(last, index))];
    this.#redraw();
  }

  #spans() {
    const buttons = [...document.querySelectorAll("[data-span]")].filter((element) => element.matches("button"));
    for (const button of buttons) {
      button.addEventListener("click", () => {
        this.#root.dataset.span = button.dataset.span;
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        const address = new URL(location);
        address.searchParams.set("span", button.dataset.span);
        history.replaceState(null, "", address);
        this.#fetch();
      });
    }
  }

  #table() {
    const details = this.#root.closest("section").querySelector("details");
    if (!details.open) return;
    const series = this.#series;
    const bands = series.bands(this.#otherName);
    const every = Math.max(1, Math.floor(series.length / TABLE_ROWS));
    const rows = [];
    for (let i = series.length - 1; i >= 0; i -= every) {
      rows.push([clock(series.at[i]), size(series.used[i]), ...bands.map((band) => sizeOrDash(band.values[i] ?? 0))]);
    }
    const head = row("th", ["Time", "In use", ...bands.map((band) => band.name)]);
    details.querySelector("thead").replaceChildren(head);
    details.querySelector("tbody").replaceChildren(...rows.map((cells) => row("td", cells)));
  }
}

function legendItem() {
  const item = document.createElement("li");
  item.append(document.createElement("span"), document.createElement("span"), document.createElement("span"));
  item.lastChild.className = "number";
  return item;
}

function fillLegend(item, { css, name, value }) {
  const [mark, label, figure] = item.children;
  if (mark.className !== css) mark.className = css;
  write(label, name);
  write(figure, sizeOrDash(value));
}

function row(tag, cells) {
  const element = document.createElement("tr");
  for (const [i, text] of cells.entries()) {
    const cell = document.createElement(tag);
    cell.textContent = text;
    if (tag === "th") cell.scope = "col";
    if (i) cell.className = "figure";
    element.append(cell);
  }
  return element;
}

export function installChart() {
  return new Chart();
}
