// Two soft notes for a new alert, made here. Browsers allow sound only after the first touch or key on a page.

import { $, keep, kept, say, setIcon } from "./dom.js";

const NOTES = [[784, 0], [1175, 0.16]]; // hertz, seconds from now
let wanted = kept("sound", "on") === "on";
let audio = null;

export function begin() {
  const button = $("#sound");
  button.addEventListener("click", toggle);
  for (const name of ["pointerdown", "keydown"]) addEventListener(name, allow, { passive: true });
  show();
}

export function toggle() {
  wanted = !wanted;
  keep("sound", wanted ? "on" : "off");
  show();
  if (wanted) ring();
}

export function ring() {
  if (!wanted || audio?.state !== "running") return;
  for (const [hertz, later] of NOTES) {
    const at = audio.currentTime + later;
    const tone = new OscillatorNode(audio, { type: "sine", frequency: hertz });
    const loudness = new GainNode(audio, { gain: 0 });
    loudness.gain.setValueAtTime(0, at);
    loudness.gain.linearRampToValueAtTime(0.28, at + 0.015);
    loudness.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(loudness).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.52);
  }
}

async function allow() {
  if (!wanted || audio?.state === "running") return;
  audio ??= new AudioContext();
  await audio.resume();
  show();
}

function show() {
  const button = $("#sound");
  button.setAttribute("aria-pressed", String(wanted));
  setIcon($("svg", button), wanted ? "sound" : "mute");
  say($("span", button), !wanted ? "Sound off" : audio?.state === "running" ? "Sound on" : "Touch for sound");
}
