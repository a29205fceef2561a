"""A deployment's reference pictures, cut and sealed for one control room (format: appliance/formats/dossier.py).

One picture a reference: the best of its images by quality, the face in the middle, small. Names and rationales stay.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np

from appliance.errors import EnrolmentError, KeyFileError
from appliance.formats import dossier
from appliance.formats.dossier import Decoy, DecoyPair, Manifest, Pictured
from appliance.limits import LIMITS
from appliance.recognition.extract import picture_of
from appliance.recognition.jpeg import jpeg
from appliance.recognition.packs import Pack
from appliance.recognition.quality import assess
from appliance.records import Face, Image, Quality, Record
from appliance.storage.files import read_bounded, write_private, write_public
from appliance.trust import envelope, keys
from appliance.trust.audit import Anchor
from provisioning.base import Base
from provisioning.enrolment import fields, pictures, references
from provisioning.enrolment.quality_gate import faces_in, gate_detector, score_of
from provisioning.lists import issue
from provisioning.orders import ordering
from provisioning.store import Store

KIND = "disclosed"
LOW_QUALITY = 50.0  # of 100; below it the console warns: a human compares worse with a poor picture too
_FRAME = 1.7  # side of the picture in sizes of the face: hair and chin, and nearly the scale of a probe
_PROBE, _REFERENCE = "-probe", "-reference"


class Disclosed(Record):
    """The base's record of one dossier: everything but who is in it. Times are UTC seconds."""

    format: Literal[1] = 1
    control: str
    deployment: str
    version: int
    created: float
    not_after: float
    sha256: str
    references: int
    without_picture: int
    decoys: int
    anchor: Anchor  # where the base's audit log stood


@dataclass(frozen=True)
class _Part:
    """One entry with its JPEG bytes, empty where there is no picture."""

    entry: Pictured
    picture: bytes


@dataclass(frozen=True)
class _Care:
    """What people should be warned of: a picture older than so many years, or a poor one."""

    image_years: float
    today: datetime.date

    def warnings(self, image_date: str, score: float) -> tuple[str, ...]:
        """Words beside a picture."""
        taken, found = fields.date_of(image_date), list[str]()
        if taken is not None and (self.today - taken).days > self.image_years * 365.25:
            found.append(f"image {fields.years(taken, self.today)} years old")
        if score < LOW_QUALITY:
            found.append(f"low quality: {score:.0f} of 100")
        return tuple(found)


