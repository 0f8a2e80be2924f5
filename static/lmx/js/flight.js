// The requests in flight.

import { clock, exact, milliseconds, ordinal, rate, short, thousands, write } from "./format.js";
import { live } from "./live.js";
import { post } from "./http.js";

const body = document.getElementById("flight");
const template = document.getElementById("flight-row");
const rows = new Map();
let loading = new Set();

function show(requests) {
  const present = new Set(requests.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (present.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  for (const request of requests) fill(rows.get(request.id) ?? add(request), request);
  document.getElementById("flight-empty").hidden = requests.length > 0;
  body.closest("table").hidden = requests.length === 0;
}

function add(request) {
  const row = template.content.firstElementChild.cloneNode(true);
  const button = row.querySelector("button");
  button.setAttribute("aria-label", `Stop the request of ${request.client}`);
  button.addEventListener("click", () => {
    button.disabled = true; // the row goes with the next reading; if it does not, the button comes back
    post(body.dataset.stop, { id: request.id }).finally(() => setTimeout(() => (button.disabled = false), 3_000));
  });
  rows.set(request.id, row);
  body.append(row);
  return row;
}

function fill(row, request) {
  const put = (field, text) => write(row.querySelector(`[data-f="${field}"]`), text);
  put("at", clock(request.at));
  row.querySelector('[data-f="at"]').title = exact(request.at);
  put("client", request.client);
  put("model", short(request.model));
  row.querySelector('[data-f="model"]').title = request.model;
  put("phase", phaseWords(request));
  put("tokens", tokenWords(request));
  put("speed", rate(request.tokens_per_second));
  put("ttft", milliseconds(request.ttft_ms));
}

function phaseWords({ phase, model, position }) {
  if (phase === "decode" || phase === "prefill") return phase;
  if (position) return position === 1 ? "next in line" : `${ordinal(position)} in line`;
  return loading.has(model) ? "waits for the load" : phase;
}

function tokenWords(request) {
  if (request.phase === "prefill") return `${thousands(request.prefill_done)} / ${thousands(request.prompt_tokens)} tok`;
  if (request.phase === "decode") return `${thousands(request.completion_tokens)} tok`;
  return request.prompt_tokens ? `${thousands(request.prompt_tokens)} tok in` : "–";
}

export function installFlight() {
  live.on("models", (models) => (loading = new Set(models.filter(({ state }) => state === "loading").map(({ id }) => id))));
  live.on("requests", show);
  show([]);
}
