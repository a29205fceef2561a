"""Prove that the unit keeps nothing: run a deployment with canary faces, and search everything for them.

1 the search is shown to work: needles of every kind are planted and found     (control.py)
2 courier, tap, packet capture and vision run the kit's clip                   (stage.py, tap.py)
3 while faces pass, vision's memory is read: there the needles must be, else they are the wrong ones
4 when the last track has ended, vision is held still and read again, and so is all that it may have left so far
5 a second run is made to crash in the middle: no core file may appear
6 everything that changed since the start is searched                          (places.py)
7 all of it goes into one record, signed by the unit                           (record.py)

What is held back from the search is said: the kit itself, and the recordings, which are searched by themselves.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.attest import control as attest_control
from appliance.attest import places
from appliance.attest.kit import ENCODINGS, HELD, Kind, OpenKit
from appliance.attest.needles import chance, targets
from appliance.attest.places import Hunt, Tally
from appliance.attest.record import CORES, Attestation, AttestError, Control, Done, Must, Surface
from appliance.attest.stage import Stage, frozen, staged
from appliance.attest.tap import Capture, OpenLine
from appliance.attest.words import NOT_SEARCHED, WORDS
from appliance.config import UnitConfig
from appliance.courier.server import software_version
from appliance.sockets import health as figures
from appliance.sockets import link

STEPS = 7
_SAMPLES = 12  # how often vision's memory is read while faces pass, at most
_PAUSE = 0.7  # seconds between two readings
Say = Callable[[int, str], None]
Witness = Callable[[], Sequence[bytes]]


@dataclass
class _Run:
    """One attestation in the making."""

    config: UnitConfig
    kit: OpenKit
    folder: Path
    hunt: Hunt
    say: Say
    more: tuple[Path, ...]
    started: float = field(default_factory=time.time)
    disk: Tally = field(default_factory=Tally)
    courier: Tally = field(default_factory=Tally)
    live: set[Kind] = field(default_factory=set)
    given_up: tuple[str, ...] = ()
    controls: list[Control] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)

    @property
    def leave(self) -> list[Path]:
        """What the search of the disk leaves out: the kit and the recordings."""
        return [self.kit.folder, self.folder / "recorded"]


def attest(config: UnitConfig, kit: OpenKit, say: Say, *, more: Iterable[Path] = (),
           witness: Witness | None = None) -> Attestation:  # fmt: skip
    """Run the kit through the unit of this configuration and search. `more` are further folders to search.

    `witness` gives, at the end, what the control room opened: the only place where matched canaries may stand in clear.
    Raises AttestError where it cannot be done; what was found is in the result.
    """
    _refuse_while_busy(config)
    folder = config.unit.state.resolve() / "attest"
    shutil.rmtree(folder, ignore_errors=True)
    link.make_folder(folder)
    try:
        (folder / "recorded").mkdir()
        run = _Run(config, kit, folder, Hunt.of(targets(kit.record.canaries)), say, tuple(more))
        done = _carry_out(run)
        if witness is not None:
            tally = Tally()
            for content in witness():
                tally.add("an opened alert", run.hunt.searcher.piece(content))
            _add(run, "control room", tally, "hold matches only")
        else:
            run.surfaces.append(places.not_searched("control room", WORDS["control room"], "only it can open alerts"))
        return _record(run, done)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_while_busy(config: UnitConfig) -> None:
    if (config.unit.state / "armed.json").exists():
        raise AttestError("this unit is armed; attest before arming, or after: bluelamp-unit disarm")
    with suppress(OSError):
        socket = config.unit.sockets / "courier.sock"
        if socket.exists() and link.answers(socket):
            raise AttestError("this unit's courier is running; stop it first: systemctl stop bluelamp.target")


def _carry_out(run: _Run) -> Done:
    line = OpenLine()
    capture, trouble = _capturing(run, line)
    try:
        run.say(1, "the search is shown to work")
        _control(run, line, capture)
        with staged(run.config, run.kit, run.folder) as stage:
            summary = _watched(run, stage)
            _crashed(run, stage)
            _read_courier(run, stage)
            carried = Tally(pieces=max(stage.tap.frames - 1, 0))
            carried.add("local socket", run.hunt.searcher.piece(bytes(stage.tap.carried)))
            _add(run, "local socket", carried)
    finally:
        line.close()
        if capture is not None:
            capture.stop()
    run.say(6, "everything that changed since the start is searched")
    _packets(run, capture, trouble)
    _left_behind(run)
    tracks = run.kit.record.tracks
    matched = sum(c.matched for c in tracks)
    return Done(
        frames=summary["frames"], tracks=summary["tracks"], alerts=summary["alerts"], matched=matched,
        unmatched=len(tracks) - matched, references=len(run.kit.record.canaries) - len(tracks),
    )  # fmt: skip


def _capturing(run: _Run, line: OpenLine) -> tuple[Capture | None, str]:
    try:
        return Capture(run.folder / "recorded" / "packets.pcapng", [run.config.broker.port, line.port]), ""
    except AttestError as error:
        return None, str(error)


def _control(run: _Run, line: OpenLine, capture: Capture | None) -> None:
    chosen = attest_control.sample(run.hunt.targets)
    folder = run.folder / "recorded"
    run.controls.append(attest_control.in_file(run.hunt, chosen, folder / "planted", run.started))
    run.controls += attest_control.in_processes(run.hunt, chosen, folder / "planted", run.started)
    run.controls.append(attest_control.in_stream(run.hunt, chosen))
    if capture is not None:
        blob = attest_control.planted(chosen)
        line.send(blob)
        capture.wait_for(len(blob))
        with capture.path.open("rb") as file:
            run.controls.append(attest_control.in_capture(run.hunt, chosen, run.hunt.searcher.file(file)))
            capture.start = file.tell()


def _watched(run: _Run, stage: Stage) -> dict[str, int]:
    """The run with its readings: while faces pass, and when the last track has ended."""
    run.say(2, "a deployment with the canaries begins")
    stage.start(hold=True)
    stage.until_scanning()
    run.say(3, "faces pass: vision's memory is read")
    _sample_until_held(run, stage)
    run.say(4, "the last track has ended: what is left is searched")
    _read_figures(run)
    after = _vision_memory(run, stage)
    _read_courier(run, stage)
    _disk(run)
    stage.tap.release()
    _add(run, "vision afterwards", after, "be told")
    return stage.summary()


def _read_figures(run: _Run) -> None:
    """What vision tells the status screen, and what it says it has given up."""
    health, tally = figures.ask(run.folder / "run" / "vision.sock"), Tally()
    if health is None:
        run.surfaces.append(places.not_searched("figures", WORDS["figures"], "vision gave no figures"))
        return
    run.given_up = health.sandbox
    tally.add("figures", run.hunt.searcher.piece(health.model_dump_json().encode()))
    _add(run, "figures", tally)


def _sample_until_held(run: _Run, stage: Stage) -> None:
    """Read vision's memory now and then, until every held kind of needle was seen or the last report is held back."""
    samples = 0
    while not stage.tap.held.is_set():
        if not stage.running:
            stage.summary()
            raise AttestError("the run ended before its last report was held back; report this")
        if samples < _SAMPLES and not set(HELD) <= run.live:
            samples += 1
            _read_live(run, stage)
            _read_courier(run, stage)
        stage.tap.held.wait(_PAUSE)


