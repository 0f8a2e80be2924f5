// The page of one model.

import { size, write } from "./format.js";
import { followJobs, Fragment, installDialogs } from "./fragment.js";
import { live } from "./live.js";

let latest = null;
const part = new Fragment("model", fill);
const name = part.element.dataset.model;
const put = (field, text) => write(part.element?.querySelector(`[data-f="${field}"]`), text);

function fill() {
  if (!latest) return;
  put("memory", size(latest.footprint));
  put("requests", `${latest.running} running · ${latest.queued} queued`);
  put("rate", latest.tokens_per_second.toFixed(0));
  if (latest.state === "loading" && latest.load_total) {
    put("progress", ` ${Math.floor((100 * latest.load_done) / latest.load_total)} %`);
    put("load-words", `: ${size(latest.load_done)} of ${size(latest.load_total)}`);
  }
}

live.on("models", (models) => {
  latest = models.find(({ id }) => id === name) ?? null;
  fill();
  part.changed("models", latest && [latest.state, latest.reason, latest.pinned, latest.context, latest.slots]);
});
live.on("catalog", (models) => {
  const here = models.find(({ id }) => id === name);
  part.changed("catalog", here && [here.reason, here.state]);
});
live.on("notices", (notices) => part.changed("notices", notices.filter(({ model }) => model === name).map(({ at }) => at)));
followJobs(part, ({ title }) => title === name);
installDialogs();
