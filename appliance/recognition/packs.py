"""Model packs: a folder with a manifest that pins every file by digest, runtime and preprocessing.

Templates are not portable between runtimes or preprocessing, so all of it is under the pack's digest: change a
byte of `pack.toml` and every watchlist made with the pack is refused.
"""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from pydantic import Field, ValidationError, model_validator

from appliance.errors import PackError
from appliance.limits import LIMITS
from appliance.records import Floats, Image, Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Role = Literal["detector", "embedder"]
Runtime = Literal["litert", "onnxruntime", "opencv"]
Triple = tuple[float, float, float]
Point = tuple[float, float]
BUILT_IN = Path(__file__).resolve().parents[2] / "models"


class PackInput(Record):
    """Network input = (pixel - mean) / scale, in the layout and colour order named."""

    layout: Literal["nhwc", "nchw"]
    colour: Literal["rgb", "bgr"]
    mean: Triple
    scale: Triple


class PackFile(Record):
    """One exported size of the network."""

    path: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    width: int = Field(ge=16, le=LIMITS.frame_side)
    height: int = Field(ge=16, le=LIMITS.frame_side)


class TemplatePart(Record):
    """A stretch of an embedder's output that is scaled to unit length by itself; cosines add up by `weight`.

    `file` names the network it comes from, where that is not the pack's first. `mirror`: that network looks at the
    chip's mirror image. Parts of one network and one look follow each other as its output holds them.
    """

    length: int = Field(ge=8, le=LIMITS.template_length)
    weight: float = Field(gt=0, le=1)
    file: str | None = None
    mirror: bool = False


class EmbedderPart(Record):
    """`landmarks` says where the five points go in the chip: pixels, YuNet's order.

    `parts`, where the network has several heads: their lengths add up to `length`, their weights to 1.
    `mirror`: the template is the mean of the chip's and of its mirror image's, at twice the time.
    """

    width: int = Field(ge=16, le=1024)
    height: int = Field(ge=16, le=1024)
    length: int = Field(ge=8, le=LIMITS.template_length)
    landmarks: tuple[Point, Point, Point, Point, Point]
    parts: tuple[TemplatePart, ...] = ()
    mirror: bool = False

    @model_validator(mode="after")
    def _parts_make_the_whole(self) -> EmbedderPart:
        if not self.parts:
            return self
        if sum(p.length for p in self.parts) != self.length or abs(sum(p.weight for p in self.parts) - 1) > 1e-6:
            raise ValueError("the parts' lengths must add up to the template's length, their weights to 1")
        return self


class DetectorPart(Record):
    """`smallest_face` is the width in pixels, at the detector's input, that it finds reliably."""

    decoder: Literal["grid", "yunet"]
    strides: tuple[int, ...]
    smallest_face: float = Field(gt=0)


class Golden(Record):
    """A synthetic input and its output, to notice a runtime that computes something else."""

    path: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tolerance: float = Field(gt=0, le=1)


class Manifest(Record):
    """`pack.toml`, whole."""

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    role: Role
    version: str
    runtime: Runtime
    licence: str
    origin: str
    terms: str
    calibration: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    input: PackInput
    embedder: EmbedderPart | None = None
    detector: DetectorPart | None = None
    files: tuple[PackFile, ...] = Field(min_length=1)
    golden: Golden

    @model_validator(mode="after")
    def _role_has_its_part(self) -> Manifest:
        if (self.embedder is None) != (self.role == "detector"):
            raise ValueError(f"a pack of role {self.role} needs exactly its own [{self.role}] part")
        if (self.detector is None) != (self.role == "embedder"):
            raise ValueError(f"a pack of role {self.role} needs exactly its own [{self.role}] part")
        return self

    @model_validator(mode="after")
    def _parts_come_from_its_files(self) -> Manifest:
        known = {file.path for file in self.files}
        for part in self.embedder.parts if self.embedder else ():
            if part.file is not None and part.file not in known:
                raise ValueError(f"a part comes from {part.file}, which is not among the pack's files")
        return self


@dataclass(frozen=True)
class Pack:
    """A manifest whose files were found where it says. `digest` is the SHA-256 of `pack.toml`'s bytes."""

    folder: Path
    manifest: Manifest
    digest: str

    @property
    def embedder(self) -> EmbedderPart:
        """The embedder's part; PackError for a pack of the other role."""
        if self.manifest.embedder is None:
            raise PackError(
                f"{self.folder}: a detector pack where an embedder pack is needed; swap the two in the config"
            )
        return self.manifest.embedder

    @property
    def detector(self) -> DetectorPart:
        """The detector's part; PackError for a pack of the other role."""
        if self.manifest.detector is None:
            raise PackError(
                f"{self.folder}: an embedder pack where a detector pack is needed; swap the two in the config"
            )
        return self.manifest.detector

    def read(self, file: PackFile) -> bytes:
        """The bytes of one model file, after its digest was checked. The bytes checked are the bytes used."""
        return _verified(self.folder / file.path, file.sha256)

    def golden(self) -> tuple[Image, Floats]:
        """The golden input (uint8, BGR) and output (float32)."""
        blob = _verified(self.folder / self.manifest.golden.path, self.manifest.golden.sha256)
        with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
            return cast(Image, arrays["input"]), cast(Floats, arrays["output"].astype(np.float32))


def find(name: str | Path) -> Path:
    """The folder of a pack: a built-in name such as `lamp-detector`, or any path."""
    built_in = BUILT_IN / str(name)
    if "/" not in str(name) and (built_in / "pack.toml").is_file():
        return built_in
    return Path(name).expanduser()


def load(name: str | Path) -> Pack:
    """Read and validate a pack's manifest; files are verified when they are read.

    Raises PackError with what to do when the folder, the manifest or a file is not as it should be.
    """
    folder = find(name)
    try:
        text = (folder / "pack.toml").read_bytes()
    except OSError as error:
        known = ", ".join(sorted(p.parent.name for p in BUILT_IN.glob("*/pack.toml"))) or "none"
        raise PackError(
            f"{folder}: no model pack here ({error.strerror}); name a folder or a built-in pack: {known}"
        ) from error
    if len(text) > LIMITS.manifest_bytes:
        raise PackError(f"{folder}/pack.toml: larger than {LIMITS.manifest_bytes} bytes; this is not a manifest")
    try:
        manifest = Manifest.model_validate(tomllib.loads(text.decode()))
    except (ValidationError, ValueError) as error:
        raise PackError(f"{folder}/pack.toml: {_first_line(error)}; restore the pack from its origin") from error
    return Pack(folder, manifest, hashlib.sha256(text).hexdigest())


def verify(pack: Pack) -> None:
    """Check every file of the pack against its digest."""
    for file in pack.manifest.files:
        pack.read(file)
    pack.golden()


def _verified(path: Path, sha256: str) -> bytes:
    try:
        if path.stat().st_size > LIMITS.model_bytes:
            raise PackError(f"{path}: larger than {LIMITS.model_bytes} bytes; restore the pack from its origin")
        blob = path.read_bytes()
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}; restore the pack from its origin") from error
    found = hashlib.sha256(blob).hexdigest()
    if found != sha256:
        raise PackError(
            f"{path}: digest is {found[:12]}..., the manifest says {sha256[:12]}...: the file was altered "
            "or cut short; restore the pack from its origin"
        )
    return blob


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(p) for p in first['loc']) or 'manifest'}: {first['msg']}"
    return str(error).splitlines()[0]
