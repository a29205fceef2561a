"""How the control room bears a flood: sealed alerts through courier, broker and service to browsers that listen.

`python -m benchmarks.console --minutes 5 --json`. The service is a process of its own, as `serve` starts it. Each
reader signs in, listens to the event stream, asks for the queue after changes as the page does, and opens a pair now
and then. Latency runs from the moment a sealed alert is handed to the courier to its event at a reader; with
`--browsers 2`, chromium shows the page as well, and to its row there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Page, sync_playwright

from appliance.command_line import complain
from appliance.errors import BluelampError, ConfigError, CourierError
from appliance.limits import LIMITS
from appliance.records import Candidate
from appliance.transport.mqtt import BrokerAddress
from appliance.trust import seal
from benchmarks.delivery import linked, probe_of, sealer_of
from control.broker.broker import BrokerFiles, running_broker
from control.ledger.ledger import Ledger
from control.people.people import People
from demo import rehearsal

_PASSWORD = "four words of a benchmark"
_WAIT_SECONDS = 180.0  # for the last alerts
_QUEUE_SECONDS = 0.3  # between a change and the page's question
_OBSERVE = """() => {
  window.arrived = {};
  new MutationObserver(() => {
    for (const row of document.querySelectorAll("li[data-alert]")) arrived[row.dataset.alert] ??= Date.now() / 1000;
  }).observe(document.querySelector("#lists"), { childList: true, subtree: true });
}"""
_LOOK_SECONDS = 5.0  # between two pairs that a reader opens


@dataclass
class Reader:
    """A browser's manners without its screen."""

    address: str
    name: str
    arrived: dict[str, float] = field(default_factory=dict)  # alert id: time of its event
    repeats: Counter[str] = field(default_factory=Counter)
    answers: list[float] = field(default_factory=list)  # seconds of each question for the queue
    looks: list[float] = field(default_factory=list)  # seconds to open a pair
    connected: threading.Event = field(default_factory=threading.Event)
    changed: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.client = signed_in(self.address, self.name)
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._listen, self._ask, self._look)]

    def start(self) -> None:
        """Begin to listen."""
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        with self.client.stream("GET", "/events", timeout=None) as stream:
            for line in stream.iter_lines():
                if self.ended.is_set():
                    return
                self.connected.set()
                if line.startswith("data:"):
                    self._heard(json.loads(line[5:]))

    def _heard(self, told: dict[str, str]) -> None:
        if told.get("kind") == "alert":
            if told["subject"] in self.arrived:
                self.repeats[told["subject"]] += 1
            self.arrived.setdefault(told["subject"], time.time())
            self.changed.set()

    def _ask(self) -> None:
        while not self.ended.is_set():
            if self.changed.wait(0.5):
                self.changed.clear()
                self.answers.append(self._time("/api/queue"))
                time.sleep(_QUEUE_SECONDS)

    def _look(self) -> None:
        while not self.ended.wait(_LOOK_SECONDS):
            newest = next(reversed(list(self.arrived)), None)
            if newest is not None:
                self.looks.append(self._time(f"/api/cases/{newest}") + self._time(f"/api/cases/{newest}/probe"))

    def _time(self, path: str) -> float:
        started = time.perf_counter()
        self.client.get(path, timeout=60).raise_for_status()
        return time.perf_counter() - started


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--per-minute", type=float, default=1000.0, help="alerts a minute")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--browsers", type=int, default=0, help="pages of a real chromium besides")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-bench-") as temporary:
            result = measure(Path(temporary), options.minutes, options.per_minute, options.readers, options.browsers)
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    print(json.dumps(result) if options.json else "\n".join(f"{name:<26} {value}" for name, value in result.items()))
    return 0


def measure(
    folder: Path, minutes: float, per_minute: float, readers: int, browsers: int = 0
) -> dict[str, float]:  # fmt: skip
    """All figures. Raises CourierError where the service could not be started."""
    prepared, store = rehearsal.prepare(folder), folder / "store"
    with closing(People(store)) as people:
        for number in range(readers + browsers + 1):
            people.add(f"reader-{number}", "adjudicator", _PASSWORD)
    files = BrokerFiles.of(folder / "broker")
    with (
        running_broker(files, [rehearsal.CONTROL], host=rehearsal.HOST) as broker,
        serving(prepared, broker.address, store) as (process, address),
    ):
        listening = [Reader(address, f"reader-{number}") for number in range(readers)]
        for reader in listening:
            reader.start()
            reader.connected.wait(30)
        names = [f"reader-{readers + 1 + number}" for number in range(browsers)]
        with chromium_pages(address, names) as rows, answering(address, f"reader-{readers}") as pages:
            sent = flood(prepared, broker.address, listening, int(minutes * per_minute), 60 / per_minute)
        burden = _burden(process.pid)
        for reader in listening:
            reader.ended.set()
    with closing(Ledger(store)) as ledger:
        stored = Counter(case.alert_id for case in ledger.cases(limit=10**9))
    found = {**_figures(sent, stored, listening, pages), **burden, **_rows(sent, rows)}
    return {name: value for name, value in found.items() if not math.isnan(value)}  # no reader, no figure of one


