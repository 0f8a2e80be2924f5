// Ctrl K or ⌘K: go to any page, model or action.

import { short } from "./format.js";
import { live } from "./live.js";
import { post } from "./http.js";
import { nextTheme } from "./themes.js";

const MOST = 50;
let loaded = [];
let onDisk = [];
let all = [];

const go = (href) => () => location.assign(href);

function entries() {
  const pages = [...document.querySelectorAll(".rail a")].map((a) => ({ words: a.textContent.trim(), hint: "page", run: go(a.href) }));
  const inMemory = loaded.filter((model) => model.state === "ready");
  const awake = new Set(loaded.map((model) => model.id));
  return [
    ...pages,
    ...inMemory.map(({ id }) => ({ words: `Unload ${short(id)} from memory`, hint: "model", run: () => post("/now/unload", { model: id }) })),
    ...onDisk
      .filter(({ id }) => !awake.has(id))
      .map(({ id }) => ({ words: `Load ${short(id)} into memory`, hint: "model", run: () => post("/now/load", { model: id }) })),
    ...all.map(({ id }) => ({ words: `Show ${short(id)}`, hint: "model", run: go(`/models/one?model_id=${encodeURIComponent(id)}`) })),
    { words: "Switch theme", hint: "action", run: nextTheme },
    { words: "Show keys", hint: "action", run: () => document.getElementById("keys").showModal() },
    { words: "Write in the chat", hint: "action", run: () => document.getElementById("chat-text")?.focus() ?? location.assign("/#chat-text") },
  ];
}

// Every word typed must occur; matches at the start of a word come first.
function matches(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = entries().filter((entry) => words.every((word) => entry.words.toLowerCase().includes(word)));
  const begins = (entry) => words.length > 0 && entry.words.toLowerCase().startsWith(words[0]);
  return found.sort((a, b) => begins(b) - begins(a)).slice(0, MOST);
}

class Palette {
  #dialog = document.getElementById("palette");
  #input = document.getElementById("palette-input");
  #list = document.getElementById("palette-list");
  #found = [];
  #chosen = 0;

  constructor() {
    this.#input.addEventListener("input", () => this.#search());
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    this.#list.addEventListener("click", (event) => {
      const item = event.target.closest("li");
      if (item) this.#run([...this.#list.children].indexOf(item));
    });
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  open() {
    if (this.#dialog.open) return;
    this.#input.value = "";
    this.#search();
    this.#dialog.showModal();
    this.#input.focus();
  }

  #search() {
    this.#found = matches(this.#input.value);
    this.#list.replaceChildren(...this.#found.map(item));
    this.#choose(0);
  }

  #choose(index) {
    this.#chosen = Math.max(0, Math.min(index, this.#found.length - 1));
    [...this.#list.children].forEach((child, i) => child.setAttribute("aria-selected", String(i === this.#chosen)));
    const child = this.#list.children[this.#chosen];
    child?.scrollIntoView({ block: "nearest" });
    if (child) this.#input.setAttribute("aria-activedescendant", child.id);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    if (event.key === "ArrowDown") this.#choose(this.#chosen + 1);
    else if (event.key === "ArrowUp") this.#choose(this.#chosen - 1);
    else if (event.key === "Enter") this.#run(this.#chosen);
    else return;
    event.preventDefault();
  }

  #run(index) {
    const entry = this.#found[index];
    this.#dialog.close();
    entry?.run();
  }
}

function item(entry, index) {
  const element = document.createElement("li");
  element.id = `palette-${index}`;
  element.setAttribute("role", "option");
  const words = document.createElement("span");
  words.textContent = entry.words;
  const hint = document.createElement("span");
  hint.className = "muted";
  hint.textContent = entry.hint;
  element.append(words, hint);
  return element;
}

export function installPalette() {
  const palette = new Palette();
  live.on("models", (models) => (loaded = models));
  live.on("catalog", (models) => {
    all = models;
    onDisk = models.filter((model) => !model.reason);
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest('[data-command="palette"]')) palette.open();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    palette.open();
  });
}