class Portraits:
    """Cuts pictures as the control room shows them: whole heads of references, probes as a unit cuts them."""

    def __init__(self, detector: Pack) -> None:
        self._detector = gate_detector(detector)

    def reference(self, image: Image) -> bytes:
        """A JPEG with the face in the middle; the whole picture where no face is found again."""
        face = self.face(image)
        cut = image if face is None else _around(image, face)
        scale = min(1.0, LIMITS.dossier_picture_side / max(cut.shape[:2]))
        if scale < 1:
            cut = cast(Image, cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        return jpeg(cut, LIMITS.dossier_picture_bytes)

    def probe(self, image: Image, name: str) -> tuple[bytes, Quality]:
        """A JPEG cut as from a frame, and how good a probe it is. Raises EnrolmentError where there is no face."""
        face = self.face_or_refuse(image, name)
        return jpeg(picture_of(image, face)), assess(image, face)

    def face_or_refuse(self, image: Image, name: str) -> Face:
        """The largest face. Raises EnrolmentError."""
        face = self.face(image)
        if face is None:
            raise EnrolmentError(f"{name}: no face found; choose another picture, upright and lit")
        return face

    def face(self, image: Image) -> Face | None:
        """The largest face of an upright picture, or None."""
        return max(faces_in(self._detector, image), key=lambda f: float(f.box[2]), default=None)


def make(
    base: Base, deployment: str, control: str, out: Path, detector: Pack, decoys: Path | None = None,
    now: float | None = None,
) -> Disclosed:  # fmt: skip
    """Seal the pictures of everybody on a deployment's newest lists to a control room; write it to `out`; record it.

    The version counts by itself. Raises EnrolmentError, KeyFileError or DossierError; nothing is written then.
    """
    now = time.time() if now is None else now
    recipient = _recipient(base, control)
    lists = ordering.newest_lists(base, deployment)
    listed = dict(member for issued in lists for member in issue.members(base, issued))
    portraits = Portraits(detector)
    care = _Care(base.policy.image_years, datetime.datetime.fromtimestamp(now, datetime.timezone.utc).date())
    with base.store() as store:
        parts = list(_parts(store, listed, portraits, care))
    if not parts:
        raise EnrolmentError(f"{deployment}: none of its references is in the store any more; nothing to disclose")
    pairs = list(_decoys(decoys, parts, portraits, care)) if decoys is not None else []
    manifest = Manifest(
        control=control, deployment=deployment, version=_next_version(base, deployment, control), created=now,
        not_after=lists[0].not_after, references=tuple(p.entry for p in parts),
        decoys=tuple(one.pair for one in pairs),
    )  # fmt: skip
    jpegs = [p.picture for p in parts if p.picture]
    for one in pairs:
        jpegs += [one.picture, one.probe]
    blob = dossier.make(manifest, jpegs, recipient, base.keys.signer)
    record = _record(base, manifest, blob)
    write_private(out, blob)
    return record


def records(base: Base) -> list[Disclosed]:
    """Every dossier that was made, verified, oldest first. Raises SealError for a record that was altered."""
    paths = sorted((base.folder / "dossiers").glob("*.json"))
    blobs = (read_bounded(path, LIMITS.config_bytes) for path in paths)
    found = [envelope.read(blob, KIND, Disclosed, base.all_signers()) for blob in blobs]
    return sorted(found, key=lambda r: (r.created, r.version))


def _recipient(base: Base, control: str) -> keys.SealingKey:
    roster = base.keys.roster
    for identity in roster.controls:
        if identity.name == control and identity.sealing and identity.signing_key().keyid not in roster.revoked:
            return identity.sealing[-1]
    raise KeyFileError(f"{control}: no such control room on the roster; admit it with: bluelamp-provision keys admit")


def _parts(store: Store, listed: dict[str, str], portraits: Portraits, care: _Care) -> Iterator[_Part]:
    """Who was erased since the list was issued is left out, so that the control room deletes the picture too."""
    for identifier, category in listed.items():
        reference = references.reference(store, identifier)
        if reference is None:
            continue
        best = max(references.images(store, identifier), key=lambda i: i.score, default=None)
        if best is None:
            entry = Pictured(reference_identifier=identifier, category=category, image_date=reference.image_date,
                             quality=0, warnings=("no picture at base",), size=0)  # fmt: skip
            yield _Part(entry, b"")
            continue
        picture = portraits.reference(pictures.decode(best.blob, best.name)[0])
        warnings = care.warnings(reference.image_date, best.score)
        entry = Pictured(reference_identifier=identifier, category=category, image_date=reference.image_date,
                         quality=best.score, warnings=warnings, size=len(picture))  # fmt: skip
        yield _Part(entry, picture)


def _decoys(folder: Path, parts: Sequence[_Part], portraits: Portraits, care: _Care) -> Iterator[Decoy]:
    """Pairs NAME-probe.jpg and NAME-reference.jpg, dressed like the references of this list. Raises EnrolmentError."""
    found = {p.stem: p for p in sorted(folder.glob("*")) if p.suffix.lower() in pictures.SUFFIXES}
    names = sorted(stem.removesuffix(_PROBE) for stem in found if stem.endswith(_PROBE))
    if not names:
        raise EnrolmentError(f"{folder}: no decoy pairs; name them NAME-probe.jpg and NAME-reference.jpg")
    alone = sorted(stem for stem in found if _other(stem) not in found)
    if alone:
        raise EnrolmentError(f"{folder}: {alone[0]} has no partner; name pairs NAME-probe.jpg and NAME-reference.jpg")
    if len(names) > LIMITS.dossier_decoys:
        raise EnrolmentError(f"{folder}: {len(names)} pairs, {LIMITS.dossier_decoys} are allowed")
    taken = {p.entry.reference_identifier for p in parts}
    for name in names:
        reference, probe = (_decoded(found[name + end]) for end in (_REFERENCE, _PROBE))
        face = portraits.face_or_refuse(reference, name + _REFERENCE)
        dress = secrets.choice(parts).entry
        identifier = _invented(dress.reference_identifier, taken)
        taken.add(identifier)
        picture, score = portraits.reference(reference), score_of(assess(reference, face))
        entry = dress.model_copy(
            update={"reference_identifier": identifier, "quality": score, "size": len(picture),
                    "warnings": care.warnings(dress.image_date, score)}
        )  # fmt: skip
        blob, seen = portraits.probe(probe, name + _PROBE)
        pair = DecoyPair(reference=entry, probe=len(blob), quality=seen.value, interocular=seen.interocular)
        yield Decoy(pair, picture, blob)


def _other(stem: str) -> str:
    if stem.endswith(_PROBE):
        return stem.removesuffix(_PROBE) + _REFERENCE
    return stem.removesuffix(_REFERENCE) + _PROBE


def _decoded(path: Path) -> Image:
    return pictures.decode(pictures.read_bytes(path), path.name)[0]


def _invented(like: str, taken: set[str]) -> str:
    """An identifier in the manner of a real one that nobody on the list has."""
    shape = like if any(c.isdigit() for c in like) else f"{like[: LIMITS.reference_identifier - 5]}-0000"
    for _ in range(100):
        made = "".join(secrets.choice("0123456789") if c.isdigit() else c for c in shape)
        if made not in taken:
            return made
    return _invented(shape[: LIMITS.reference_identifier - 4] + "0000", taken)


def _around(image: Image, face: Face) -> Image:
    """A square around the face, moved and cut to stay inside the picture."""
    x, y, width, height = (float(v) for v in face.box)
    side = int(min(_FRAME * max(width, height), *image.shape[:2]))
    x0 = int(np.clip(x + width / 2 - side / 2, 0, image.shape[1] - side))
    y0 = int(np.clip(y + height / 2 - side / 2, 0, image.shape[0] - side))
    return image[y0 : y0 + side, x0 : x0 + side]


def _next_version(base: Base, deployment: str, control: str) -> int:
    made = [r.version for r in records(base) if (r.deployment, r.control) == (deployment, control)]
    return max(made, default=0) + 1


def _record(base: Base, manifest: Manifest, blob: bytes) -> Disclosed:
    sha256, without = hashlib.sha256(blob).hexdigest(), sum(not r.size for r in manifest.references)
    what = (
        f"dossier v{manifest.version} of {manifest.deployment} to {manifest.control}, {len(manifest.references)} "
        f"references, {len(manifest.decoys)} decoy pairs"
    )
    anchor = base.audit.add("disclosure", sha256, what)
    record = Disclosed(
        control=manifest.control, deployment=manifest.deployment, version=manifest.version, created=manifest.created,
        not_after=manifest.not_after, sha256=sha256, references=len(manifest.references), without_picture=without,
        decoys=len(manifest.decoys), anchor=anchor,
    )  # fmt: skip
    folder = base.folder / "dossiers"
    folder.mkdir(exist_ok=True)
    path = folder / f"{manifest.deployment}.{manifest.control}.v{manifest.version:06d}.json"
    write_public(path, envelope.sign(record, KIND, base.keys.signer))
    return record
