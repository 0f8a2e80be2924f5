// The page Transfers: figures are written in place; the fragment is fetched again when a job comes, goes or changes state.

import { duration, size, write } from "./format.js";
import { Fragment } from "./fragment.js";
import { live } from "./live.js";

const jobs = new Map();
const open = new Set();
let timer = null;

const list = new Fragment("transfers", again);
const row = (id) => list.element?.querySelector(`.transfer[data-job="${CSS.escape(String(id))}"]`);

// Which jobs have not ended, how they are, and whether their files are known.
const known = () => [...jobs.values()].map(({ id, state, file }) => `${id} ${state}${file ? " files" : ""}`).sort();

function drawn() {
  const rows = list.element.querySelectorAll('.transfer:is([data-state="running"], [data-state="queued"], [data-state="paused"])');
  const files = (element) => (element.dataset.state === "running" && element.querySelector("details[data-files]") ? " files" : "");
  return [...rows].map((element) => `${element.dataset.job} ${element.dataset.state}${files(element)}`).sort();
}

// The cells come one by one: only when all of a batch are in is it clear what has changed.
function look() {
  timer ??= setTimeout(() => {
    timer = null;
    list.changed("jobs", known());
  }, 100);
}

function show(job, { key }) {
  if (job) jobs.set(key, job);
  else jobs.delete(key);
  if (job) fill(job);
  look();
}

function fill(job) {
  const element = row(job.id);
  if (!element || element.dataset.state !== job.state) return;
  const put = (field, text) => write(element.querySelector(`[data-f="${field}"]`), text);
  const bytes = job.unit === "bytes";
  if (job.total) {
    put("amount", bytes ? `${size(job.done)} of ${size(job.total)}` : `${job.done} of ${job.total} ${job.unit}`);
    const bar = element.querySelector(":scope > progress");
    if (bar) Object.assign(bar, { max: job.total, value: job.done });
  }
  put("rate", job.bytes_per_second ? `${size(job.bytes_per_second)}/s` : "");
  put("left", job.seconds_left == null ? "" : `${duration(job.seconds_left)} left`);
  put("message", isPlain(job) ? "" : job.message);
  if (job.file) fillFile(element, job);
}

// The message says no more than state and figures do.
const isPlain = ({ message, state, total }) => message === state || (total > 0 && message.startsWith("downloading "));

// Files come one after the other: what stands before the one under way is there.
function fillFile(element, { file, file_done: done }) {
  const line = element.querySelector(`[data-file="${CSS.escape(file)}"]`);
  if (!line) return;
  const bar = line.querySelector("progress");
  bar.value = done;
  write(line.querySelector('[data-f="file"]'), `${size(done)} of ${size(bar.max)}`);
}

function again() {
  jobs.forEach(fill);
  list.element?.querySelectorAll("details[data-files]").forEach((details) => (details.open = open.has(details.dataset.files)));
}

list.changed("jobs", drawn()); // what the server drew may be older than what the socket tells first
live.on("jobs", show);
live.onGap(() => jobs.clear());
live.onLink((word) => word === "live" && look()); // what ended before the socket was open has no cell
document.addEventListener(
  "toggle",
  ({ target }) => {
    if (!target.matches?.("details[data-files]")) return;
    if (target.open) open.add(target.dataset.files);
    else open.delete(target.dataset.files);
  },
  true,
);
// At once: before its toggle event comes, the list may have been drawn anew.
document.addEventListener("click", ({ target }) => {
  const details = target.closest("details[data-files] > summary")?.parentElement;
  if (details?.open === false) open.add(details.dataset.files);
  else if (details) open.delete(details.dataset.files);
});
// What was taken leaves the field; what was refused, or written meanwhile, stays.
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  const form = document.getElementById("fetch");
  const refused = list.element?.querySelector(":scope > .notice:not([data-refused])");
  const field = form.elements.namedItem("model");
  const taken = detail.elt === form && detail.successful && !refused;
  if (taken && field.value === detail.requestConfig.parameters.model) form.reset();
});
