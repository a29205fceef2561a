"""Rows of a list to references in the encrypted store. One bad row never stops the rest, and a rerun resumes.

Each (row, image) has an outcome, kept under a digest of everything it depends on: the row's words, the image's
bytes, the packs, the policy. A rerun finds the outcomes of finished rows and does only the others, so a cut-off
run, a full disk, or a corrected list loses nothing and repeats nothing.
"""

from __future__ import annotations

import base64
import datetime
import fcntl
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from appliance.errors import EnrolmentError
from appliance.recognition.packs import Pack
from appliance.records import Image, Models, Record
from appliance.trust.audit import Happening
from provisioning.base import Base
from provisioning.enrolment import fields, pictures, references
from provisioning.enrolment.fields import Reference
from provisioning.enrolment.quality_gate import Gate, Passed
from provisioning.enrolment.references import StoredImage, Template
from provisioning.enrolment.table import Row, rows
from provisioning.store import Store, digest

_COMMIT_EVERY = 50  # images; what a power cut may repeat
_AHEAD = 4  # images waiting for each thread


class Outcome(Record):
    """What became of one image of one row; `image` is empty where the row itself failed."""

    line: int
    reference_identifier: str
    image: str = ""
    accepted: bool
    score: float | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    thumbnail: str = ""  # base64 JPEG; never leaves base
    resumed: bool = False


@dataclass(frozen=True)
class Summary:
    """A whole run. `seconds` is its wall-clock time."""

    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...]
    models: Models
    seconds: float
    rows: int
    references: int = field(default=0)  # in the store, after the run

    @property
    def accepted(self) -> int:
        """Images accepted now or in an earlier run of the same list."""
        return sum(o.accepted for o in self.outcomes)

    @property
    def refused(self) -> list[Outcome]:
        """Rows and images that were not enrolled."""
        return [o for o in self.outcomes if not o.accepted]

    @property
    def resumed(self) -> int:
        """Outcomes that an earlier run had already reached."""
        return sum(o.resumed for o in self.outcomes)


@dataclass(frozen=True)
class _Task:
    """One image of one sound row."""

    row: Row
    reference: Reference
    path: Path
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Result:
    """What a worker made of a task: a decision, and what to store where it passed."""

    task: _Task
    key: str
    blob: bytes
    passed: Passed | None
    outcome: Outcome | None  # None where an earlier run reached one


