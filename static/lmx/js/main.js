// What every page does: the strip, the theme, the palette, keys, copy buttons, and the live connection.

import { duration, outOf, write } from "./format.js";
import { live } from "./live.js";
import { installKeys } from "./keys.js";
import { installPalette } from "./palette.js";
import { installTheme } from "./themes.js";

const byId = (id) => document.getElementById(id);

function showStatus(status) {
  const health = byId("health");
  health.dataset.health = status.health;
  health.title = status.reasons.join("; ");
  write(health.querySelector("[data-word]"), status.reasons.length ? `${status.health}: ${brief(status.reasons[0])}` : status.health);
  showMemory(status);
  write(byId("load-figure"), `${status.running} running · ${status.queued} queued`);
  const rate = byId("rate-figure");
  write(rate.lastChild, `${Math.round(status.tokens_per_second)} tok/s`);
}

// "org/model: what is wrong" without the organisation: the strip has one line.
const brief = (reason) => reason.replace(/^[^\s:]+\//, "");

function showMemory(status) {
  const bar = byId("memory-bar");
  const percent = (bytes) => (status.total ? (100 * bytes) / status.total : 0).toFixed(2);
  bar.querySelector(".used").setAttribute("width", percent(status.used));
  bar.querySelector(".mark").setAttribute("x", percent(status.limit));
  bar.dataset.level = status.used > status.limit ? "bad" : status.used > 0.95 * status.limit ? "warn" : "";
  const words = outOf(status.used, status.total);
  bar.setAttribute("aria-label", `memory in use ${words}, limit ${status.limit_percent} %`);
  write(byId("memory-figure"), words);
}

function showLink(word, age) {
  const link = byId("link");
  link.dataset.link = word;
  const stale = word === "lost" || word === "slow";
  document.body.toggleAttribute("data-stale", stale);
  write(link.querySelector("[data-word]"), stale ? `${word}, ${duration(age)} old` : word);
}

function installCopying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const label = button.querySelector("span");
    const source = byId(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      write(label, "Copied");
    } catch {
      getSelection().selectAllChildren(source);
      write(label, "Press ⌘C");
    }
    setTimeout(() => write(label, "Copy"), 1_500);
  });
}

live.on("status", showStatus);
live.onLink(showLink);
installTheme();
installCopying();
installKeys();
installPalette();
// Modules of this page have registered their topics by then.
document.addEventListener("DOMContentLoaded", () => live.start());