def _read_live(run: _Run, stage: Stage) -> bool:
    """Note which kinds of a canary's needles vision holds at this moment; whether there were any."""
    found = run.hunt.findings(_vision_memory(run, stage))
    seen = {f.kind for f in found if f.role == "track" and f.encoding == "raw"}
    run.live |= seen
    return bool(seen & set(HELD))


def _vision_memory(run: _Run, stage: Stage) -> Tally:
    tally, pid = Tally(), stage.vision()
    with _reading("vision"), frozen(pid):
        places.search_memory(run.hunt, pid, "vision", tally)
    return tally


def _read_courier(run: _Run, stage: Stage) -> None:
    with _reading("courier"):
        places.search_memory(run.hunt, stage.courier.pid, "courier", run.courier)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """What goes wrong while a process's memory is read, in words."""
    try:
        yield
    except ProcessLookupError as error:
        raise AttestError(f"{name} ended while its memory was read; look at the messages and try again") from error
    except OSError as error:
        raise AttestError(f"{name}'s memory cannot be read ({error.strerror}); run this as root") from error


def _crashed(run: _Run, stage: Stage) -> None:
    """Crash vision while it holds faces, and look for core files."""
    run.say(5, "vision is made to crash while faces pass")
    stage.start(hold=False)
    stage.until_scanning()
    while stage.running and not _read_live(run, stage):
        time.sleep(_PAUSE)
    pid = stage.vision()
    cwd, since, tally = Path(f"/proc/{pid}/cwd").resolve(), time.time(), Tally()
    os.kill(pid, signal.SIGSEGV)
    stage.wait()
    cores = places.core_files(cwd, since)
    for path in cores:
        with path.open("rb") as file:
            tally.add("core file", run.hunt.searcher.file(file))
        path.unlink()  # it holds the unit's keys too
    note = f"{len(cores)} core file(s) appeared." if cores else "No core file appeared."
    _add(run, CORES, tally, note=note + (" Cores are piped to a program here." if places.piped_cores() else ""))


