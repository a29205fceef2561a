"""Strangers to test a list with: templates of faces that are not on it.

A folder of images (one face each, different people) becomes templates once for each pair of packs and is kept in the
base folder; a NumPy file of unit-length rows made with the same embedder is taken as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local

import numpy as np

from appliance.errors import EnrolmentError
from appliance.formats.preflight import Cohort
from appliance.recognition.embed import unit
from appliance.recognition.packs import Pack
from appliance.records import Floats
from provisioning.base import Base
from provisioning.enrolment import pictures
from provisioning.enrolment.quality_gate import Gate
from provisioning.store import digest


@dataclass(frozen=True)
class Strangers:
    """Templates (n, length), unit length, and what identifies them."""

    about: Cohort
    templates: Floats


def load(
    base: Base, source: Path, detector: Pack, embedder: Pack, progress: Callable[[int, int], None] | None = None
) -> Strangers:
    """The cohort of a folder of images or a `.npy` file. Raises EnrolmentError."""
    if source.suffix == ".npy":
        templates = _from_file(source)
    elif source.is_dir():
        templates = _from_folder(base, source, detector, embedder, progress)
    else:
        raise EnrolmentError(f"{source}: name a folder of face images, or a .npy file of templates, as the cohort")
    if templates.shape[1] != embedder.embedder.length:
        raise EnrolmentError(
            f"{source}: templates of {templates.shape[1]} numbers, the pack makes {embedder.embedder.length}"
        )
    sha256 = hashlib.sha256(templates.astype("<f4").tobytes()).hexdigest()
    return Strangers(Cohort(name=source.name[:200], sha256=sha256, size=len(templates)), templates)


def none(length: int) -> Strangers:
    """No cohort: nothing is known about wolves then."""
    return Strangers(
        Cohort(name="none", sha256=hashlib.sha256(b"").hexdigest(), size=0), np.empty((0, length), np.float32)
    )


def _from_file(source: Path) -> Floats:
    try:
        raw = np.load(source, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise EnrolmentError(f"{source}: not a NumPy array ({error}); save one row of numbers for each face") from error
    if raw.ndim != 2 or not len(raw) or not np.issubdtype(raw.dtype, np.floating) or not np.isfinite(raw).all():
        raise EnrolmentError(f"{source}: not a table of numbers; save one row of numbers for each face")
    return unit(raw.astype(np.float32))


def _from_folder(
    base: Base, source: Path, detector: Pack, embedder: Pack, progress: Callable[[int, int], None] | None
) -> Floats:
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in pictures.SUFFIXES)
    if not paths:
        raise EnrolmentError(f"{source}: holds no images")
    names = "\n".join(f"{p.relative_to(source)} {p.stat().st_size}" for p in paths)
    key = digest(names.encode(), detector.digest.encode(), embedder.digest.encode())
    kept = base.folder / "cohorts" / f"{key}.npy"
    if kept.exists():
        return _from_file(kept)
    found = _templates(base, paths, detector, embedder, progress or (lambda done, of: None))
    if not found:
        raise EnrolmentError(f"{source}: no image of it passes the gate; use images of one face each")
    kept.parent.mkdir(exist_ok=True, mode=0o700)
    np.save(kept, np.stack(found))
    kept.chmod(0o600)
    return np.stack(found)


def _templates(
    base: Base, paths: list[Path], detector: Pack, embedder: Pack, progress: Callable[[int, int], None]
) -> list[Floats]:
    mine = local()

    def one(path: Path) -> Floats | None:
        if not hasattr(mine, "gate"):
            mine.gate = Gate(detector, embedder, base.policy)
        try:
            image, _ = pictures.decode(pictures.read_bytes(path), path.name)
            template: Floats = mine.gate.template(image).template
            return template
        except EnrolmentError:
            return None  # a cohort is a sample: an image that does not pass is not in it

    found: list[Floats] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, template in enumerate(pool.map(one, paths), 1):
            if template is not None:
                found.append(template)
            progress(done, len(paths))
    return found
