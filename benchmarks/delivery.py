"""From a sealed alert in vision's hands to the control room's handler: courier, outbox, broker, verification.

    python -m benchmarks.delivery [--alerts 200] [--rate 20] [--json]

Courier and mosquitto are processes of their own with mutual TLS, the outbox is on this machine's disk with
synchronous=FULL. First the alerts come at a steady rate (latency), then all at once (throughput).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from appliance.command_line import complain
from appliance.courier.server import spawn
from appliance.courier.settings import CourierSettings
from appliance.errors import BluelampError, CourierError
from appliance.records import Candidate, Models, Probe, Quality, Sighting
from appliance.sockets.link import CourierLink
from appliance.transport.mqtt import BrokerAddress
from appliance.transport.tls import TlsFiles
from appliance.trust import keys
from appliance.vision.sealer import Sealer, Sender
from control.broker.broker import BrokerFiles, running_broker
from control.receive.inbox import Opened
from control.receive.tail import Tail, Until
from demo import rehearsal

_WAIT_SECONDS = 120.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delivery", description=__doc__)
    parser.add_argument("--alerts", type=int, default=200, help="how many, in each of the two parts")
    parser.add_argument("--rate", type=float, default=20.0, help="alerts a second in the first part")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-bench-") as temporary:
            result = _measure(Path(temporary), options.alerts, options.rate)
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    print(json.dumps(result) if options.json else _text(result))
    return 0


def _measure(folder: Path, alerts: int, rate: float) -> dict[str, float]:
    prepared = rehearsal.prepare(folder)
    files = BrokerFiles.of(folder / "broker")
    with (
        running_broker(files, [rehearsal.CONTROL], host=rehearsal.HOST) as broker,
        _listener(prepared.control_keys, broker.address) as arrived,
        linked(prepared, broker.address) as link,
    ):
        sealer = sealer_of(prepared)
        steady = _send(link, sealer, arrived, alerts, 1 / rate)
        burst = _send(link, sealer, arrived, alerts, 0.0)
    delays = np.array([arrived[n] - sent for n, sent in steady.items()]) * 1e3
    last = max(arrived[number] for number in burst)
    return {
        "alerts": alerts,
        "p50_ms": round(float(np.percentile(delays, 50)), 1),
        "p99_ms": round(float(np.percentile(delays, 99)), 1),
        "most_ms": round(float(delays.max()), 1),
        "burst_per_second": round(alerts / (last - min(burst.values())), 1),
    }


def _send(link: CourierLink, sealer: Sealer, arrived: dict[int, float], alerts: int, pause: float) -> dict[int, float]:
    """Seal and send; the result is when each left, by sequence number, once all have arrived."""
    sent: dict[int, float] = {}
    for number in range(alerts):
        container = sealer.alert(probe_of(number), Candidate(0, "REF-1", "benchmark", 0.7, 0.5), time.time())
        sent[sealer.chain.sequence] = time.time()
        link.send(container, "alert")
        time.sleep(pause)
    deadline = time.monotonic() + _WAIT_SECONDS
    while not sent.keys() <= arrived.keys():
        if time.monotonic() > deadline:
            raise CourierError(f"{len(sent.keys() - arrived.keys())} of {alerts} alerts did not arrive")
        time.sleep(0.01)
    return sent


def probe_of(number: int) -> Probe:
    """A probe whose picture is noise: a JPEG as large as a face's."""
    picture = np.random.default_rng(number).normal(128, 20, (112, 112, 3)).clip(0, 255).astype(np.uint8)
    now, quality = time.time(), Quality(40.0, 0.5, 0.0, 0.5, 0.5)
    best = Sighting(
        track=number, frame=number, time=now, clock=time.monotonic(), chip=picture, picture=picture, quality=quality
    )
    vector = np.zeros(1, np.float32)
    return Probe(
        camera="bench", track=number, template=vector, agreeing=vector[None], best=best, time=now, frame=number, seen=5,
        duration=0.5,
    )  # fmt: skip


def sealer_of(prepared: rehearsal.Rehearsal) -> Sealer:
    """A sealer of the rehearsal's unit."""
    folder = keys.load(prepared.unit_keys)
    recipient, _ = folder.control()
    sender = Sender(rehearsal.UNIT, "BENCH-2", folder.signer, recipient.public(), recipient.id)
    return Sealer(sender, Models(detector="0" * 64, embedder="0" * 64), "0" * 64)


@contextmanager
def _listener(folder: Path, address: BrokerAddress) -> Iterator[dict[int, float]]:
    """A control room; yields when each alert was verified and opened, by sequence number."""
    arrived: dict[int, float] = {}
    tail = Tail(folder, address, Until())

    def take(opened: Opened) -> None:
        if opened.alert is not None:
            arrived[opened.alert.sequence] = time.time()

    thread = threading.Thread(target=tail.run, args=(take, lambda line: None), daemon=True)
    thread.start()
    while not tail.subscriber.connected:
        time.sleep(0.02)
    yield arrived
    tail.subscriber.stop()
    thread.join(10)


@contextmanager
def linked(prepared: rehearsal.Rehearsal, address: BrokerAddress) -> Iterator[CourierLink]:
    """A courier process and vision's end of its socket."""
    own = prepared.unit_keys
    files = TlsFiles(ca=own / "ca.crt", certificate=own / "tls.crt", key=own / "tls.key")
    settings = CourierSettings(
        unit=rehearsal.UNIT, broker=address, tls=files, socket=prepared.folder / "run" / "s",
        outbox=prepared.folder / "state" / "outbox.sqlite",
    )  # fmt: skip
    process = spawn(settings)
    link = CourierLink(settings.socket, "BENCH-2")
    link.wait_greeting(30)
    try:
        yield link
    finally:
        link.close(5)
        process.terminate()
        process.wait(30)


def _text(result: dict[str, float]) -> str:
    return (
        f"{result['alerts']} alerts, sealed to opened in the control room: p50 {result['p50_ms']} ms, "
        f"p99 {result['p99_ms']} ms, most {result['most_ms']} ms; all at once: {result['burst_per_second']} a second"
    )


if __name__ == "__main__":
    sys.exit(main())
