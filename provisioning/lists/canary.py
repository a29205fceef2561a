"""Make a canary kit: a clip, a watchlist of its faces sealed to one unit, and the bytes that must not be found later.

The portraits are not enrolled: their templates live in this list only, under the blue list's category, and never reach
the base's store. The list takes one of the unit's deployment keys, as any other does.
"""

from __future__ import annotations

import datetime
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from appliance.attest import kit as attest_kit
from appliance.attest import needles as attest_needles
from appliance.attest.kit import Canary, Kit, Settings
from appliance.config import DetectPart
from appliance.errors import EnrolmentError
from appliance.formats.watchlist import Entry, Manifest, Watchlist
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import Pack
from appliance.records import Floats, Models
from appliance.storage.files import write_public
from appliance.trust import envelope
from provisioning.base import Base
from provisioning.enrolment import pictures, table
from provisioning.enrolment.fields import Reference
from provisioning.enrolment.quality_gate import Gate, Passed
from provisioning.lists import issue
from provisioning.lists.issue import Issued, Thresholds, Window
from provisioning.lists.selection import Selection

LIST = "watchlist.blw"
_THREADS = 2
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What a kit is made of. `portraits` is a CSV or a folder; of some faces of the clip there must be none."""

    clip: Path
    portraits: Path
    detector: Pack
    embedder: Pack
    smallest_face: float = 36.0
    hours: float = 12.0
    threshold: float | None = None
    fpir: float | None = 1e-3
    moments: int = attest_needles.FACES  # faces of each track that needles are cut from


def make(base: Base, unit: str, wanted: Wanted, out: Path, say: Say = lambda line: None) -> Kit:
    """Write a kit for `unit` into the folder `out` and return its record. Raises EnrolmentError, CaptureError and more.

    The clip is run through the unit's stages here, which takes about as long as it takes there.
    """
    if (out / "kit.json").exists():
        raise EnrolmentError(f"{out}: already holds a kit; choose an empty folder")
    if not wanted.clip.is_file():
        raise EnrolmentError(f"{wanted.clip}: no such clip; give a recording with --clip")
    out.mkdir(parents=True, exist_ok=True)
    say("portraits become templates")
    selection = _selection(base, wanted)
    limits = issue.thresholds(
        wanted.embedder,
        wanted.detector,
        len(selection.rows),
        threshold=wanted.threshold,
        fpir=wanted.fpir,
        selection=selection,
    )
    content = _as_opened(unit, selection, limits)
    settings = Settings(detect=DetectPart(smallest_face=wanted.smallest_face))
    say("the clip is run through the unit's stages")
    tracks = _tracks(wanted, content, settings)
    now = time.time()
    window = Window(now - 1, now + wanted.hours * 3600)
    deployment = f"CANARY-{datetime.datetime.fromtimestamp(now, datetime.timezone.utc):%Y%m%dT%H%M%S}"
    issued = issue.issue(
        base, selection, unit=unit, deployment=deployment, window=window, limits=limits, out=out / LIST
    )
    clip = out / re.sub(r"[^A-Za-z0-9._-]", "-", f"clip{wanted.clip.suffix}")
    shutil.copyfile(wanted.clip, clip)
    record = _record(issued, clip, settings, (*tracks, *_references(selection, content)))
    write_public(out / "kit.json", envelope.sign(record, attest_kit.KIND, base.keys.signer))
    return record


def _selection(base: Base, wanted: Wanted) -> Selection:
    gate = Gate(wanted.detector, wanted.embedder, base.policy)
    rows: list[Reference] = []
    templates: list[Floats] = []
    scores: list[float] = []
    listed, _ = table.rows(wanted.portraits)
    for row in listed:
        identifier = row.values.get("reference_identifier", "")
        if row.problem or not identifier:
            raise EnrolmentError(f"{wanted.portraits}, line {row.number}: {row.problem or 'no reference_identifier'}")
        for path in row.images:
            passed = _passed(gate, path)
            rows.append(_reference(identifier, base.policy.blue_list))
            templates.append(passed.template)
            scores.append(passed.score)
    if not rows:
        raise EnrolmentError(f"{wanted.portraits}: no portrait; give a CSV or a folder of portraits")
    return Selection(tuple(rows), tuple(scores), np.stack(templates).astype(np.float32), gate.models, {})


def _passed(gate: Gate, path: Path) -> Passed:
    try:
        return gate.template(pictures.decode(pictures.read_bytes(path), path.name)[0])
    except EnrolmentError as error:
        raise EnrolmentError(f"{path.name}: {str(error).removeprefix(f'{path.name}: ')}") from error


def _reference(identifier: str, category: str) -> Reference:
    today = datetime.date.today()
    return Reference(
        reference_identifier=f"CANARY-{identifier}"[:64], category=category, source="canary kit",
        lawful_basis="test of the unit", rationale="shows that the unit keeps nothing", image_date=today.isoformat(),
        reviewer="canary kit", expiry=(today + datetime.timedelta(days=400)).isoformat(),
    )  # fmt: skip


def _as_opened(unit: str, selection: Selection, limits: Thresholds) -> Watchlist:
    """The list as the unit will hold it: through half precision, and to unit length again."""
    halves = selection.templates.astype("<f2").astype(np.float32)
    manifest = Manifest(
        unit=unit, deployment="canary", version=1, created=0, not_before=0, not_after=1, models=selection.models,
        length=selection.templates.shape[1], threshold=limits.threshold,
        entries=tuple(Entry(reference_identifier=r.reference_identifier, category=r.category) for r in selection.rows),
    )  # fmt: skip
    templates = np.asarray(halves / np.linalg.norm(halves, axis=1, keepdims=True), np.float32)
    return Watchlist(manifest, templates, "0" * 64)


def _tracks(wanted: Wanted, content: Watchlist, settings: Settings) -> tuple[Canary, ...]:
    cv2.setNumThreads(_THREADS)
    detector = Detector(wanted.detector, settings.detect.smallest_face, settings.detect.score, threads=_THREADS)
    embedder = Embedder(wanted.embedder, threads=_THREADS)
    found = attest_needles.tracks(wanted.clip, detector, wanted.embedder, embedder, content, settings, wanted.moments)
    matched = sum(c.matched for c in found)
    if not 0 < matched < len(found):
        raise EnrolmentError(
            f"{matched} of the clip's {len(found)} faces match the portraits; a kit needs faces that match and faces "
            "that do not: choose other portraits, or a clip with larger faces"
        )
    return found


def _references(selection: Selection, content: Watchlist) -> tuple[Canary, ...]:
    names = [r.reference_identifier for r in selection.rows]
    return attest_needles.references(names, selection.templates.astype(np.float16), content.templates)


def _record(issued: Issued, clip: Path, settings: Settings, canaries: tuple[Canary, ...]) -> Kit:
    models: Models = issued.models
    return Kit(
        unit=issued.unit, deployment=issued.deployment, made=issued.created, not_after=issued.not_after, clip=clip.name,
        clip_sha256=attest_kit.digest_of(clip), watchlist_sha256=issued.sha256, models=models, settings=settings,
        canaries=canaries,
    )  # fmt: skip
