"""The positive control: needles of every kind and encoding are planted where they are looked for, and must be found.

A search that finds nothing shows nothing until it is known to find what is there. Five sorts of places: a file in a
temporary folder, memory of another process, a recorded stream, captured packets, and the core file of a process that
was made to crash.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance.attest import places
from appliance.attest.needles import Target
from appliance.attest.places import Hunt, Tally
from appliance.attest.record import Control
from appliance.attest.search import Found

_HOLDER = (
    "import os, signal, sys\n"
    "held = sys.stdin.buffer.read(int(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "sys.stdin.buffer.read(1)\n"
    "signal.signal(signal.SIGSEGV, signal.SIG_DFL)\n"
    "os.kill(os.getpid(), signal.SIGSEGV)\n"
)
_PAD = 333  # bytes of noise at most between two planted needles, so that they lie at all alignments


def sample(targets: Sequence[Target]) -> list[Target]:
    """One needle of each kind in each encoding."""
    chosen: dict[tuple[str, str], Target] = {}
    for target in targets:
        chosen.setdefault((target.kind, target.encoding), target)
    return list(chosen.values())


def planted(chosen: Sequence[Target]) -> bytes:
    """The needles in noise, at odd places."""
    return b"".join(secrets.token_bytes(1 + secrets.randbelow(_PAD)) + t.blob for t in chosen) + secrets.token_bytes(64)


def judge(hunt: Hunt, chosen: Sequence[Target], tally: Tally, place: str, note: str = "") -> Control:
    """How many of the planted needles a tally holds."""
    blobs = {hunt.targets[number].blob for _, counts in tally.found for number in counts}
    return Control(place=place, planted=len(chosen), found=sum(t.blob in blobs for t in chosen), note=note)


def in_file(hunt: Hunt, chosen: Sequence[Target], folder: Path, since: float) -> Control:
    """Plant in a file under `folder`, search the folder as a disk is searched, and remove the file."""
    folder.mkdir(mode=0o700)
    path, tally = folder / "planted", Tally()
    path.write_bytes(planted(chosen))
    try:
        places.search_disk(hunt, {"planted": folder}, since, [], tally)
    finally:
        path.unlink()
        folder.rmdir()
    return judge(hunt, chosen, tally, "a file in a temporary folder")


def in_stream(hunt: Hunt, chosen: Sequence[Target]) -> Control:
    """Plant in a recorded stream that arrives in pieces of odd sizes."""
    blob, tally = planted(chosen), Tally()
    tally.add("planted", hunt.searcher.stream(blob[at : at + 997] for at in range(0, len(blob), 997)))
    return judge(hunt, chosen, tally, "a recorded stream")


def in_capture(hunt: Hunt, chosen: Sequence[Target], found: Found) -> Control:
    """What a capture of openly sent needles held."""
    tally = Tally()
    tally.add("planted", found)
    return judge(hunt, chosen, tally, "captured packets")


def in_processes(hunt: Hunt, chosen: Sequence[Target], folder: Path, since: float) -> list[Control]:
    """Plant in the memory of another process, search it; then crash the process and search its core file."""
    blob = planted(chosen)
    folder.mkdir(mode=0o700)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(len(blob))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd=folder,
    ) as holder:  # fmt: skip
        assert holder.stdin is not None and holder.stdout is not None
        allow_cores(holder.pid)
        holder.stdin.write(blob)
        holder.stdin.flush()
        holder.stdout.readline()
        memory = Tally()
        places.search_memory(hunt, holder.pid, "planted", memory)
        holder.stdin.close()
        holder.wait()
    controls = [judge(hunt, chosen, memory, "memory of another process")]
    core = _core(hunt, chosen, folder, since)
    folder.rmdir()
    return [*controls, core]


def allow_cores(pid: int) -> None:
    """Lift a process's limit on core files as far as this user may: only then does their absence tell something."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
    wanted = resource.RLIM_INFINITY if os.geteuid() == 0 else hard
    resource.prlimit(pid, resource.RLIMIT_CORE, (wanted, wanted))


def _core(hunt: Hunt, chosen: Sequence[Target], folder: Path, since: float) -> Control:
    place, tally = "core file of a crashed process", Tally()
    for path in places.core_files(folder, since):
        if path.parent == folder:
            places.search_disk(hunt, {"planted": folder}, since, [], tally)
            path.unlink()
    if tally.pieces:
        return judge(hunt, chosen, tally, place)
    why = "the kernel hands core files to a program" if places.piped_cores() else "this machine writes no core files"
    return Control(place=place, planted=0, found=0, note=f"not done: {why} ({signal.SIGSEGV.name} was sent)")
