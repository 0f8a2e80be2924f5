// Model cards and the lists beside them: numbers are written in place, the fragment is fetched again when its shape
// changes (a model comes, goes or changes state; a notice or a job appears).

import { duration, milliseconds, size, thousands, write } from "./format.js";
import { followJobs, Fragment } from "./fragment.js";
import { live } from "./live.js";

const SPARK_POINTS = 60;
const PHASES = { weights: "reading the weights", warmup: "warming up", tokenizer: "warming up" };
const rates = new Map();
let latest = [];
let cards = null;

function show(models) {
  latest = models;
  models.forEach(remember);
  fillAll();
  cards.changed("models", models.map(({ id, state, reason, pinned }) => [id, state, reason, pinned]));
}

function fillAll() {
  for (const model of latest) {
    const card = cards.element.querySelector(`.card[data-model="${CSS.escape(model.id)}"]`);
    if (card?.dataset.state === model.state) fill(card, model);
  }
}

function remember(model) {
  const values = rates.get(model.id) ?? [];
  values.push(model.tokens_per_second);
  rates.set(model.id, values.slice(-SPARK_POINTS));
}

// A card's last minute from the chart's past, where that has every second.
function seed({ step, models }) {
  if (step !== 1) return;
  for (const [id, columns] of Object.entries(models)) rates.set(id, columns.rate.slice(-SPARK_POINTS));
  fillAll();
}

function fill(card, model) {
  const put = (field, text) => write(card.querySelector(`[data-f="${field}"]`), text);
  put("memory", memoryWords(model));
  put("activity", activityWords(model));
  put("rate", model.tokens_per_second.toFixed(0));
  put("ttft", milliseconds(model.ttft_ms));
  put("context", contextWords(model));
  put("prefix", prefixWords(model));
  put("stay", stayWords(model));
  put("load", loadWords(model));
  const progress = card.querySelector('[data-f="progress"]');
  if (progress && model.load_total) Object.assign(progress, { max: model.load_total, value: model.load_done });
  drawSpark(card.querySelector(".spark polyline"), rates.get(model.id));
}

// The weights may be all there while the model is not: its first pass takes seconds.
function loadWords(model) {
  const percent = Math.floor((100 * model.load_done) / model.load_total);
  if (percent >= 99) return PHASES.warmup;
  if (model.load_total) return `${percent} % · ${size(model.load_done)} of ${size(model.load_total)}`;
  return PHASES[model.load_phase] ?? "starting";
}

function memoryWords(model) {
  const besides = model.kv + model.cache;
  return size(model.weights) + (besides ? ` + ${size(besides)} KV and caches` : "");
}

function activityWords(model) {
  const queued = model.queued ? ` · ${model.queued} queued` : "";
  if (model.running) return `${model.running} running${queued}`;
  if (queued) return queued.slice(3);
  return model.last_used ? `idle ${duration(Date.now() / 1000 - model.last_used)}` : "not used yet";
}

const contextWords = (model) =>
  model.longest
    ? `longest context ${thousands(model.longest)} / ${thousands(model.context)} tokens`
    : `context up to ${thousands(model.context)} tokens`;

const prefixWords = ({ prefix, prefix_found: found }) =>
  found === null ? "" : `prompt cache ${size(prefix)} · ${found.toFixed(0)} % of prompt tokens found`;

function stayWords({ pinned, ttl }) {
  if (pinned) return "pinned";
  return ttl ? `leaves after ${duration(ttl)} without a request` : "stays until memory is needed";
}

function drawSpark(line, values) {
  if (!line) return;
  const top = Math.max(1, ...values);
  const x = (index) => 60 - (values.length - 1 - index) * (60 / (SPARK_POINTS - 1));
  line.setAttribute("points", values.map((value, i) => `${x(i).toFixed(1)},${(15 - (14 * value) / top).toFixed(1)}`).join(" "));
}

export function installCards() {
  cards = new Fragment("models", fillAll);
  live.on("models", show);
  live.on("catalog", (models) => cards.changed("catalog", models.map(({ id, reason }) => [id, reason])));
  live.on("notices", (notices) => cards.changed("notices", notices.map(({ model, at }) => [model, at])));
  followJobs(cards);
  document.addEventListener("lmx:history", (event) => seed(event.detail));
}
