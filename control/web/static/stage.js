// One alert on the stage: the pair, the question, what was answered, and what followed.

import { get, now, post } from "./api.js";
import { $, $$, copy, duration, icon, make, mark, say, setIcon, timeOfDay } from "./dom.js";
import { age } from "./queue.js";

const KINDS = {
  engage: ["arrow", "Judged the same: officers may approach"],
  dismissed: ["differ", "Judged not the same: nobody is sent"],
  disputed: ["diamond", "The answers do not settle it"],
  withdrawn: ["clock", "Withdrawn: too old to act on"],
  closed: ["check", "Closed"],
  waiting: ["disc", "Waits for an answer"],
};
const NEXT = {
  engage: "Tell the officers. When they are back, record what followed.",
  dismissed: "Nothing more is to be done.",
  disputed: "A supervisor who has not answered rules on it.",
  withdrawn: "Nobody decided in time. It cannot be acted on; the next alert can.",
  closed: "",
  waiting: "An adjudicator is asked.",
};
const BLIND = "Another member is asked, and does not see your answer.";
const SAID = { "not-same": "You answered: not the same", possibly: "You answered: possibly", same: "You answered: the same" };

export class Stage {
  constructor(place, acts) {
    this.place = place;
    this.acts = acts; // changed(detail), refused(error), next()
    this.id = null;
    this.detail = null;
    this.siblings = 0;
  }

  clear(title, words) {
    this.id = this.detail = this.element = null;
    const empty = $("#empty") ?? this.empty;
    this.empty = empty;
    say($("h2", empty), title);
    say($("p", empty), words);
    this.place.replaceChildren(empty);
  }

  async open(id) {
    this.empty ??= $("#empty");
    this.id = id;
    if (this.element) this.ready(); // the pair before is not answered any more
    const detail = await get(`/api/cases/${encodeURIComponent(id)}`);
    if (this.id !== id) return;
    // An alert that stands there whole is not built again: its buttons would go dead under somebody's finger.
    const stands = this.element?.dataset.alert === id && !$(".missing:not([hidden])", this.element);
    if (!stands) this.build(detail);
    this.update(detail);
    this.place.scrollTop = 0;
  }

  async refresh() {
    const id = this.id;
    if (!id) return;
    const detail = await get(`/api/cases/${encodeURIComponent(id)}`);
    if (this.id !== id || !this.element) return;
    // Pictures come when a member may see them, and go when they are erased.
    const { faces, erased, pictures } = this.detail;
    const others = detail.pictures.probe !== pictures.probe || detail.pictures.reference !== pictures.reference;
    if (detail.faces !== faces || detail.erased !== erased || others) this.build(detail);
    this.update(detail);
  }