def flood(
    prepared: rehearsal.Rehearsal, broker: BrokerAddress, readers: list[Reader], alerts: int, pause: float
) -> dict[str, float]:
    """Seal and hand over; the result is when each left, by alert id, once all have arrived or the wait is over."""
    sent: dict[str, float] = {}
    probes = [probe_of(number) for number in range(20)]
    with linked(prepared, broker) as link:
        sealer, begun = sealer_of(prepared), time.time()
        for number in range(alerts):
            container = sealer.alert(probes[number % 20], Candidate(0, "REF-1", "benchmark", 0.7, 0.5), time.time())
            sent[seal.take_apart(container, LIMITS.envelope_bytes).header.id] = time.time()
            link.send(container, "alert")
            time.sleep(max(0.0, begun + (number + 1) * pause - time.time()))
        deadline = time.monotonic() + _WAIT_SECONDS
        while any(sent.keys() - reader.arrived.keys() for reader in readers) and time.monotonic() < deadline:
            time.sleep(0.05)
    return sent


@contextmanager
def serving(
    prepared: rehearsal.Rehearsal, broker: BrokerAddress, store: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`bluelamp-control serve` as a process; yields it and the console's address."""
    command = [sys.executable, "-m", "control.cli", "serve", "--keys", str(prepared.control_keys), "--broker",
               str(broker), "--store", str(store), "--listen", "127.0.0.1:0", "--ttl", "86400"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"console: (\S+)", line):
            break
    else:
        raise CourierError(f"the service did not start: {' | '.join(lines)}")
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        yield process, found[1]
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def answering(address: str, name: str) -> Iterator[list[float]]:
    """Load a whole page once a second; the list fills with the seconds each took, infinity where it failed."""
    client, ended, times = signed_in(address, name), threading.Event(), list[float]()

    def ask() -> None:
        while not ended.wait(1.0):
            started = time.perf_counter()
            try:
                client.get("/alerts", timeout=30).raise_for_status()
                times.append(time.perf_counter() - started)
            except httpx.HTTPError:
                times.append(float("inf"))

    thread = threading.Thread(target=ask)
    thread.start()
    yield times
    ended.set()
    thread.join(60)


@contextmanager
def chromium_pages(address: str, names: list[str]) -> Iterator[list[dict[str, float]]]:
    """A page of alerts for each member; at the end the list fills with when each row came, by alert id."""
    rows: list[dict[str, float]] = []
    if not names:
        yield rows
        return
    chromium = shutil.which("chromium")
    if chromium is None:
        raise ConfigError("--browsers needs chromium; install it: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pages = [_opened(browser.new_context().new_page(), address, name) for name in names]
        yield rows
        rows += [page.evaluate("() => window.arrived") for page in pages]
        browser.close()


def _opened(page: Page, address: str, name: str) -> Page:
    page.goto(f"{address}/sign-in")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", _PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"{address}/alerts*")
    page.evaluate(_OBSERVE)
    return page


def signed_in(address: str, name: str) -> httpx.Client:
    """A client with a session, through the form."""
    client = httpx.Client(base_url=address, headers={"origin": address, "sec-fetch-site": "same-origin"})
    token = re.search(r'name="csrf" (?:content|value)="([0-9a-f]+)"', client.get("/sign-in").text)
    fields = {"name": name, "password": _PASSWORD, "csrf": token[1] if token else ""}
    answer = client.post("/sign-in", data=fields, timeout=60)
    if answer.status_code != 303:
        raise CourierError(f"{name} could not sign in: {answer.status_code}")
    return client


def _figures(
    sent: dict[str, float], stored: Counter[str], readers: list[Reader], pages: list[float]
) -> dict[str, float]:
    delays = [r.arrived[i] - at for r in readers for i, at in sent.items() if i in r.arrived]
    seconds = max(sent.values()) - min(sent.values())
    return {
        "alerts": len(sent), "per_minute": round((len(sent) - 1) / seconds * 60, 1), "readers": len(readers),
        "lost": len(sent.keys() - stored.keys()) + sum(len(sent.keys() - r.arrived.keys()) for r in readers),
        "twice": sum(n - 1 for n in stored.values()) + sum(r.repeats.total() for r in readers),
        "event_p50_ms": _percentile(delays, 50), "event_p99_ms": _percentile(delays, 99),
        "event_most_ms": _percentile(delays, 100),
        "page_p50_ms": _percentile(pages, 50), "page_p99_ms": _percentile(pages, 99), "pages": len(pages),
        "queue_p50_ms": _percentile([t for r in readers for t in r.answers], 50),
        "queue_p99_ms": _percentile([t for r in readers for t in r.answers], 99),
        "pair_p50_ms": _percentile([t for r in readers for t in r.looks], 50),
    }  # fmt: skip


def _rows(sent: dict[str, float], pages: list[dict[str, float]]) -> dict[str, float]:
    """A page shows the newest 40 rows: what came and went between two of its loads has no row."""
    delays = [page[i] - at for page in pages for i, at in sent.items() if i in page]
    if not pages:
        return {}
    shown = round(len(delays) / (len(sent) * len(pages)), 3)
    return {
        "browsers": len(pages), "row_p50_ms": _percentile(delays, 50), "row_p99_ms": _percentile(delays, 99),
        "rows_shown_share": shown,
    }  # fmt: skip


def _percentile(seconds: list[float], share: int) -> float:
    return round(float(np.percentile(seconds, share)) * 1e3, 1) if seconds else float("nan")


def _burden(pid: int) -> dict[str, float]:
    """Of the service: resident memory, and seconds of processor time since its start."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return {"resident_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1), "service_cpu_s": round(seconds, 1)}


if __name__ == "__main__":
    sys.exit(main())
