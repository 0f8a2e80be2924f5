// The list of models: how each runs is written in place, the list is fetched again when one of its models changes state.

import { write } from "./format.js";
import { followJobs, Fragment } from "./fragment.js";
import { live } from "./live.js";

let latest = [];
const list = new Fragment("model-list", fill);

function fill() {
  for (const model of latest) {
    if (model.state !== "loading" || !model.load_total) continue;
    const row = list.element?.querySelector(`tr[data-model="${CSS.escape(model.id)}"]`);
    write(row?.querySelector('[data-f="progress"]'), ` ${Math.floor((100 * model.load_done) / model.load_total)} %`);
  }
}

live.on("models", (models) => {
  latest = models;
  fill();
  list.changed("models", models.map(({ id, state, reason, pinned }) => [id, state, reason, pinned]));
});
live.on("catalog", (models) => list.changed("catalog", models.map(({ id, reason }) => [id, reason])));
live.on("notices", (notices) => list.changed("notices", notices.map(({ model, at }) => [model, at])));
followJobs(list);
