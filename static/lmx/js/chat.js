// The chat box. The conversation lives in this browser until it is cleared; text is only ever set as text.

import { milliseconds, rate, short, write } from "./format.js";
import { csrfToken } from "./http.js";
import { live } from "./live.js";
import { events } from "./sse.js";

const STORE = "lmx-chat";
const TEMPERATURE = 0.7; // at the API's default of 1 a small model talks nonsense
const byId = (id) => document.getElementById(id);

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return Array.isArray(kept) ? kept.filter((entry) => typeof entry?.content === "string") : [];
  } catch {
    return [];
  }
}

class Chat {
  #root = byId("chat");
  #list = byId("messages");
  #text = byId("chat-text");
  #select = byId("chat-model");
  #conversation = restore();
  #running = null; // the AbortController of the answer under way

  constructor() {
    this.#conversation.forEach((entry) => this.#show(entry));
    byId("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener("keydown", (event) => this.#key(event));
    byId("chat-stop").addEventListener("click", () => this.#stop());
    this.#root.querySelector('[data-command="clear-chat"]').addEventListener("click", () => this.#clear());
    document.addEventListener("keydown", (event) => this.#pageKey(event));
    this.#offer();
  }

  // ------------------------------------------------------------------------------------------------------ models

  #offer() {
    let ready = [];
    let known = [];
    const draw = () => {
      const loaded = ready.filter((model) => model.state !== "stopped-after-crashes");
      const awake = loaded.map((model) => model.id);
      const others = known.filter((model) => !model.reason && !awake.includes(model.id));
      this.#options(chatting(loaded), chatting(others));
    };
    live.on("models", (models) => {
      ready = models;
      draw();
    });
    live.on("catalog", (models) => {
      known = models;
      draw();
    });
  }

  #options(loaded, others) {
    const shape = JSON.stringify([loaded, others]);
    if (this.#select.dataset.shape === shape) return;
    this.#select.dataset.shape = shape;
    const chosen = this.#select.value;
    this.#select.replaceChildren(...group("In memory", loaded), ...group("On disk: loads first", others));
    if ([...loaded, ...others].includes(chosen)) this.#select.value = chosen;
    this.#select.disabled = this.#select.options.length === 0;
    if (this.#select.disabled) this.#select.add(new Option("no model to chat with", ""));
  }

  // ----------------------------------------------------------------------------------------------------- sending

  async #send() {
    const text = this.#text.value.trim();
    if (!text || this.#running) return;
    if (!this.#select.value) {
      this.#say("There is no model to chat with.");
      return;
    }
    this.#text.value = "";
    this.#add({ role: "user", content: text });
    const entry = { role: "assistant", content: "", model: this.#select.value };
    const item = this.#show(entry);
    this.#running = new AbortController();
    this.#busy(true);
    try {
      await this.#answer(entry, item, this.#running.signal);
    } catch (error) {
      this.#broken(entry, error);
    }
    this.#running = null;
    this.#busy(false);
    this.#paint(item, entry);
    this.#add(entry, false);
    this.#say(entry.error ?? (entry.stopped ? "Stopped." : "The answer is complete."));
  }

  async #answer(entry, item, signal) {
    const began = performance.now();
    const response = await fetch(this.#root.dataset.url, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": csrfToken() },
      body: JSON.stringify({
        model: entry.model,
        messages: this.#history(),
        temperature: TEMPERATURE,
        stream: true,
        stream_options: { include_usage: true },
      }),
      signal,
    });
    if (!response.ok) throw new Error(await refusal(response));
    let first = 0;
    for await (const data of events(response)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      const grew = take(entry, chunk);
      if (grew && !first) {
        first = performance.now();
        entry.ttft = first - began;
      }
      if (chunk.usage && first) entry.speed = speed(chunk.usage.completion_tokens, performance.now() - first);
      if (grew) this.#paintSoon(item, entry);
    }
  }

  // What the model is told: no errors, no empty answers, no thinking.
  #history() {
    return this.#conversation
      .filter((entry) => entry.content && !(entry.role === "assistant" && entry.error))
      .map(({ role, content }) => ({ role, content }));
  }

  #stop() {
    this.#running?.abort();
  }