  build(detail) {
    const element = (this.element = copy("t-stage"));
    element.dataset.alert = detail.alert_id;
    this.seen = new Map(); // side -> the digest of the picture that is painted there, or "" where there is none
    for (const side of ["probe", "reference"]) this.picture(side, detail);
    for (const button of $$(".answer", element)) button.addEventListener("click", () => this.answer(button.dataset.verdict));
    $(".undo", element).addEventListener("click", () => this.undo());
    $(".next", element).addEventListener("click", () => this.acts.next());
    const form = $(".followed", element);
    form.addEventListener("change", () => { $(".groups", form).hidden = form.elements.outcome.value !== "mistaken"; });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act("engage", Object.fromEntries(new FormData(form)));
    });
    this.place.replaceChildren(element);
  }

  picture(side, detail) {
    const figure = $(`figure[data-side="${side}"]`, this.element);
    const image = $("img", figure);
    const missing = $(".missing", figure);
    const here = side === "probe" ? detail.has_probe && !detail.erased : detail.has_reference;
    const fail = (words) => {
      image.hidden = true;
      missing.hidden = false;
      say(missing, words);
      this.ready();
    };
    const { element, seen } = this;
    const painted = async () => {
      await image.decode().catch(() => {}); // the event "error" tells of it
      await frame();
      seen.set(side, detail.pictures[side]);
      if (this.element === element) this.ready();
    };
    if (!detail.faces) {
      seen.set(side, "");
      fail(this.acts.role === "auditor" ? "An auditor sees no face." : "A viewer sees the pair once officers are sent.");
    } else if (!here) {
      seen.set(side, "");
      fail(detail.erased ? "Erased: the time it may be kept is over." : side === "probe" ? "The order keeps faces off alerts." : "The reference's picture was deleted, or never came here.");
    } else {
      image.addEventListener("load", painted);
      image.addEventListener("error", () => fail("This picture did not come. Choose the alert once more."));
      image.src = `/api/cases/${encodeURIComponent(detail.alert_id)}/${side}?digest=${detail.pictures[side]}`;
    }
  }

  // Nobody answers before both pictures of the chosen alert are painted.
  ready() {
    const both = this.seen.size === 2 && this.element.dataset.alert === this.id;
    mark($(".pair", this.element), "data-shown", both);
    const live = this.detail && (this.detail.may_judge || this.detail.may_rule) && now() < this.detail.stale_after;
    for (const button of $$(".answer", this.element)) {
      const compared = button.dataset.verdict !== "same" || Boolean(this.detail?.pictures.reference);
      button.disabled = !(both && live && compared) || this.busy === true;
    }
  }

  update(detail) {
    this.detail = detail;
    const { element } = this;
    say($(".category", element), detail.category_word);
    say($(".spot", element), [`Camera ${detail.camera}`, detail.place, detail.unit].filter(Boolean).join(" · "));
    say($(".probe-words", element), `${timeOfDay(detail.captured)} UTC · picture quality ${detail.quality_word} · ${Math.round(detail.interocular)} px between the eyes`);
    say($(".reference-words", element), [detail.reference_identifier, detail.image_date && `image of ${detail.image_date}, ${detail.image_age}`, detail.reference_quality !== null && `quality ${detail.reference_quality} of 100`].filter(Boolean).join(" · "));
    $(".warnings", element).replaceChildren(...detail.warnings.map((words) => {
      const item = make("li");
      item.append(icon("warning"), make("span", words));
      return item;
    }));
    this.asks(detail);
    this.results(detail);
    this.history(detail);
    this.tick();
    this.ready();
  }

  asks(detail) {
    const ask = $(".ask", this.element);
    ask.hidden = !(detail.may_judge || detail.may_rule);
    mark($(".answers", ask), "data-two", detail.may_rule);
    $('[data-verdict="possibly"]', ask).hidden = detail.may_rule;
    say($(".question", ask), detail.may_rule ? "You rule: do both pictures show the same human being?" : "Do both pictures show the same human being?");
  }

  results(detail) {
    const box = $(".result", this.element);
    box.hidden = detail.may_judge || detail.may_rule;
    box.dataset.state = detail.state;
    mark(this.element, "data-over", !box.hidden);
    const [shape, words] = KINDS[detail.state];
    setIcon($(".verdict svg", box), detail.mine && detail.state === "waiting" ? "check" : shape);
    const mine = detail.mine && detail.state === "waiting" ? SAID[detail.mine] : "";
    say($(".verdict-words", box), detail.decoy ? "A decoy: a test pair of two different human beings" : mine || (detail.state === "closed" ? `Closed: ${detail.state_word.toLowerCase()}` : words));
    say($(".next-words", box), detail.decoy ? (detail.state === "closed" ? "It was judged the same. Nobody was sent; the answer counts in the report." : "It was told apart.") : mine ? BLIND : NEXT[detail.state]);
    $(".followed", this.element).hidden = !(detail.state === "engage" && !detail.decoy && this.acts.judges);
  }

  history(detail) {
    const score = $(".score", this.element);
    const hidden = detail.hidden;
    const words = make("span", hidden ? this.secret(detail) : "");
    if (!hidden && detail.score !== null) {
      words.append(make("strong", `Score ${detail.score.toFixed(3)}`), ` · threshold ${detail.threshold.toFixed(3)}: a machine's figure, not a probability`);
    }
    score.replaceChildren(icon(hidden ? "lock" : "info"), words);
    $(".history", this.element).replaceChildren(...detail.history.map(({ at, what, detail: more }) => {
      const item = make("li");
      const text = make("div", what);
      if (more) text.append(make("span", more));
      item.append(make("time", timeOfDay(at)), text);
      return item;
    }));
    const rows = [["Track", `${detail.frames} frames in ${detail.track_seconds.toFixed(1)} s`], ["Answers needed", String(detail.required)],
      ["Kept until", `${new Date(detail.keep_until * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`], ["Alert", detail.alert_id, `/alerts/${encodeURIComponent(detail.alert_id)}`]];
    $(".technical", this.element).replaceChildren(...rows.map(([name, value, link]) => {
      const row = make("div");
      const said = make("dd", link ? "" : value);
      if (link) said.append(make("a", value, { href: link }));
      row.append(make("dt", name), said);
      return row;
    }));
  }

  secret(detail) {
    if (!this.acts.judges) return "The machine's score is hidden until the alert is decided.";
    const other = detail.required > 1 || detail.may_rule ? " and what others answered are" : " is";
    return `The machine's score${other} hidden until you have answered.`;
  }

  tick() {
    const { detail, element } = this;
    if (!detail || !element) return;
    age($(".alert-head", element), detail);
    const open = detail.state === "waiting" || detail.state === "disputed";
    const left = detail.stale_after - now();
    say($(".left", element), !open ? "" : left > 0 ? `withdrawn in ${duration(left)}` : "too old to act on");
    const sibling = $(".sibling", element);
    sibling.hidden = this.siblings < 2;
    if (this.siblings > 1) say($("span", sibling), `${this.siblings} alerts for this reference wait. Judge each by its own picture.`);
    const undo = $(".undo", element);
    const still = detail.may_undo_until ? detail.may_undo_until - now() : 0;
    undo.hidden = still <= 0;
    if (still > 0) say($("span", undo), `Undo, ${Math.ceil(still)} s`);
    $(".next", element).hidden = !this.acts.more(this.id);
    if (open && left <= 0) this.ready();
  }

  async answer(verdict) {
    const { detail, element, seen } = this;
    if (!detail || !element || $(`.answer[data-verdict="${verdict}"]`, element).disabled) return;
    if (detail.may_rule && verdict === "possibly") return;
    if (verdict === "same" && !(await this.acts.confirm(detail))) return;
    if (this.element !== element || this.id !== element.dataset.alert) {
      this.acts.refused(new Error("the pair on the screen has changed; look at it again, then answer"));
      return;
    }
    const pair = { alert: element.dataset.alert, ...Object.fromEntries(seen) };
    await this.act(detail.may_rule ? "rule" : "judge", { verdict, note: $(".note textarea", element).value, ...pair });
  }

  undo() {
    if (this.detail?.may_undo_until && this.detail.may_undo_until > now()) this.act("undo", {});
  }

  async act(what, fields) {
    if (this.busy) return;
    const id = this.element.dataset.alert;
    this.busy = true;
    this.ready();
    try {
      const detail = await post(`/api/cases/${encodeURIComponent(id)}/${what}`, fields);
      if (this.id === id) {
        this.update(detail);
        $(".category", this.element).focus({ preventScroll: true });
      }
      this.acts.changed(what, detail);
    } catch (error) {
      this.acts.refused(error);
    } finally {
      this.busy = false;
      if (this.element) this.ready();
    }
  }
}

// Two frames later, what was decoded is painted.
const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
