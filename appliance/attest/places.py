"""The places that are searched: files that changed, memory of processes, the journal, swap, core files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.attest.needles import Target
from appliance.attest.record import Finding, Must, Surface
from appliance.attest.search import CHUNK, Found, Searcher

DISK_BYTES = 8 << 30  # of changed files; what is more is counted and told
_MEMORY_BYTES = 8 << 30
_SWAP_BYTES = 8 << 30
SLACK = 2.0  # seconds: coarse time stamps of some file systems
_SYSTEM_CORES = ("/var/lib/systemd/coredump", "/var/crash", "/cores")


@dataclass
class Tally:
    """What one place gave so far: pieces searched, bytes, findings by piece, and what was left out."""

    size: int = 0
    pieces: int = 0
    found: list[tuple[str, Counter[int]]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, piece: str, found: Found) -> None:
        """One more piece was searched."""
        self.size += found.size
        self.pieces += 1
        if found.counts:
            self.found.append((piece, found.counts))


@dataclass(frozen=True)
class Hunt:
    """The needles, ready to be searched for."""

    targets: Sequence[Target]
    searcher: Searcher

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Hunt:
        """Build the table of these needles."""
        return cls(targets, Searcher([t.blob for t in targets]))

    def surface(self, name: str, words: str, tally: Tally, must: Must = "hold nothing", note: str = "") -> Surface:
        """A tally as part of an attestation."""
        if tally.left:
            shown = "; ".join(tally.left[:3]) + (f"; and {len(tally.left) - 3} more" if len(tally.left) > 3 else "")
            note = f"{note} Left out: {shown}".strip()
        return Surface(name=name, words=words, must=must, searched=True, size=tally.size, pieces=tally.pieces,
                       findings=self.findings(tally), note=note[:1000])  # fmt: skip

    def findings(self, tally: Tally) -> tuple[Finding, ...]:
        """What was found, needles of one sort together."""
        groups: dict[tuple[object, ...], list[tuple[str, int, int]]] = defaultdict(list)
        for piece, counts in tally.found:
            for number, count in counts.items():
                target = self.targets[number]
                key = (target.kind, target.encoding, target.canary.role, target.canary.matched)
                groups[key].append((piece, number, count))
        return tuple(self._finding(key, rows) for key, rows in sorted(groups.items()))

    def _finding(self, key: tuple[object, ...], rows: list[tuple[str, int, int]]) -> Finding:
        fields = dict(zip(("kind", "encoding", "role", "matched"), key, strict=True))
        names = {self.targets[number].canary.name for _, number, _ in rows}
        where = tuple(dict.fromkeys(piece[-120:] for piece, _, _ in rows))[:3]
        counts = {"canaries": len(names), "occurrences": sum(count for _, _, count in rows)}
        return Finding.model_validate({**fields, **counts, "where": where})


def not_searched(name: str, words: str, why: str, must: Must = "hold nothing") -> Surface:
    """A place that could not be searched here."""
    return Surface(name=name, words=words, must=must, searched=False, note=why[:1000])


def roots(state: Path, more: Iterable[Path] = ()) -> dict[str, Path]:
    """The folders whose changed files are searched, by what a reader calls them. Nested ones stand once."""
    named = {
        "state folder": state, "temporary folder": Path(tempfile.gettempdir()), "/tmp": Path("/tmp"),
        "/var/tmp": Path("/var/tmp"), "/dev/shm": Path("/dev/shm"), "/run": Path("/run"), "logs": Path("/var/log"),
        "home folder": Path.home(), "working folder": Path.cwd(), **{f"also {p.name}": p for p in more},
    }  # fmt: skip
    there = {name: path.resolve() for name, path in named.items() if path.is_dir()}
    return {n: p for n, p in there.items() if not any(_covers(o, p, m < n) for m, o in there.items() if m != n)}


def _covers(other: Path, path: Path, first: bool) -> bool:
    """Whether a path need not be searched by itself, because `other` is."""
    return other in path.parents or (other == path and first)


def search_disk(hunt: Hunt, named: dict[str, Path], since: float, leave: Sequence[Path], tally: Tally) -> None:
    """Search every file under the roots whose content or name changed `since` (UTC seconds), but not under `leave`.

    What a run wrote has a newer change time than its start, whatever its name; only a changed clock would hide it.
    """
    for name, root in named.items():
        for path in _changed(root, since - SLACK, {p.resolve() for p in leave}, tally):
            _search_file(hunt, path, f"{name}: {path.relative_to(root)}", tally)


def search_memory(hunt: Hunt, pid: int, piece: str, tally: Tally) -> None:
    """Search a process's own memory, and files it holds open that have no name any more. Raises OSError."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end, name in _regions(pid):
            tally.add(f"{piece}: {name}", hunt.searcher.stream(_read_region(memory.fileno(), start, end)))
            if tally.size > _MEMORY_BYTES:
                tally.left.append(f"{piece}: memory beyond {_MEMORY_BYTES >> 30} GiB")
                return
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink()) if entry.is_symlink() else ""
        if target.endswith(" (deleted)") and entry.exists():
            _search_file(hunt, entry, f"{piece}: open file without a name", tally)


