"""Fetch a pinned upstream model pack: by address and digest, resumable, refused when a byte differs.

What an address serves is not trusted; only the digest in the pin is. The golden record of a fetched pack is made here,
after the digest was checked: it notices a later change of runtime, not a first one that was wrong.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.errors import PackError
from appliance.recognition import packs
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.records import Floats, Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PINS = packs.BUILT_IN / "upstream"
_LINE = "# ---- pack.toml ----\n"
_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte
Progress = Callable[[int, int], None]
"""(bytes so far, bytes in all)."""


@dataclass(frozen=True)
class Pin:
    """One upstream pack: where its file is, how large, its digest, and the manifest it will get."""

    name: str
    url: str
    size: int
    path: str
    sha256: str
    manifest: str


def pins() -> dict[str, Pin]:
    """The pinned packs by name."""
    return {p.stem: _pin(p) for p in sorted(PINS.glob("*.toml"))}


def fetch(pin: Pin, folder: Path, progress: Progress, url: str | None = None) -> packs.Pack:
    """Download a pack into `folder`, or go on where an earlier attempt stopped. Raises PackError.

    `url` stands in for the pinned address (a mirror); the digest stays the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / pin.path, folder / f"{pin.path}.part"
    if not (target.exists() and _digest(target) == pin.sha256):
        _room_for(folder, pin.size)
        _download(url or pin.url, part, pin.size, progress)
        if _digest(part) != pin.sha256:
            part.unlink()
            raise PackError(
                f"{pin.name}: what {url or pin.url} serves is not the pinned file (digest differs); nothing was "
                "installed: try again, and if it stays so, do not use that address"
            )
        part.replace(target)
    return _finish(pin, folder)


def _pin(path: Path) -> Pin:
    head, manifest = path.read_text(encoding="utf-8").split(_LINE)
    where, what = tomllib.loads(head), tomllib.loads(manifest)
    file = what["files"][0]
    return Pin(path.stem, where["url"], where["size"], file["path"], file["sha256"], manifest)


def _download(url: str, part: Path, size: int, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            if have and answer.status != 206:
                have = 0  # the server cannot resume: begin anew
            _store(answer, part, have, size, progress)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PackError(
            f"{url}: {reason}; check the network and run the same command again, it goes on where it was"
        ) from error


def _store(answer: io.BufferedIOBase, part: Path, have: int, size: int, progress: Progress) -> None:
    with part.open("ab" if have else "wb") as file:
        while chunk := answer.read(_CHUNK):
            have += len(chunk)
            if have > size:
                raise PackError(f"{part.name}: the server sends more than the pinned {size} bytes; not the pinned file")
            file.write(chunk)
            progress(have, size)
    if have < size:
        raise PackError(f"{part.name}: the connection ended after {have} of {size} bytes; run the same command again")


def _finish(pin: Pin, folder: Path) -> packs.Pack:
    """Write the golden record and the manifest; the pack loads from then on."""
    draft = pin.manifest + '\n[golden]\npath = "golden.npz"\nsha256 = "{}"\ntolerance = {}\n'
    (folder / "pack.toml").write_text(draft.format("0" * 64, 0.99), encoding="utf-8")
    pack = packs.load(folder)
    arrays = _golden(pack)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, input=arrays[0], output=arrays[1])
    (folder / "golden.npz").write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / "pack.toml").write_text(draft.format(digest, 0.99), encoding="utf-8")
    return packs.load(folder)


def _golden(pack: packs.Pack) -> tuple[Image, Floats]:
    if pack.manifest.role == "embedder":
        built_in, _ = packs.load("open-embedder").golden()
        part = pack.embedder
        chip = _fitted(built_in, part.width, part.height)
        return chip, Embedder(pack).embed(chip[None])[0]
    file = pack.manifest.files[0]
    scene = _fitted(packs.load("lamp-detector").golden()[0], file.width, file.height)
    return scene, Detector(pack).rows_at(scene)


def _fitted(image: Image, width: int, height: int) -> Image:
    """Cropped or padded with black to a size; never scaled, so that faces stay as they are."""
    canvas = np.zeros((height, width, 3), np.uint8)
    part = image[:height, :width]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def _room_for(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + (1 << 20):
        raise PackError(f"{folder}: {size} bytes needed, {free} free; make room or choose another folder with --into")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
