// Discover: addresses without what is not asked for, and a download's progress.

import { write } from "./format.js";
import { live } from "./live.js";

const DEFAULTS = { format: "mlx", sort: "downloads" };
let asking = false;

const transfer = () => document.querySelector("#transfer[data-refresh]");

function tidy({ detail }) {
  if (detail.elt.id !== "search") return;
  for (const [name, value] of Object.entries(detail.parameters)) {
    if (!value || DEFAULTS[name] === value) delete detail.parameters[name];
  }
}

function show(job, { key }) {
  const element = transfer();
  if (element?.dataset.job !== key) return;
  if (!job || job.state !== element.dataset.state) {
    refresh();
    return;
  }
  write(element.querySelector('[data-f="message"]'), job.message ?? job.state);
  const bar = element.querySelector("progress");
  if (bar && job.total) Object.assign(bar, { max: job.total, value: job.done });
}

// It has ended, or may have while nobody told.
async function refresh() {
  const element = transfer();
  if (!element || asking || element.querySelector(".htmx-request, button:active")) return;
  asking = true;
  try {
    await window.htmx.ajax("GET", element.dataset.refresh, { target: "#transfer", swap: "outerHTML" });
  } finally {
    asking = false;
  }
}

document.addEventListener("htmx:configRequest", tidy);
live.on("jobs", show);
live.onGap(refresh);
let heard = false;
live.onLink((word) => {
  if (word === "live" && !heard) refresh();
  heard ||= word === "live";
});
