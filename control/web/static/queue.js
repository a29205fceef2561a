// The lists of alerts: the rows that end soonest, the rest counted. Rows are kept and moved, never built anew, so that focus stays.

import { now } from "./api.js";
import { $, copy, duration, mark, say, setIcon } from "./dom.js";

const MARKS = { waiting: "disc", disputed: "diamond", engage: "arrow", dismissed: "differ", withdrawn: "clock", closed: "check" };

// Which lists a page has, in which order: its name, the server's list, and the rows of it that belong there.
const LISTS = {
  all: [
    ["Officers are sent", "engage", () => true],
    ["Your answer is asked", "waiting", (row) => row.may_judge, "mine"],
    ["Waits for others", "waiting", (row) => !row.may_judge, "others"],
    ["For a supervisor", "disputed", () => true],
    ["Over", "done", () => true],
  ],
  disputed: [["Your ruling is asked", "disputed", (row) => row.may_rule, "mine"], ["Another supervisor's", "disputed", (row) => !row.may_rule, "others"]],
  one: [],
};
const ORDER = { judge: [1, 0, 3, 2, 4], look: [0, 1, 2, 3, 4] };

export class Queue {
  constructor(place, scope, judges, pick) {
    const lists = LISTS[scope];
    const order = scope === "all" ? ORDER[judges ? "judge" : "look"] : lists.map((_, i) => i);
    this.pick = pick;
    this.rows = new Map(); // alert id -> its <li>
    this.data = new Map();
    this.lists = order.map((i) => {
      const section = copy("t-list");
      say($(".list-name", section), lists[i][0]);
      section.hidden = true;
      place.append(section);
      return { section, from: lists[i][1], belongs: lists[i][2], whose: lists[i][3] };
    });
  }

  // `fresh`: ids that came since the last time and ask for an answer.
  show(lists, fresh) {
    const seen = new Set();
    for (const list of this.lists) {
      const { rows, total, asked } = lists[list.from];
      const mine = together(rows.filter(list.belongs));
      const all = list.whose === "mine" ? asked : list.whose === "others" ? total - asked : total;
      list.section.hidden = mine.length === 0 && all <= 0;
      say($(".count", list.section), String(Math.max(all, mine.length)));
      const rest = $(".rest", list.section);
      rest.hidden = all <= mine.length;
      if (!rest.hidden) say(rest, `${(all - mine.length).toLocaleString("en-GB")} more are not shown${list.from === "done" ? "" : "; they move up"}.`);
      place($("ol", list.section), mine.map((row) => this.item(row, fresh.has(row.alert_id))));
      for (const row of mine) seen.add(row.alert_id);
    }
    for (const [id, item] of this.rows) {
      if (seen.has(id)) continue;
      item.remove();
      this.rows.delete(id);
      this.data.delete(id);
    }
    this.tick();
  }

  item(row, fresh) {
    let item = this.rows.get(row.alert_id);
    if (!item) {
      item = copy("t-row");
      $("button", item).addEventListener("click", () => this.pick(row.alert_id));
      item.dataset.alert = row.alert_id;
      this.rows.set(row.alert_id, item);
      mark(item.firstElementChild, "data-new", fresh);
      if (fresh) arrive(item);
    }
    const button = item.firstElementChild;
    if (!row.may_judge && !row.may_rule) mark(button, "data-new", false);
    this.data.set(row.alert_id, row);
    button.dataset.state = row.state;
    setIcon($(".mark svg", button), MARKS[row.state]);
    say($(".row-category", button), row.category_word);
    say($(".row-where", button), [`Camera ${row.camera}`, row.place || row.unit].join(" · "));
    item.classList.toggle("twin", Boolean(row.twins));
    item.classList.toggle("first", Boolean(row.first));
    if (row.first) item.dataset.words = `Same reference, ${row.twins} alerts: judge each by itself`;
    this.word(row.alert_id);
    return item;
  }

  word(id) {
    const row = this.data.get(id);
    const button = this.rows.get(id).firstElementChild;
    const asked = row.may_judge || row.may_rule;
    const words = button.hasAttribute("data-new") ? "New" : asked ? (row.may_rule ? "Rule" : "Answer") : row.state === "waiting" ? (row.mine ? "Answered" : "Waits") : row.state_word;
    say($(".row-state", button), words);
  }

  current(id) {
    for (const [other, item] of this.rows) mark(item.firstElementChild, "aria-current", other === id ? "true" : null);
    const item = this.rows.get(id);
    if (!item) return;
    mark(item.firstElementChild, "data-new", false);
    this.word(id);
    item.scrollIntoView({ block: "nearest" });
  }

  tick() {
    for (const [id, row] of this.data) age(this.rows.get(id).firstElementChild, row);
  }

  // Ids in the order of the screen; `asked`: only those that wait for this member.
  ids(asked = false) {
    return this.lists.flatMap(({ section }) => [...$("ol", section).children])
      .map((item) => item.dataset.alert)
      .filter((id) => (!asked || this.data.get(id).may_judge || this.data.get(id).may_rule));
  }
}

// The age of an alert, and how much of its time is left, in words, in a bar and in the bar's end.
export function age(element, row) {
  const open = row.state === "waiting" || row.state === "disputed";
  const left = Math.max(0, (row.stale_after - now()) / (row.stale_after - row.captured));
  const time = $(".age", element);
  say(time, duration(now() - row.captured));
  element.style.setProperty("--left", open ? left.toFixed(3) : "0");
  mark(element, "data-late", !open ? null : left < 0.15 ? "now" : left < 0.4 ? "soon" : null);
}

function arrive(item) {
  item.classList.add("arriving");
  setTimeout(() => item.classList.remove("arriving"), 700);
}

// Alerts for one reference stand together, where the first of them is.
function together(rows) {
  const groups = new Map();
  for (const row of rows) {
    const name = row.reference_identifier && (row.state === "waiting" || row.state === "disputed") ? `${row.deployment}/${row.reference_identifier}` : row.alert_id;
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  return [...groups.values()].flatMap((group) => group.map((row, i) => ({ ...row, twins: group.length > 1 ? group.length : 0, first: group.length > 1 && i === 0 })));
}

function place(list, items) {
  items.forEach((item, i) => { if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null); });
  while (list.children.length > items.length) list.lastElementChild.remove();
}
