"use strict";
// Asks for the newest picture, shows it, asks again. Nothing is kept: each picture replaces the one before.

const visit = Date.now();
const SHORT = { small: "too small", turned: "turned", dark: "dark", bright: "too bright", pale: "no contrast",
  blurred: "blurred", poor: "poor" };
const at = (id) => document.getElementById(id);
let camera = "", after = 0, silent = 0;

function drawn(kind, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function words(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}

function cameras(names, current) {
  const nav = at("cameras");
  if (nav.childElementCount !== names.length) {
    nav.replaceChildren(...names.map((name, i) => {
      const button = words("button", names.length > 1 ? `${i + 1}  ${name}` : name);
      button.type = "button";
      button.addEventListener("click", () => { camera = name; after = 0; });
      return button;
    }));
  }
  [...nav.children].forEach((button, i) => button.setAttribute("aria-current", String(names[i] === current)));
}

function left(seconds) {
  const minutes = Math.floor(seconds / 60), rest = String(seconds % 60).padStart(2, "0");
  at("left").textContent = `ends in ${minutes}:${rest}`;
}

function marks(sight) {
  const svg = at("marks"), box = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const nodes = [];
  for (const spot of sight.spots) {
    const kind = spot.look.faults.length ? "look" : "good";
    const x = spot.x * box.width, y = spot.y * box.height, w = spot.width * box.width, h = spot.height * box.height;
    nodes.push(drawn("rect", { class: kind, x, y, width: w, height: h, rx: Math.min(w, h) * .3 }));
    const told = spot.look.faults.filter((f) => f !== "small" || spot.look.width >= sight.wanted.width);
    const word = kind === "good" ? "✔" : ["▲", ...told.map((f) => SHORT[f])].join(" ");
    const middle = Math.min(Math.max(x + w / 2, 40), box.width - 40);
    nodes.push(drawn("text", { class: "fill" + kind, x: middle, y: Math.max(y - 8, 14), "text-anchor": "middle" },
      `${Math.round(spot.look.width)} px ${word}`));
  }
  svg.replaceChildren(...nodes);
}

// Two faces side by side at one scale: the one wanted, dashed, and the median one seen.
function drawing(sight) {
  const { share, wanted } = sight, most = 82 / Math.max(wanted.width, share.width, 1);
  const face = (x, width, kind) => {
    const w = Math.max(width * most, 1), h = w * 1.25, y = 112 - h, eye = Math.max(w * .055, 1);
    const turn = kind === "want" ? 0 : Math.max(-1, Math.min(1, share.yaw)) * w * .16;
    return [
      drawn("rect", { class: `outline ${kind}`, x: x - w / 2, y, width: w, height: h, rx: w / 2 }),
      ...[-1, 1].map((side) => drawn("circle",
        { class: `outline ${kind}`, cx: x + turn + side * w * .19, cy: y + h * .42, r: eye })),
      drawn("path", { class: `outline ${kind}`,
        d: `M ${x + turn - w * .16} ${y + h * .72} q ${w * .16} ${w * .09} ${w * .32} 0` }),
    ];
  };
  const kind = share.width >= wanted.width && share.interocular >= wanted.interocular ? "good" : "look";
  const nodes = [...face(78, wanted.width, "want"),
    drawn("text", { class: "quiet", x: 78, y: 128, "text-anchor": "middle" }, `wanted ${Math.round(wanted.width)} px`)];
  if (share.seen) nodes.push(...face(222, share.width, kind));
  nodes.push(drawn("text", { x: 222, y: 128, "text-anchor": "middle" },
    share.seen ? `seen ${Math.round(share.width)} px` : "none seen yet"));
  at("drawing").replaceChildren(...nodes);
}

function figures(sight) {
  const { share, wanted, scene } = sight;
  const percent = share.seen ? Math.round(100 * share.usable / share.seen) + " %" : "none yet";
  const turned = Math.abs(share.yaw) < .15 ? "straight" : `${share.yaw > 0 ? "right" : "left"} ${Math.abs(share.yaw).toFixed(1)} of ${wanted.yaw}`;
  const rows = [
    ["Usable faces, 30 s", share.seen ? `${percent} of ${share.seen}` : percent],
    ["Between the eyes", share.seen ? `${Math.round(share.interocular)} px, ${Math.round(wanted.interocular)} needed` : "none yet"],
    ["Light on faces", share.seen ? `${Math.round(share.level)} of 255` : "none yet"],
    ["Faces turned", share.seen ? turned : "none yet"],
    ["Light of the scene", `${Math.round(scene.level)} of 255`],
    ["Focus: edges", scene.blur === null ? "none found" : `${scene.blur.toFixed(1)} px, ${scene.softest.toFixed(1)} at most`],
    ["Camera", `${sight.size[0]} × ${sight.size[1]}`],
  ];
  at("figures").replaceChildren(...rows.flatMap(([name, value]) => [words("dt", name), words("dd", value)]));
}

function show(sight) {
  at("stage").style.aspectRatio = `${sight.size[0]} / ${sight.size[1]}`;
  at("picture").src = "data:image/jpeg;base64," + sight.picture;
  at("waiting").textContent = "";
  at("verdict").className = sight.good ? "good" : "";
  at("shape").textContent = sight.good ? "✔" : "▲";
  const [first, ...rest] = sight.advice;
  if (at("first").textContent !== first) at("first").textContent = first;
  at("more").replaceChildren(...rest.map((line) => words("li", line)));
  marks(sight);
  drawing(sight);
  figures(sight);
}

function over(text) {
  at("picture").removeAttribute("src");
  at("marks").replaceChildren();
  at("waiting").textContent = text;
  at("left").textContent = "ended";
}

async function ask() {
  let answer;
  try {
    answer = await fetch(`/sight?visit=${visit}&after=${after}&camera=${encodeURIComponent(camera)}`, { cache: "no-store" });
  } catch (error) {
    if (++silent > 3) return over("The view has ended. Start it again on the unit: bluelamp-unit view");
    return setTimeout(ask, 500);
  }
  silent = 0;
  if (!answer.ok) return over(await answer.text());
  const sight = await answer.json();
  cameras(sight.cameras, sight.camera);
  left(sight.left);
  if (sight.picture) { after = sight.number; show(sight); }
  else at("waiting").textContent = "No picture from this camera; trying";
  return ask();
}

function dim() {
  const on = document.body.classList.toggle("dim");
  at("dim").setAttribute("aria-pressed", String(on));
}

at("dim").addEventListener("click", dim);
addEventListener("keydown", (event) => {
  if (event.key === "d") dim();
  const button = at("cameras").children[Number(event.key) - 1];
  if (button) button.click();
});
ask();
