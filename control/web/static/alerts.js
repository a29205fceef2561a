// The page of alerts: queue and stage, kept up to date by the stream.

import { get, setClock } from "./api.js";
import { live, toast } from "./app.js";
import { $, mark, say } from "./dom.js";
import { key } from "./keys.js";
import { Queue } from "./queue.js";
import * as sound from "./sound.js";
import { Stage } from "./stage.js";

const AT_MOST_EVERY = 250; // milliseconds between two loads of the queue, however many alerts come
const BY_ITSELF = 30000; // milliseconds; a second net beneath the stream
const desk = $("#desk");
const { scope, role } = desk.dataset;
const judges = role === "adjudicator" || role === "supervisor";
const known = new Set();
let first = true;
let timer = null;
let loaded = 0; // when the queue was asked for last
let again = false; // something happened while it was asked for

const stage = new Stage($("#stage"), {
  judges, role, changed, refused, confirm, next,
  more: (id) => queue.ids(true).some((other) => other !== id),
});
const queue = new Queue($("#lists"), scope, judges, pick);

function load() {
  if (timer) return;
  timer = setTimeout(async () => {
    loaded = Date.now();
    try { show(await get("/api/queue")); } catch (error) { if (error.status) refused(error); }
    timer = null;
    if (again) { again = false; load(); }
  }, Math.max(0, loaded + AT_MOST_EVERY - Date.now()));
}

function show({ now, lists, broker }) {
  setClock(now);
  const asked = [...lists.waiting.rows.filter((row) => row.may_judge), ...lists.disputed.rows.filter((row) => row.may_rule)];
  const fresh = new Set(asked.map((row) => row.alert_id).filter((id) => !known.has(id)));
  for (const list of Object.values(lists)) for (const row of list.rows) known.add(row.alert_id);
  for (const id of fresh) known.add(id);
  queue.show(lists, first ? new Set() : fresh);
  if (fresh.size && !first && scope !== "one") {
    sound.ring();
    const one = asked.find((row) => fresh.has(row.alert_id));
    say($("#announce"), fresh.size === 1 ? `New alert: ${one.category_word}, ${one.camera}` : `${fresh.size} new alerts`);
  }
  first = false;
  mark(desk, "data-empty", queue.rows.size === 0);
  const waiting = lists.waiting.asked + lists.disputed.asked;
  document.title = `${waiting && scope !== "one" ? `(${waiting}) ` : ""}${$("h1").textContent} · Bluelamp`;
  brokerWords(broker);
  choose();
  siblings(lists);
  stage.tick();
}

function brokerWords(broker) {
  const banner = $("#broker");
  banner.hidden = !broker || broker.connected;
  if (broker && !broker.connected) say($("span", banner), broker.words);
}

// An empty stage takes the first alert that asks for an answer; a member who looks at one is never torn away from it.
function choose() {
  if (stage.id) { queue.current(stage.id); return; }
  if (scope === "one") return;
  const [asked] = judges ? queue.ids(true) : queue.ids();
  if (asked) pick(asked);
  else if (scope === "disputed") stage.clear("Nothing to rule on", "Where adjudicators answer differently, the pair comes here.");
  else stage.clear(judges ? "No alert waits" : "No alert", judges ? "The next one is heard and seen here. Keep this page open." : "This page keeps itself up to date.");
}

function siblings(lists) {
  const rows = [...lists.waiting.rows, ...lists.disputed.rows];
  const own = rows.find((row) => row.alert_id === stage.id);
  const same = (row) => row.reference_identifier && row.reference_identifier === own.reference_identifier && row.deployment === own.deployment;
  stage.siblings = own ? rows.filter(same).length : 0;
}

async function pick(id) {
  desk.dataset.open = "";
  try {
    const opening = stage.open(id);
    queue.current(id);
    await opening;
  } catch (error) {
    stage.clear("This alert cannot be shown", error.message);
  }
}

function next() {
  const ids = queue.ids(true).filter((id) => id !== stage.id);
  if (ids.length) pick(ids[0]);
}

function move(by) {
  const ids = queue.ids();
  const at = ids.indexOf(stage.id);
  if (ids.length) pick(ids[Math.min(ids.length - 1, Math.max(0, at + by))]);
}

function changed(what, detail) {
  if (what === "undo") toast("Taken back. The ledger keeps that it was answered.");
  if (what === "engage") toast("Recorded.");
  load();
  if (what !== "undo" && detail.may_undo_until === null && what !== "engage") toast("Saved.");
}

function refused(error) {
  toast(error.message.charAt(0).toUpperCase() + error.message.slice(1), { kind: "bad", seconds: 9 });
  stage.refresh().catch(() => {}); // it was said already; the banner says where the connection is
  load();
}

function confirm(detail) {
  const dialog = $("#confirm");
  $("#confirm-two").hidden = !(detail.required > 1 && detail.may_judge);
  $("#confirm-one").hidden = detail.required > 1 && detail.may_judge;
  dialog.showModal();
  $("#confirm-no").focus(); // Enter by reflex sends nobody
  return new Promise((resolve) => {
    const done = (said) => {
      resolve(said);
      dialog.close();
    };
    $("#confirm-yes").onclick = () => done(true);
    $("#confirm-no").onclick = () => done(false);
    // A close that is told of late, when the dialog is open again, belongs to the question before.
    dialog.onclose = () => { if (!dialog.open) resolve(false); };
  });
}

if (judges) {
  key("1", "Not the same", () => stage.answer("not-same"));
  key("2", "Possibly", () => stage.answer("possibly"));
  key("3", "Same: engage", () => stage.answer("same"));
  key("u", "Undo, within 30 seconds", () => stage.undo());
}
if (scope !== "one") {
  key("n", "Next alert that asks for you", next);
  key("j", "One down", () => move(1));
  key("k", "One up", () => move(-1));
}
key("s", "Sound on or off", sound.toggle);
sound.begin();

live.addEventListener("change", ({ detail }) => {
  if (timer) again = true;
  load();
  if (detail.subject === stage.id) stage.refresh().catch(() => {}); // a lost connection has its own banner
});
live.addEventListener("reset", load);
live.addEventListener("link", ({ detail }) => {
  if (!detail.again) return;
  load();
  stage.refresh().catch(() => {}); // the same
});
setInterval(() => { queue.tick(); stage.tick(); }, 500);
setInterval(load, BY_ITSELF);
if (scope === "one") pick(desk.dataset.case);
load();
