// The manual switch between the system's setting, light and dark.

import { write } from "./format.js";

const ORDER = ["system", "light", "dark"];
const NAMES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

export const currentTheme = () => document.documentElement.dataset.theme ?? "system";

export function nextTheme() {
  setTheme(ORDER[(ORDER.indexOf(currentTheme()) + 1) % ORDER.length]);
}

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("lmx-theme", theme);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
  show();
  document.dispatchEvent(new Event("lmx:theme"));
}

function show() {
  for (const element of document.querySelectorAll("[data-theme-name]")) write(element, NAMES[currentTheme()]);
}

export function installTheme() {
  show();
  document.addEventListener("click", (event) => {
    if (event.target.closest('[data-command="theme"]')) nextTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("lmx:theme")));
}