  #broken(entry, error) {
    if (error.name === "AbortError") entry.stopped = true;
    else entry.error = error instanceof TypeError ? "The connection to the server was lost." : error.message;
  }

  // ------------------------------------------------------------------------------------------------------ showing

  #add(entry, visible = true) {
    this.#conversation.push(entry);
    if (visible) this.#show(entry);
    try {
      localStorage.setItem(STORE, JSON.stringify(this.#conversation));
    } catch {
      // Storage is full or switched off: the conversation lasts as long as the page.
    }
  }

  #show(entry) {
    const item = byId("message").content.firstElementChild.cloneNode(true);
    this.#list.append(item);
    this.#paint(item, entry);
    return item;
  }

  #paintSoon(item, entry) {
    if (item.dataset.waiting) return;
    item.dataset.waiting = "yes";
    requestAnimationFrame(() => {
      delete item.dataset.waiting;
      this.#paint(item, entry);
    });
  }

  #paint(item, entry) {
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 80;
    item.classList.toggle("failed", Boolean(entry.error));
    write(item.querySelector(".who"), entry.role === "user" ? "You" : short(entry.model ?? "Model"));
    const thinking = item.querySelector(".thinking");
    thinking.hidden = !entry.reasoning;
    write(thinking.querySelector(".text"), entry.reasoning ?? "");
    write(item.querySelector(".body"), entry.content || (this.#running && !entry.error ? "…" : ""));
    write(item.querySelector(".error"), entry.error ?? "");
    write(item.querySelector(".figures"), figures(entry));
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }

  #busy(busy) {
    byId("chat-send").hidden = busy;
    byId("chat-stop").hidden = !busy;
    this.#list.setAttribute("aria-busy", String(busy));
  }

  #say(words) {
    write(byId("chat-said"), words);
  }

  #clear() {
    this.#stop();
    this.#conversation = [];
    this.#list.replaceChildren();
    localStorage.removeItem(STORE);
    this.#text.focus();
  }

  // --------------------------------------------------------------------------------------------------------- keys

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#send();
  }

  #pageKey(event) {
    if (event.key === "Escape" && this.#running && !document.querySelector("dialog[open]")) this.#stop();
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) return;
    event.preventDefault();
    this.#text.focus();
  }
}

// Not those that make vectors.
const chatting = (models) => models.filter((model) => model.chat).map((model) => model.id);

function group(label, models) {
  if (!models.length) return [];
  const element = document.createElement("optgroup");
  element.label = label;
  element.append(...models.map((id) => new Option(short(id), id)));
  return [element];
}

// Adds a chunk's text to the entry; true when there was any.
function take(entry, chunk) {
  const delta = chunk.choices?.[0]?.delta ?? {};
  const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
  if (reasoning) entry.reasoning = (entry.reasoning ?? "") + reasoning;
  if (delta.content) entry.content += delta.content;
  if (chunk.choices?.[0]?.finish_reason === "length") entry.cut = true;
  return Boolean(reasoning || delta.content);
}

const speed = (tokens, ms) => (tokens > 1 && ms > 0 ? ((tokens - 1) * 1000) / ms : null);

function figures(entry) {
  const parts = [];
  if (entry.ttft != null) parts.push(`TTFT ${milliseconds(entry.ttft)}`);
  if (entry.speed != null) parts.push(rate(entry.speed));
  if (entry.cut) parts.push("ended at the longest answer allowed");
  if (entry.stopped) parts.push("stopped");
  return parts.join(" · ");
}

async function refusal(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return response.status === 403 ? "This page is too old to send; reload it." : `The server answered ${response.status}.`;
  }
}

export function installChat() {
  return new Chat();
}
