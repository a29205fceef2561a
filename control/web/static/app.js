// What every page does: theme, keys, the state of the connection, and staying signed in while somebody is there.

import { now, post, setClock } from "./api.js";
import { $, duration, keep, make, say, setIcon, timeOfDay } from "./dom.js";
import * as keys from "./keys.js";
import { Live } from "./live.js";

const STAY = 60; // seconds between signs that somebody is there
const WARN = 120; // seconds before the end of a session at which it is said
let ends = Number($('meta[name="idle-ends"]').content);
let told = 0;

setClock(Number($('meta[name="now"]').content));
const started = document.querySelector("[data-newest]");
export const live = new Live(started ? started.dataset.newest : 0);

live.addEventListener("link", ({ detail }) => {
  const link = $("#link");
  link.dataset.state = detail.state;
  const lost = detail.state === "lost";
  setIcon($("svg", link), lost ? "off" : "disc");
  say($("span", link), lost ? "Not connected" : "Live");
  const banner = $("#lost");
  banner.hidden = !lost;
  if (lost) {
    const since = timeOfDay(now());
    say($("span", banner), `Connection lost at ${since} UTC. What you see may be old. Trying again by itself…`);
  } else if (detail.again) toast("Connected again: the page is up to date.");
});

export function toast(words, { kind = "", act = null, seconds = 5 } = {}) {
  const box = make("div", "", { class: "toast" });
  if (kind) box.dataset.kind = kind;
  box.append(make("span", words));
  if (act) {
    const button = make("button", act.words, { type: "button", class: "button" });
    button.addEventListener("click", () => { box.remove(); act.run(); });
    box.append(button);
  }
  const toasts = $("#toasts");
  toasts.append(box);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  setTimeout(() => box.remove(), seconds * 1000);
  return box;
}

function turn() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = shown === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  keep("theme", next);
}

async function stay() {
  if (now() - told < STAY) return;
  told = now();
  try { ends = (await post("/api/stay")).idle_ends; } catch { told = 0; }
}

function watch() {
  const left = ends - now();
  const banner = $("#idle");
  banner.hidden = left > WARN;
  if (left <= WARN) say($("span", banner), `You will be signed out in ${duration(left)}, for want of activity. Touch anything to stay.`);
}

$("#theme").addEventListener("click", turn);
$("#help-open").addEventListener("click", keys.show);
keys.key("?", "This list", keys.show);
keys.key("d", "Light or dark", turn);
keys.begin();
told = now();
for (const name of ["pointerdown", "keydown"]) addEventListener(name, stay, { passive: true });
setInterval(watch, 1000);
