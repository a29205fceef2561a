// Requests to this host. A refusal is an Error whose message is the server's own words.

import { $ } from "./dom.js";

const token = $('meta[name="csrf"]')?.content ?? "";
const WAIT = 10000; // milliseconds before an answer counts as lost
let ahead = 0; // seconds the server's clock is ahead of ours

export const now = () => Date.now() / 1000 + ahead;
export function setClock(seconds) { ahead = seconds - Date.now() / 1000; }

export class Refusal extends Error {
  constructor(words, status, stale) {
    super(words);
    this.status = status;
    this.stale = stale;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(WAIT), redirect: "error" });
  } catch {
    throw new Refusal("No connection: this was not saved. Try again in a moment.", 0, false);
  }
  if (response.status === 401) leave();
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(body.error ?? "The server did not understand this.", response.status, body.stale);
  return body;
}

export const get = (path) => ask(path, {});

export function post(path, fields = {}) {
  return ask(path, { method: "POST", body: new URLSearchParams(fields), headers: { "X-CSRF-Token": token } });
}

// The session is over: to the sign-in page, and back here afterwards.
export function leave() {
  location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
}
