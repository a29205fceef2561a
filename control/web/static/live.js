// The stream of events, with resume. It tells at once when the connection is lost, and mends it by itself.

import { leave } from "./api.js";

const SILENCE = 11000; // milliseconds without a sign of life (one comes every 4 s) after which the line is dead
const AGAIN = [300, 700, 1500, 3000, 5000];

export class Live extends EventTarget {
  constructor(after) {
    super();
    this.last = Number(after) || 0;
    this.state = "starting";
    this.tries = 0;
    this.open();
    addEventListener("online", () => this.retry());
    addEventListener("offline", () => this.lose());
    addEventListener("pagehide", () => this.source.close());
    addEventListener("pageshow", (event) => { if (event.persisted) this.retry(); });
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.state === "lost") this.retry(); });
  }

  open() {
    this.source = new EventSource(`/events?after=${this.last}`);
    this.heard();
    this.source.addEventListener("hello", (event) => this.alive(event));
    this.source.addEventListener("beat", (event) => this.alive(event));
    this.source.addEventListener("reset", (event) => {
      this.alive(event);
      this.tell("reset", {});
    });
    this.source.addEventListener("change", (event) => {
      this.alive(event);
      this.tell("change", JSON.parse(event.data));
    });
    this.source.addEventListener("ended", () => {
      this.source.close();
      leave();
    });
    this.source.addEventListener("error", () => this.lose());
  }

  alive(event) {
    this.last = Math.max(this.last, JSON.parse(event.data).sequence);
    this.tries = 0;
    this.heard();
    if (this.state === "live") return;
    const again = this.state === "lost";
    this.state = "live";
    this.tell("link", { state: "live", again });
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lose(), SILENCE);
  }

  lose() {
    clearTimeout(this.silence);
    this.source.close();
    if (this.state !== "lost") {
      this.state = "lost";
      this.since = Date.now() / 1000;
      this.tell("link", { state: "lost" });
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), AGAIN[Math.min(this.tries++, AGAIN.length - 1)]);
  }

  retry() {
    clearTimeout(this.timer);
    this.source.close();
    this.open();
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
