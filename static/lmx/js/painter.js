// Draws the memory chart on a canvas: stacked bands, the two limits, marks of events, a crosshair.

import { size } from "./format.js";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const STEPS = { MB: [4, 8, 16, 32, 64, 128, 256], GB: [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256] };
const LEFT = 56;
const BOTTOM = 18;
const TOP = 12;

// Custom properties hold expressions; the browser resolves them for an element's `color`.
function palette(element) {
  const probe = document.createElement("span");
  probe.hidden = true;
  element.append(probe);
  const known = new Map();
  const resolve = (name) => {
    if (!known.has(name)) {
      probe.style.color = `var(${name})`;
      known.set(name, getComputedStyle(probe).color);
    }
    return known.get(name);
  };
  return { resolve, done: () => probe.remove() };
}

export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
  }

  get plot() {
    return { left: LEFT, right: this.canvas.clientWidth - 4, top: TOP, bottom: this.canvas.clientHeight - BOTTOM };
  }

  timeAt(x, start, end) {
    const { left, right } = this.plot;
    return start + ((x - left) / (right - left)) * (end - start);
  }

  draw({ series, bands, start, end, marks, cursor }) {
    this.#resize();
    const { left, right, top, bottom } = this.plot;
    const x = (time) => left + ((time - start) / (end - start)) * (right - left);
    const y = (bytes) => bottom - (bytes / series.total) * (bottom - top);
    const colours = palette(this.canvas.parentElement);
    const tools = { context: this.context, x, y, plot: this.plot, colour: colours.resolve };
    this.context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    this.context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    if (series.total) {
      drawScale(tools, series, start, end);
      drawBands(tools, series, bands);
      drawMarks(tools, marks);
      drawLimits(tools, series);
      if (cursor >= 0) drawCursor(tools, series.at[cursor]);
    }
    colours.done();
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }
}

function drawScale({ context, x, y, plot, colour }, series, start, end) {
  const [unit, name] = series.total < GIB ? [MIB, "MB"] : [GIB, "GB"];
  const total = series.total / unit;
  const step = STEPS[name].find((candidate) => total / candidate <= 5) ?? 512;
  context.fillStyle = colour("--muted");
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let value = 0; value <= total; value += step) {
    const height = Math.round(y(value * unit)) + 0.5;
    line(context, plot.left, height, plot.right, height);
    context.fillText(value + step > total ? `${value} ${name}` : String(value), plot.left - 6, height);
  }
  drawTimes({ context, x, plot }, start, end);
}

function drawTimes({ context, x, plot }, start, end) {
  const step = end - start > 600 ? 600 : 60;
  context.textBaseline = "alphabetic";
  context.textAlign = "center";
  for (let time = Math.ceil(start / step) * step; time <= end; time += step) {
    const at = x(time);
    if (at < plot.left + 16 || at > plot.right - 16) continue;
    const date = new Date(time * 1000);
    const words = `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
    context.fillText(words, at, plot.bottom + 14);
  }
}

// A gap in time (the server was off, the tab asleep) stays a gap in the chart.
function pieces(at, step) {
  const found = [];
  let begin = 0;
  for (let i = 1; i <= at.length; i += 1) {
    if (i === at.length || at[i] - at[i - 1] > 3 * step + 2) {
      found.push([begin, i]);
      begin = i;
    }
  }
  return found;
}

function drawBands({ context, x, y, plot, colour }, series, bands) {
  context.save();
  context.beginPath();
  context.rect(plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top);
  context.clip();
  const below = new Array(series.length).fill(0);
  const parts = pieces(series.at, series.step);
  for (const band of bands) {
    const above = below.map((value, i) => value + (band.values[i] ?? 0));
    context.fillStyle = colour(band.colour);
    for (const [from, to] of parts) fillBetween(context, x, y, series.at, below, above, from, to);
    above.forEach((value, i) => (below[i] = value));
  }
  context.restore();
}

function fillBetween(context, x, y, at, below, above, from, to) {
  context.beginPath();
  for (let i = from; i < to; i += 1) context.lineTo(x(at[i]), y(above[i]));
  if (to - from === 1) context.lineTo(x(at[from]) + 2, y(above[from]));
  for (let i = to - 1; i >= from; i -= 1) context.lineTo(x(at[i]) + (to - from === 1 ? 2 : 0), y(below[i]));
  if (to - from === 1) context.lineTo(x(at[from]), y(below[from]));
  context.fill();
}

function drawLimits({ context, y, plot, colour }, series) {
  context.strokeStyle = context.fillStyle = colour("--text");
  context.textAlign = "left"; // what happens now comes in at the right
  context.textBaseline = "bottom";
  limit(context, plot, y(series.limit), [4, 4], `${series.limitPercent} % of ${whole(series.total)}`);
  if (series.gpuLimit && series.gpuLimit < series.total) {
    limit(context, plot, y(series.gpuLimit), [], `GPU limit ${whole(series.gpuLimit)}`);
  }
}

const whole = (bytes) => size(bytes).replace(".0 ", " ");

function limit(context, plot, height, dashes, words) {
  context.setLineDash(dashes);
  line(context, plot.left, Math.round(height) + 0.5, plot.right, Math.round(height) + 0.5);
  context.setLineDash([]);
  context.fillText(words, plot.left + 4, height - 2);
}

// Up for what comes, down for what goes, a cross for what broke.
function drawMarks({ context, x, plot, colour }, marks) {
  for (const { at, shape } of marks) {
    const middle = Math.round(x(at)) + 0.5;
    if (middle < plot.left || middle > plot.right) continue;
    context.strokeStyle = context.fillStyle = colour(shape === "crash" ? "--bad" : "--text");
    context.globalAlpha = 0.35;
    line(context, middle, plot.top, middle, plot.bottom);
    context.globalAlpha = 1;
    if (shape === "crash") cross(context, middle, plot.top);
    else triangle(context, middle, plot.top, shape === "load" ? -1 : 1);
  }
}

function triangle(context, x, y, direction) {
  context.beginPath();
  context.moveTo(x, y + 4 * direction);
  context.lineTo(x - 4, y - 3 * direction);
  context.lineTo(x + 4, y - 3 * direction);
  context.fill();
}

function cross(context, x, y) {
  line(context, x - 4, y - 4, x + 4, y + 4);
  line(context, x + 4, y - 4, x - 4, y + 4);
}

function drawCursor({ context, x, plot, colour }, time) {
  context.strokeStyle = colour("--accent");
  const at = Math.round(x(time)) + 0.5;
  line(context, at, plot.top, at, plot.bottom);
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}
