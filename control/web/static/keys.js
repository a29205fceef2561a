// Keys that act on a page, and the list of them that `?` shows. They can be switched off (WCAG 2.1.4).

import { $, keep, kept, make } from "./dom.js";

const known = new Map();
let on = kept("keys", "on") === "on";

export function key(name, words, act) {
  known.set(name, { words, act });
}

export function begin() {
  const box = $("#keys-on");
  box.checked = on;
  box.addEventListener("change", () => {
    on = box.checked;
    keep("keys", on ? "on" : "off");
  });
  document.addEventListener("keydown", pressed);
}

export function show() {
  const list = $("#keys");
  list.replaceChildren(...[...known].map(([name, { words }]) => {
    const row = make("div");
    const term = make("dt", words);
    const keyed = make("dd");
    keyed.append(make("kbd", name));
    row.append(term, keyed);
    return row;
  }));
  $("#help").showModal();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !on) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.target.closest("input:not([type=radio]), textarea, select")) return;
  const found = known.get(event.key);
  if (!found) return;
  event.preventDefault();
  found.act();
}