def enrol_images(
    base: Base,
    source: Path,
    detector: Pack,
    embedder: Pack,
    *,
    defaults: Mapping[str, str] | None = None,
    update: bool = False,
    largest: bool = False,
    threads: int | None = None,
    today: datetime.date | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Enrol a CSV or folder of images. `defaults` fill fields a row leaves empty; `progress` gets (done, of).

    `update` lets a list change the fields of references that are already there; `largest` takes the largest face where
    an image has several, which is otherwise refused. Raises EnrolmentError only for what
    stops the whole (the list cannot be read, the disk is full); all else is in the summary, row by row.
    """
    started = time.monotonic()
    listed, warnings = rows(source, defaults)
    with _alone(base), base.store() as store:
        run = _Run(base, store, (detector, embedder), update, largest, today or datetime.date.today())
        outcomes = run.enrol(listed, threads or os.cpu_count() or 1, progress or (lambda done, of: None))
        count = store.count("reference")
    return Summary(tuple(outcomes), tuple(warnings), run.models, time.monotonic() - started, len(listed), count)


@contextmanager
def _alone(base: Base) -> Iterator[None]:
    """Hold the base's enrolment lock, which the system lets go of when the process ends, however it ends."""
    with (base.folder / "enrolment.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnrolmentError(f"{base.folder}: another enrolment is running; wait until it ends") from error
        yield


class _Run:
    """One run over one list; all writing happens in the calling thread, in the list's order."""

    def __init__(
        self, base: Base, store: Store, packs: tuple[Pack, Pack], update: bool, largest: bool, today: datetime.date
    ) -> None:
        self._base, self._store, self._packs = base, store, packs
        self._update, self._largest, self._today = update, largest, today
        self.models = Models(detector=packs[0].digest, embedder=packs[1].digest)
        self._seen: dict[str, tuple[int, Reference]] = {}
        self._happenings: list[Happening] = []
        self._known = store.rows("outcome")
        self._settled: dict[str, int] = {}  # line that first had this outcome
        self._local = threading.local()

    def enrol(self, listed: Sequence[Row], threads: int, progress: Callable[[int, int], None]) -> list[Outcome]:
        references.note_models(self._store, self.models)
        outcomes: list[Outcome] = []
        total = sum(max(1, len(r.images)) for r in listed)
        waiting: deque[Future[_Result]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for item in self._tasks(listed):
                if isinstance(item, Outcome):
                    outcomes.append(item)
                else:
                    waiting.append(pool.submit(self._work, item))
                if len(waiting) >= threads * _AHEAD:
                    outcomes.append(self._settle(waiting.popleft().result()))
                self._now_and_then(len(outcomes), total, progress)
            while waiting:
                outcomes.append(self._settle(waiting.popleft().result()))
                self._now_and_then(len(outcomes), total, progress)
        self._save()
        return sorted(outcomes, key=lambda o: o.line)

    def _tasks(self, listed: Sequence[Row]) -> Iterator[_Task | Outcome]:
        for row in listed:
            reference, reasons, warnings = fields.judge(row.values, self._base.policy, self._today)
            reasons += [row.problem] if row.problem else []
            if reference is not None and not reasons:
                reasons += self._conflict(row.number, reference)
            if reference is None or reasons:
                yield _row_refused(row, reasons, warnings)
                continue
            for path in row.images:
                yield _Task(row, reference, path, tuple(warnings))

    def _conflict(self, line: int, reference: Reference) -> list[str]:
        """Several rows may give one reference several images, but then they must say the same about it."""
        identifier = reference.reference_identifier
        first_line, first = self._seen.setdefault(identifier, (line, reference))
        if first != reference:
            other = _difference(first, reference)
            return [f"duplicate identifier: line {first_line} has {identifier} with another {other}"]
        stored = references.reference(self._store, identifier)
        if stored is not None and stored != reference and not self._update:
            return [f"already enrolled with another {_difference(stored, reference)}; to change it, run with --update"]
        return []

    def _work(self, task: _Task) -> _Result:
        """In a worker thread: read, and decode, detect and embed unless the outcome is known."""
        try:
            blob = pictures.read_bytes(task.path)
        except EnrolmentError as error:
            return _Result(task, "", b"", None, _refused(task, error, ""))
        key = self._key(task, blob)
        if self._store.row("outcome", key) in self._known:
            return _Result(task, key, blob, None, None)
        image = None
        try:
            image, warnings = pictures.decode(blob, task.path.name)
            passed = self._gate().template(image)
        except EnrolmentError as error:
            return _Result(task, key, blob, None, _refused(task, error, _thumbnail(image)))
        except cv2.error as error:
            why = EnrolmentError(f"cannot be processed ({str(error).splitlines()[0][:100]}); export it again")
            return _Result(task, key, blob, None, _refused(task, why, _thumbnail(image)))
        warned = (*task.warnings, *warnings, *passed.warnings)
        outcome = Outcome(
            line=task.row.number, reference_identifier=task.reference.reference_identifier, image=task.path.name,
            accepted=True, score=passed.score, warnings=warned, thumbnail=_thumbnail(image) if warned else "",
        )  # fmt: skip
        return _Result(task, key, blob, passed, outcome)

    def _key(self, task: _Task, blob: bytes) -> str:
        about = (
            task.reference.model_dump_json(),
            self.models.model_dump_json(),
            self._base.policy_digest,
            str(self._largest),
        )
        return digest(b"outcome", blob, *(a.encode() for a in about))

    def _gate(self) -> Gate:
        if not hasattr(self._local, "gate"):
            self._local.gate = Gate(*self._packs, self._base.policy, self._largest)
        gate: Gate = self._local.gate
        return gate

    def _settle(self, result: _Result) -> Outcome:
        """Write one result. Order matters: the outcome last, so that a resumed run never skips unwritten work."""
        task, store = result.task, self._store
        if not result.key:
            return _refused(task, EnrolmentError("cannot be read"), "") if result.outcome is None else result.outcome
        first = self._settled.setdefault(result.key, task.row.number)
        if first != task.row.number:
            return _refused(task, EnrolmentError(f"the same image of the same reference as line {first}"), "")
        known = store.get("outcome", result.key)
        if known is not None or result.outcome is None:
            before = Outcome.model_validate_json(known or b"")
            return before.model_copy(update={"line": task.row.number, "image": task.path.name, "resumed": True})
        if result.passed is not None:
            other = references.holder(store, hashlib.sha256(result.blob).hexdigest())
            if other not in (None, task.reference.reference_identifier):
                return _refused(
                    task, EnrolmentError(f"the same picture as {other}'s; leave it with one of the two"), ""
                )
            self._keep(task, result, result.passed)
        owner = task.reference.reference_identifier
        store.put("outcome", result.key, result.outcome.model_dump_json().encode(), owner=owner)
        return result.outcome

    def _keep(self, task: _Task, result: _Result, passed: Passed) -> None:
        identifier, store = task.reference.reference_identifier, self._store
        stored, image_digest = references.reference(store, identifier), hashlib.sha256(result.blob).hexdigest()
        if stored != task.reference:
            references.put_reference(store, task.reference)
            self._happenings.append(Happening("collection" if stored is None else "alteration", identifier))
        image = StoredImage(identifier, image_digest, task.path.name, passed.score, time.time(), result.blob)
        references.put_image(store, image)
        template = Template(identifier, image_digest, passed.score, passed.template)
        references.put_template(store, template, self.models)
        self._happenings.append(Happening("collection", identifier, f"image {image_digest}"))

    def _now_and_then(self, done: int, total: int, progress: Callable[[int, int], None]) -> None:
        if len(self._happenings) >= _COMMIT_EVERY:
            self._save()
        progress(done, total)

    def _save(self) -> None:
        """Log, then commit: an act in the log that was rolled back is harmless, one missing from it is not."""
        if self._happenings:
            try:
                self._base.audit.extend(self._happenings)
            except OSError as error:
                raise EnrolmentError(
                    f"{self._base.audit.path}: cannot be written ({error.strerror}); make room and run the same "
                    "command again: finished rows are kept"
                ) from error
            self._happenings = []
        self._store.commit()


def _thumbnail(image: Image | None) -> str:
    """What the report shows; only refused images and those with warnings are in it."""
    return "" if image is None else base64.b64encode(pictures.thumbnail(image)).decode()


def _row_refused(row: Row, reasons: Sequence[str], warnings: Sequence[str]) -> Outcome:
    identifier = row.values.get("reference_identifier", "")[:64]
    names = "; ".join(p.name for p in row.images)[:200]
    return Outcome(
        line=row.number, reference_identifier=identifier, image=names, accepted=False, reasons=tuple(reasons),
        warnings=tuple(warnings),
    )  # fmt: skip


def _refused(task: _Task, error: EnrolmentError, thumbnail: str) -> Outcome:
    reason = str(error).removeprefix(f"{task.path.name}: ")
    return Outcome(line=task.row.number, reference_identifier=task.reference.reference_identifier, image=task.path.name,
                   accepted=False, reasons=(reason,), warnings=task.warnings, thumbnail=thumbnail)  # fmt: skip


def _difference(a: Reference, b: Reference) -> str:
    before, after = a.model_dump(), b.model_dump()
    return ", ".join(k for k in before if before[k] != after[k])
