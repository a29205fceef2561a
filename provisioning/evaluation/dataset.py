"""Stills with identities and labels, from any folder, a CSV file, or the shared data.

Labels come from the data set's own files. Nothing here, or anywhere in this project, infers one from a face.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.errors import ConfigError
from appliance.limits import LIMITS
from models.training import split

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
SEXES = {"0": "male", "1": "female"}
ETHNICITIES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "other"}
BANDS = ((0, 17), (18, 29), (30, 44), (45, 59), (60, 200))


@dataclass(frozen=True)
class Still:
    """One photograph. `identity` is the data set's; a distractor's stands for nobody known by name.

    `border` is the share of the image's side replicated around it before a face is sought, for crops that the face
    fills. `distractor` marks a still that is only ever a reference: its identity is not known well enough to say that
    a probe of the same set is somebody else.
    """

    image: Path
    identity: str
    sex: str | None = None
    age: int | None = None
    ethnicity: str | None = None
    border: float = 0.0
    distractor: bool = False

    @property
    def band(self) -> str | None:
        """Age band, such as `18-29`; None without an age."""
        for low, high in BANDS:
            if self.age is not None and low <= self.age <= high:
                return f"{low}-{high}" if high < 200 else f"{low}+"
        return None


@dataclass(frozen=True)
class Dataset:
    """Stills in a fixed order. `note` says what they are and what they cannot show."""

    name: str
    note: str
    stills: tuple[Still, ...]

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image file's bytes, in order."""
        return tuple(hashlib.sha256(_bytes(s.image)).hexdigest() for s in self.stills)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over identities and image digests: what the report says was measured on."""
        lines = (f"{s.identity}\0{d}\n" for s, d in zip(self.stills, self.digests, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def identities(self) -> npt.NDArray[np.int64]:
        """(n,) one number for each identity."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(s.identity, len(numbers)) for s in self.stills], np.int64)

    @cached_property
    def distractors(self) -> npt.NDArray[np.bool_]:
        """(n,) True where the still is only ever a reference."""
        return np.array([s.distractor for s in self.stills], bool)

    def labels(self, of: Callable[[Still], str | None]) -> npt.NDArray[np.str_]:
        """(n,) labels, empty where the data set gives none."""
        return np.array([of(s) or "" for s in self.stills], np.str_)

    def where(self, keep: Iterable[bool], note: str = "") -> Dataset:
        """The stills for which `keep` is true, in order."""
        kept = tuple(s for s, k in zip(self.stills, keep, strict=True) if k)
        return Dataset(self.name, " ".join(filter(None, (self.note, note))), kept)


def shared() -> Path | None:
    """The shared data and models: `$BLUELAMP_SHARED`, or `../shared` beside the repository; None without either."""
    folder = Path(os.environ.get("BLUELAMP_SHARED") or ROOT.parent / "shared")
    return folder if (folder / "data").is_dir() else None


def load(source: Path) -> Dataset:
    """Read a folder of identity folders, or a CSV file (image, identity, sex, age, ethnicity; the last three optional).

    An enrolment list does too: its reference_identifier is the identity, and `;` stands between several images.

    Raises ConfigError with what to do when there is nothing to read.
    """
    if source.is_dir():
        return _folder(source)
    if source.is_file():
        return _table(source)
    raise ConfigError(f"{source}: no such folder or CSV file; name one with --data")


def public(folder: Path) -> Dataset:
    """The shared data: named press photographs (probes and references) and labelled faces (distractor references)."""
    aliases = split.overlap_aliases(folder / "labels" / "lfw_overlaps.csv")
    named = []
    for image in sorted((folder / "lfw").glob("*/*.jpg")):
        identity = split.lfw_identity(image.stem)
        named.append(Still(image, aliases.get(identity, identity)))
    labelled = [_utk(image) for image in sorted((folder / "utk").glob("*.jpg"))]
    note = (
        "Half of Labeled Faces in the Wild, by identity (press photographs; names known, no other label), and four "
        "fifths of UTKFace (age, sex and ethnicity as labelled; names not known, so only references or non-mated)."
    )
    return Dataset("LFW half and UTKFace", note, (*named, *labelled))


def held_out(dataset: Dataset) -> Dataset:
    """Only the identities that no training of this project has seen."""
    note = "Only identities held out from every training of this project (one in five, by a hash of the name)."
    return dataset.where((split.held_out(s.identity) for s in dataset.stills), note)


def fold(identity: str, folds: int = 5) -> int:
    """Which of `folds` parts an identity falls in; says nothing of whether training held it out."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[8:16], "big") % folds


def _utk(image: Path) -> Still:
    """`AGE_SEX_ETHNICITY_DATE.jpg`; a few names lack a part, and then that label is unknown."""
    parts = image.name.split("_")
    whole = len(parts) == 4
    return Still(
        image,
        split.utk_identity(image.name),
        SEXES.get(parts[1]) if whole else None,
        int(parts[0]) if parts[0].isdigit() else None,
        ETHNICITIES.get(parts[2]) if whole else None,
        border=0.3,
        distractor=True,
    )


def _folder(source: Path) -> Dataset:
    stills = [
        Still(image, image.parent.name)
        for image in sorted(source.glob("*/*"))
        if image.suffix.lower() in IMAGES and image.is_file()
    ]
    if not stills:
        raise ConfigError(f"{source}: no images in it; it needs one folder for each identity, with its images inside")
    return Dataset(source.name, "A folder of identities.", tuple(stills))


def _table(source: Path) -> Dataset:
    stills = []
    with source.open(newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.DictReader(lines), 2):
            image = (row.get("image") or "").strip()
            identity = (row.get("identity") or row.get("reference_identifier") or "").strip()
            if not image or not identity:
                raise ConfigError(f"{source}, line {number}: needs `image` and `identity`; correct the row")
            stills += [_row(source, number, one.strip(), identity, row) for one in image.split(";")]
    if not stills:
        raise ConfigError(f"{source}: no rows; the header is image,identity,sex,age,ethnicity")
    return Dataset(source.stem, "A table of stills with labels.", tuple(stills))


def _row(source: Path, number: int, image: str, identity: str, row: dict[str, str | None]) -> Still:
    path = source.parent / image
    if not path.is_file():
        raise ConfigError(f"{source}, line {number}: {image} is not there; paths are relative to the CSV file")
    age = (row.get("age") or "").strip()
    if age and not age.isdigit():
        raise ConfigError(f"{source}, line {number}: age {age!r} is not a whole number; correct it or leave it empty")
    return Still(path, identity, row.get("sex") or None, int(age) if age else None, row.get("ethnicity") or None)


def _bytes(image: Path) -> bytes:
    if image.stat().st_size > LIMITS.image_bytes:
        raise ConfigError(f"{image}: larger than {LIMITS.image_bytes} bytes; this is not a photograph of a face")
    return image.read_bytes()