def search_journal(hunt: Hunt, since: float) -> Tally | None:
    """Search what the system's journal took in since; None where there is no journal to read."""
    command = shutil.which("journalctl")
    if command is None:
        return None
    arguments = [command, f"--since=@{int(since)}", "--output=export", "--no-pager", "--quiet"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        tally = Tally()
        tally.add("journal", hunt.searcher.file(process.stdout))
    return tally if process.returncode == 0 and tally.size else None


def search_swap(hunt: Hunt, tally: Tally) -> list[str]:
    """Search swap areas that can be read; the result names all there are. Not there: the result is empty."""
    areas = [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    for area in areas:
        try:
            with Path(area).open("rb", buffering=0) as file:
                tally.add("swap", hunt.searcher.stream(_bounded(iter(lambda: file.read(CHUNK), b""), _SWAP_BYTES)))
        except OSError as error:
            tally.left.append(f"swap area: {error.strerror}")
    return areas


def core_files(cwd: Path, since: float) -> list[Path]:
    """Core files younger than `since`, wherever this kernel's core pattern and its usual handlers put them."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    folders = [cwd, *(Path(p) for p in _SYSTEM_CORES)]
    folders += [Path(pattern).parent] if pattern.startswith("/") else []
    stem = Path(pattern).name.split("%")[0] or "core"
    found = []
    for folder in dict.fromkeys(f for f in folders if f.is_dir()):
        names = [p for p in folder.iterdir() if p.is_file() and ("core" in p.name or p.name.startswith(stem))]
        found += [p for p in names if p.stat().st_ctime >= since - SLACK]
    return found


def piped_cores() -> bool:
    """Whether the kernel hands core files to a program instead of writing them."""
    return Path("/proc/sys/kernel/core_pattern").read_text().startswith("|")


def _changed(root: Path, since: float, leave: set[Path], tally: Tally) -> Iterator[Path]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                tally.left.append(f"a folder that cannot be read: {error.strerror}")
            continue
        for entry in entries:
            path = Path(entry.path)
            if path in leave:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file(follow_symlinks=False) and _is_newer(entry, since):
                yield path


def _is_newer(entry: os.DirEntry[str], since: float) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False  # gone between listing and looking: there is nothing left to search
    return max(status.st_ctime, status.st_mtime) >= since and status.st_size > 0


def _search_file(hunt: Hunt, path: Path, piece: str, tally: Tally) -> None:
    if tally.size > DISK_BYTES:
        tally.left.append(piece)
        return
    try:
        with path.open("rb", buffering=0) as file:
            # Bounded: a file that somebody fills while it is read has no end.
            whole = _bounded(iter(lambda: file.read(CHUNK), b""), DISK_BYTES)
            tally.add(piece, hunt.searcher.stream(whole))
    except FileNotFoundError:
        return  # removed since it was listed
    except OSError as error:
        tally.left.append(f"{piece}: {error.strerror}")


def _regions(pid: int) -> Iterator[tuple[int, int, str]]:
    """Readable memory that can hold anything of the process's own: not read-only parts of files."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, mode, _, _, inode, *name = line.split(maxsplit=5)
        if mode[0] != "r" or (name and name[0].startswith("[v")) or (inode != "0" and "w" not in mode):
            continue
        start, end = (int(part, 16) for part in span.split("-"))
        label = name[0] if name and name[0].startswith("[") else "file mapping" if inode != "0" else "anonymous memory"
        yield start, end, label


def _read_region(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        try:
            block = os.pread(descriptor, min(CHUNK, end - start), start)
        except OSError:
            return  # not backed by anything that can be read: a device, a guard page
        if not block:
            return
        yield block
        start += len(block)


def _bounded(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        most -= len(chunk)
        if most <= 0:
            return
