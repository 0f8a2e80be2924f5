// The chart's numbers: columns as the server sends them, and one more row every second.

export class Series {
  constructor() {
    this.reset({ step: 1, at: [], used: [], other: [], models: {} }, 300);
  }

  reset(columns, span) {
    this.span = span;
    this.step = columns.step;
    this.total = columns.total ?? 0;
    this.limit = columns.limit ?? 0;
    this.limitPercent = this.limitPercent ?? 90;
    this.gpuLimit = columns.gpu_limit ?? null;
    this.at = columns.at;
    this.used = columns.used;
    this.other = columns.other;
    this.models = new Map(Object.entries(columns.models));
    this.colours = new Map([...(this.colours ?? []), ...Object.entries(columns.colours ?? {})]);
  }

  get length() {
    return this.at.length;
  }

  // Takes a `memory` payload. Within a step the second with the most memory in use stays, as on the server.
  add(memory) {
    const at = Math.floor(memory.at);
    Object.assign(this, { total: memory.total, limit: memory.limit, limitPercent: memory.limit_percent, gpuLimit: memory.gpu_limit });
    const last = this.length - 1;
    if (last >= 0 && at <= this.at[last]) return;
    const sameStep = last >= 0 && Math.floor(at / this.step) === Math.floor(this.at[last] / this.step);
    if (sameStep && memory.used <= this.used[last]) return;
    this.#put(sameStep ? last : last + 1, at, memory);
    this.#forget(at - this.span);
  }

  #put(index, at, memory) {
    this.at[index] = at;
    this.used[index] = memory.used;
    this.other[index] = memory.other;
    for (const columns of this.models.values()) {
      columns.weights[index] = 0;
      columns.kv[index] = 0;
    }
    for (const model of memory.models) {
      const columns = this.#columns(model.id, index);
      this.colours.set(model.id, model.colour);
      columns.weights[index] = model.weights;
      columns.kv[index] = model.kv + model.cache;
    }
  }

  #columns(model, index) {
    if (!this.models.has(model)) {
      const zeros = () => new Array(index).fill(0);
      this.models.set(model, { weights: zeros(), kv: zeros() });
    }
    return this.models.get(model);
  }

  #forget(before) {
    let count = 0;
    while (count < this.length && this.at[count] <= before) count += 1;
    if (!count) return;
    for (const column of [this.at, this.used, this.other]) column.splice(0, count);
    for (const [model, { weights, kv }] of this.models) {
      weights.splice(0, count);
      kv.splice(0, count);
      if (!weights.some(Boolean)) this.models.delete(model);
    }
  }

  // From the bottom of the chart to the top; `values` has one number of bytes per time.
  bands(otherName) {
    const models = [...this.models].map(([model, { weights }]) => ({
      name: model,
      colour: `--c${this.colours.get(model) ?? 8}`,
      css: `c${this.colours.get(model) ?? 8}`,
      values: weights,
    }));
    const kv = this.at.map((_, i) => [...this.models.values()].reduce((sum, columns) => sum + columns.kv[i], 0));
    return [
      { name: otherName, colour: "--other", css: "c-other", values: this.other },
      ...models,
      { name: "KV and caches", colour: "--cache", css: "c-cache", values: kv },
    ];
  }

  // The index whose time is nearest, -1 when there is none.
  nearest(time) {
    let best = -1;
    for (let i = 0; i < this.length; i += 1) {
      if (best < 0 || Math.abs(this.at[i] - time) < Math.abs(this.at[best] - time)) best = i;
    }
    return best;
  }
}
