"""The embedder's figures, with the shipped file, through the unit's own preprocessing, on identities held out.

Verification: all pairs of the held-out photographs of LFW. Identification: one still each of 10,000 references. Every
held-out LFW identity has one, its first photograph; the list is filled up with adults of UTKFace, held-out faces first,
then training faces, since fewer than 10,000 are held out. Mated probes are the other photographs of LFW identities.
Non-mated probes are all held-out photographs of LFW, each searched with its own identity's
reference taken off the list.
UTKFace faces that are close to an LFW face are not in the data set, so none is a hidden mate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from appliance.recognition.align import chip
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import Pack
from models.training.chips import Picture
from models.training.faces import FaceSet, load_faces
from models.training.figures import Identification, Verification, identification, verification
from models.training.sources import dlib_weights_file, shared_folder
from models.training.split import lfw_identity
from models.training.teacher import read_picture

Floats = npt.NDArray[np.float32]
Embed = Callable[[Picture], Floats]

REFERENCES = 10_000
FALSE_IDENTIFICATION_RATES = (1e-2, 1e-3)
_ADULT = 18


@dataclass(frozen=True)
class Figures:
    """What the README's table asks of an embedder."""

    verification: Verification
    identification: tuple[Identification, ...]


def pack_embedder(pack: Pack, mirrored: bool = False) -> Embed:
    """A function from one chip (height, width, 3) to its template; ``mirrored`` adds the mirror image's."""
    embedder = Embedder(pack)

    def embed(face: Picture) -> Floats:
        both = embedder.embed(np.stack([face, face[:, ::-1]]) if mirrored else face[None])
        return _unit(both.sum(axis=0))

    return embed


def dlib_embedder() -> Embed:
    """dlib's own code and weights on one aligned 150 x 150 chip: what the public-domain pack is held against."""
    import dlib

    model = dlib.face_recognition_model_v1(str(dlib_weights_file()))

    def embed(face: Picture) -> Floats:
        rgb = np.ascontiguousarray(face[..., ::-1])
        return _unit(np.asarray(model.compute_face_descriptor(rgb), dtype=np.float32))

    return embed


def lfw_chips(faces: FaceSet, pack: Pack) -> list[Picture]:
    """Chips of LFW photographs, cut as the unit cuts them."""
    part, folder = pack.embedder, shared_folder() / "data"
    labels = np.load(folder / "labels" / "lfw.npz")
    points = dict(zip(labels["name"].tolist(), labels["yunet"][:, 4:14].reshape(-1, 5, 2), strict=True))
    target = np.asarray(part.landmarks, np.float32)
    return [
        chip(
            read_picture(folder / "lfw" / lfw_identity(name) / f"{name}.jpg"),
            points[name],
            target,
            part.width,
            part.height,
        )
        for name in faces.names.tolist()
    ]


def canvas_chips(faces: FaceSet, pack: Pack) -> list[Picture]:
    """Chips cut from the cached canvases, for UTKFace, whose landmarks are not among the labels."""
    part = pack.embedder
    target = np.asarray(part.landmarks, np.float32)
    return [
        chip(canvas, points, target, part.width, part.height)
        for canvas, points in zip(faces.canvases, faces.points, strict=True)
    ]


def templates(embed: Embed, chips: list[Picture], what: str) -> Floats:
    """Unit-length templates of ``chips``."""
    return np.stack([embed(face) for face in track(chips, f"embedding {what}", transient=True)])


def measure(embed: Embed, pack: Pack, identify: bool = True, everyone: bool = False) -> Figures:
    """All figures of one embedder whose chips are cut as ``pack`` says.

    ``everyone`` verifies on all photographs of LFW: for networks that the project did not train.
    """
    lfw = load_faces("lfw")
    if everyone:
        return Figures(verification(templates(embed, lfw_chips(lfw, pack), "LFW"), lfw.identities), ())
    lfw = lfw.part(lfw.held_out)
    found = templates(embed, lfw_chips(lfw, pack), "LFW")
    pairs = verification(found, lfw.identities)
    if not identify:
        return Figures(pairs, ())
    return Figures(pairs, _search(lfw, found, embed, pack))


def _search(lfw: FaceSet, found: Floats, embed: Embed, pack: Pack) -> tuple[Identification, ...]:
    _, first = np.unique(lfw.identities, return_index=True)
    filling = _filling(load_faces("utk"), REFERENCES - len(first))
    strangers = templates(embed, canvas_chips(filling, pack), "references")
    probes = np.setdiff1d(np.arange(len(lfw.names)), first)
    references = np.concatenate([found[first], strangers])
    names = np.concatenate([lfw.identities[first], filling.identities])
    return tuple(
        identification(references, names, found, lfw.identities, probes, rate) for rate in FALSE_IDENTIFICATION_RATES
    )


def _filling(utk: FaceSet, count: int) -> FaceSet:
    """Adults of UTKFace (its names begin with the age), those held out first."""
    adult = np.array([int(name.split("_")[0]) >= _ADULT for name in utk.names.tolist()])
    rows = np.concatenate([np.flatnonzero(utk.held_out & adult), np.flatnonzero(~utk.held_out & adult)])
    return utk.part(rows[:count])


def _unit(template: Floats) -> Floats:
    return np.asarray(template / max(float(np.linalg.norm(template)), 1e-12), dtype=np.float32)


def write_table(figures: Figures) -> dict[str, object]:
    """The figures as plain values, for JSON."""
    table: dict[str, object] = {
        "mated pairs": figures.verification.mated,
        "non-mated pairs": figures.verification.non_mated,
        **{f"TAR at FAR {rate:.0e}": round(value, 4) for rate, value in figures.verification.accept.items()},
    }
    for found in figures.identification:
        table |= {
            f"TPIR at FPIR {found.rate:.0e}": round(found.identified, 4),
            "references": found.references,
            "mated probes": found.mated,
            "non-mated probes": found.non_mated,
        }
    return table


def size_of(folder: Path) -> int:
    """Bytes of a pack's model files."""
    return sum(file.stat().st_size for file in folder.glob("*.tflite"))
