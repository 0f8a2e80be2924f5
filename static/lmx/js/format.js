// Numbers as the pages write them; monitoring/templatetags/lmx.py does the same on the server.

const TIB = 1024 ** 4;
const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const exactFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// From 1000 MB on in GB and from 1000 GB on in TB, so that no figure has four digits; below half a MB in KB.
export function size(bytes) {
  if (bytes >= 1000 * GIB) return `${(bytes / TIB).toFixed(1)} TB`;
  if (bytes >= 1000 * MIB) return `${(bytes / GIB).toFixed(1)} GB`;
  if (bytes > 0 && bytes < MIB / 2) return `${Math.ceil(bytes / 1024)} KB`;
  return `${Math.round((bytes ?? 0) / MIB)} MB`;
}

// For lists where nothing is nothing: no model is "0 MB".
export const sizeOrDash = (bytes) => (bytes >= MIB / 2 ? size(bytes) : "–");

export const outOf = (bytes, whole) =>
  whole && whole < GIB
    ? `${Math.round((bytes ?? 0) / MIB)} / ${Math.round(whole / MIB)} MB`
    : `${((bytes ?? 0) / GIB).toFixed(1)} / ${((whole ?? 0) / GIB).toFixed(1)} GB`;

export const thousands = (tokens) =>
  tokens >= 10_000 ? `${Math.round(tokens / (tokens % 1024 ? 1000 : 1024))}k` : (tokens ?? 0).toLocaleString("en-US");

export const milliseconds = (ms) =>
  ms == null ? "–" : ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`;

export const rate = (tokensPerSecond) =>
  tokensPerSecond == null ? "–" : `${tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)} tok/s`;

export const clock = (seconds) => clockFormat.format(seconds * 1000);

export const exact = (seconds) => exactFormat.format(seconds * 1000);

export const short = (model) => model.slice(model.lastIndexOf("/") + 1);

export function duration(seconds) {
  const whole = Math.max(0, seconds);
  for (const [unit, length] of [["d", 86_400], ["h", 3600], ["m", 60]]) {
    if (whole >= length) return `${Math.floor(whole / length)} ${unit}`;
  }
  return `${Math.floor(whole)} s`;
}

// 2nd, 3rd, 11th, 21st.
export function ordinal(number) {
  const teen = number % 100 > 10 && number % 100 < 14;
  return `${number}${(!teen && { 1: "st", 2: "nd", 3: "rd" }[number % 10]) || "th"}`;
}

// Sets text only where it changed, so that selections and screen readers are left alone.
export function write(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}
