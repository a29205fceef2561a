// Keeps the figures of the fleet fresh, by their keys. Where a unit, a camera or an order came or went, the page is loaded anew.

import { get } from "./api.js";
import { live } from "./app.js";
import { $$, mark, say } from "./dom.js";

const EVERY = 5000; // milliseconds; a unit reports every few seconds

async function refresh() {
  let figures;
  try { figures = await get("/api/fleet"); } catch { return; } // the banner says that the connection is lost
  const shown = $$("[data-key]");
  const keys = new Set(Object.keys(figures));
  if (shown.length !== keys.size || shown.some((element) => !keys.has(element.dataset.key))) {
    location.reload();
    return;
  }
  for (const element of shown) {
    const [value, alarm, name] = figures[element.dataset.key];
    say(element.lastElementChild, value);
    mark(element, "data-alarm", alarm);
    const pill = element.closest("[data-unit-state]");
    if (pill) pill.dataset.unitState = name;
  }
}

live.addEventListener("change", ({ detail }) => { if (detail.kind === "unit" || detail.kind === "deployment") refresh(); });
live.addEventListener("link", ({ detail }) => { if (detail.again) refresh(); });
setInterval(refresh, EVERY);