def _packets(run: _Run, capture: Capture | None, trouble: str) -> None:
    if capture is None:
        run.surfaces.append(places.not_searched("network", WORDS["network"], trouble))
        return
    tally = Tally()
    with capture.path.open("rb") as file:
        file.seek(capture.start)  # behind the openly sent needles of the control
        tally.add("packets", run.hunt.searcher.file(file))
    _add(run, "network", tally, note="" if tally.size else "No packet passed: the broker was not reached.")


def _left_behind(run: _Run) -> None:
    """Files, the processes' words, the outbox, journal and swap."""
    outbox, said = Tally(), Tally()
    places.search_disk(run.hunt, {"outbox": run.folder / "outbox"}, 0, [], outbox)
    places.search_disk(run.hunt, {"said": run.folder / "said"}, 0, [], said)
    _add(run, "outbox", outbox)
    _add(run, "messages", said)
    _disk(run)
    _add(run, "files", run.disk)
    _add(run, "courier memory", run.courier)
    journal = places.search_journal(run.hunt, run.started)
    if journal is None:
        run.surfaces.append(places.not_searched("journal", WORDS["journal"], "no journal is kept on this machine"))
    else:
        _add(run, "journal", journal)
    swap = Tally()
    areas = places.search_swap(run.hunt, swap)
    _add(run, "swap", swap, note="" if areas else "This machine has no swap.")


def _disk(run: _Run) -> None:
    named = places.roots(run.config.unit.state, run.more)
    places.search_disk(run.hunt, named, run.started, run.leave, run.disk)


def _add(run: _Run, name: str, tally: Tally, must: Must = "hold nothing", note: str = "") -> None:
    run.surfaces.append(run.hunt.surface(name, WORDS[name], tally, must, note))


def _record(run: _Run, done: Done) -> Attestation:
    kit = run.kit.record
    size = sum(s.size for s in run.surfaces)
    return Attestation(
        unit=kit.unit, deployment=kit.deployment, started=run.started, ended=time.time(), software=software_version(),
        models=kit.models, kit=run.kit.digest, clip=kit.clip_sha256, needles=len(run.hunt.targets),
        encodings=ENCODINGS, chance=chance(len(run.hunt.targets), size), done=done, given_up=run.given_up,
        live=tuple(sorted(run.live)), controls=tuple(run.controls), surfaces=tuple(run.surfaces),
        not_searched=NOT_SEARCHED,
    )  # fmt: skip
