// What happened: the hub's events in words, newest first, and as marks for the chart.

import { clock, duration, exact, short, size } from "./format.js";
import { live } from "./live.js";

const KEPT = 100;
const SHAPES = {
  "model.loaded": "load",
  "model.unloaded": "unload",
  "model.evicted": "evict",
  "model.failed": "crash",
  "model.stopped": "crash",
  "worker.died": "crash",
  "memory.not_returned": "crash",
};

// As on the page Transfers.
const JOBS = { fetch: "download", verify: "verification", demo: "demo model", convert: "conversion", "check-updates": "question to the Hub" };

const WORDS = {
  "model.loading": (event) => `loading ${name(event)}`,
  "model.loaded": (event) => `loaded ${name(event)}${event.seconds ? ` in ${event.seconds.toFixed(1)} s` : ""}`,
  "model.unloaded": (event) => `unloaded ${name(event)}${because(event).replace(/^: unloaded by/, " by")}`,
  "model.evicted": (event) => `evicting ${name(event)} (idle ${duration(event.idle_s ?? 0)})${because(event)}`,
  "model.failed": (event) => `${name(event)} could not be loaded${because(event)}`,
  "model.stopped": (event) => `${name(event)} is not started again${because(event)}`,
  "load.refused": (event) => `${name(event)} was not loaded${because(event)}`,
  "auto_load.failed": (event) => `${name(event)} was not loaded at the start${because(event)}`,
  "request.timeout": (event) => `a request for ${name(event)} took too long${event.phase ? ` (${event.phase})` : ""}`,
  "request.refused": (event) => `a request for ${name(event)} was refused${because(event)}`,
  "worker.died": (event) => `the process of ${name(event)} died${because(event)}`,
  "worker.log": (event) => `${name(event)} says${because(event)}`,
  "job.queued": (event) => `${job(event)} waits for its turn`,
  "job.started": (event) => `${job(event)} begins`,
  "job.paused": (event) => `${job(event)} is paused`,
  "job.resumed": (event) => `${job(event)} goes on`,
  "job.interrupted": (event) => `${job(event)} waits for the server to start again`,
  "job.done": (event) => `${job(event)} is done`,
  "job.failed": (event) => `${job(event)} failed${because(event)}`,
  "job.cancelled": (event) => `${job(event)} was cancelled`,
  "memory.pressure": (event) => `the machine is short of memory: ${name(event)} has to go`,
  "memory.not_returned": (event) => `${size(event.held_bytes)} of ${name(event)} did not come back`,
};

const because = (event) => {
  const reason = event.message || event.error || event.cause || event.reason;
  return reason ? `: ${reason}` : "";
};

const job = (event) => `${JOBS[event.job_kind] ?? event.job_kind}${event.subject ? ` of ${event.subject}` : ""}`;

const name = (event) => short(event.model ?? "a model");

export const eventWords = (event) =>
  WORDS[event.kind]?.(event) ?? `${event.kind.replaceAll(/[._]/g, " ")}${event.model ? ` ${name(event)}` : ""}${because(event)}`;

const tells = (event) => event.kind !== "worker.log" || event.level === "warning" || event.level === "error";

export const eventShape = (event) => SHAPES[event.kind];

function item(event) {
  const element = document.createElement("li");
  const time = document.createElement("time");
  time.className = "number";
  time.textContent = clock(event.at);
  time.dateTime = new Date(event.at * 1000).toISOString();
  time.title = exact(event.at);
  const words = document.createElement("span");
  words.textContent = eventWords(event);
  if (eventShape(event) === "crash" || event.kind === "job.failed") words.className = "bad";
  element.append(time, words);
  return element;
}

export function installEvents() {
  const list = document.getElementById("events");
  const empty = document.getElementById("events-empty");
  live.fromTheStart("events");
  live.on("events", (event) => {
    if (!tells(event)) return;
    list.prepend(item(event));
    while (list.children.length > KEPT) list.lastChild.remove();
    empty.hidden = true;
  });
}
