"""The embedder's figures, with the shipped file, through the unit's own preprocessing, on identities held out.

Verification: all pairs of the held-out photographs of LFW. Identification: one still each of 10,000 references. Each
held-out LFW identity with two or more photographs gives its first as its reference and the others as mated probes.
The references are filled up with every second held-out face of UTKFace, then with training faces of UTKFace, since
fewer than 10,000 are held out; the other held-out UTKFace faces and the held-out LFW identities with one photograph
are the non-mated probes. A non-mated probe that the teacher scores above 0.5 with any reference is taken to show the
same face twice in UTKFace and is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from appliance.align import chip
from appliance.embed import Embedder
from appliance.packs import Pack
from models.training.chips import Picture
from models.training.faces import FaceSet, load_faces
from models.training.figures import Identification, Verification, identification, verification
from models.training.sources import dlib_weights_file, shared_folder
from models.training.split import lfw_identity
from models.training.teacher import read_picture

Floats = npt.NDArray[np.float32]
Embed = Callable[[Picture], Floats]

REFERENCES = 10_000
_SAME_FACE = 0.5  # teacher's score


@dataclass(frozen=True)
class Figures:
    """What the README's table asks of an embedder."""

    verification: Verification
    identification: Identification | None
    left_out: int


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
        return Figures(verification(templates(embed, lfw_chips(lfw, pack), "LFW"), lfw.identities), None, 0)
    lfw = lfw.part(lfw.held_out)
    found = templates(embed, lfw_chips(lfw, pack), "LFW")
    pairs = verification(found, lfw.identities)
    if not identify:
        return Figures(pairs, None, 0)
    utk = load_faces("utk")
    rows = _distractors(lfw, utk)
    searched, left_out = _search(lfw, found, utk, rows, embed, pack)
    return Figures(pairs, searched, left_out)


@dataclass(frozen=True)
class _Roles:
    """Rows of LFW and UTKFace by their part in identification."""

    references: npt.NDArray[np.intp]
    mated: npt.NDArray[np.intp]
    single: npt.NDArray[np.intp]
    distractors: npt.NDArray[np.intp]
    strangers: npt.NDArray[np.intp]


def _distractors(lfw: FaceSet, utk: FaceSet) -> _Roles:
    names, first, counts = np.unique(lfw.identities, return_index=True, return_counts=True)
    references = first[counts > 1]
    mated = np.flatnonzero(np.isin(lfw.identities, names[counts > 1]) & ~np.isin(np.arange(len(lfw.names)), references))
    held = np.flatnonzero(utk.held_out)
    filling = np.concatenate([held[::2], np.flatnonzero(~utk.held_out)])
    return _Roles(references, mated, first[counts == 1], filling[: REFERENCES - len(references)], held[1::2])


def _search(
    lfw: FaceSet, found: Floats, utk: FaceSet, roles: _Roles, embed: Embed, pack: Pack
) -> tuple[Identification, int]:
    listed = np.concatenate([lfw.templates[roles.references], utk.templates[roles.distractors]])
    known = np.concatenate([lfw.templates[roles.single], utk.templates[roles.strangers]])
    fresh = (known @ listed.T).max(axis=1) <= _SAME_FACE
    filling = templates(embed, canvas_chips(utk.part(roles.distractors), pack), "references")
    strangers = templates(embed, canvas_chips(utk.part(roles.strangers), pack), "non-mated probes")
    result = identification(
        np.concatenate([found[roles.references], filling]),
        np.concatenate([lfw.identities[roles.references], utk.identities[roles.distractors]]),
        found[roles.mated],
        lfw.identities[roles.mated],
        np.concatenate([found[roles.single], strangers])[fresh],
    )
    return result, int((~fresh).sum())


def _unit(template: Floats) -> Floats:
    return np.asarray(template / max(float(np.linalg.norm(template)), 1e-12), dtype=np.float32)


def write_table(figures: Figures) -> dict[str, object]:
    """The figures as plain values, for JSON."""
    table: dict[str, object] = {
        "mated pairs": figures.verification.mated,
        "non-mated pairs": figures.verification.non_mated,
        **{f"TAR at FAR {rate:.0e}": round(value, 4) for rate, value in figures.verification.accept.items()},
    }
    if (found := figures.identification) is not None:
        table |= {
            f"TPIR at FPIR {found.rate:.0e}": round(found.identified, 4),
            "references": found.references,
            "mated probes": found.mated,
            "non-mated probes": found.non_mated,
            "non-mated probes left out": figures.left_out,
        }
    return table


def size_of(folder: Path) -> int:
    """Bytes of a pack's model files."""
    return sum(file.stat().st_size for file in folder.glob("*.tflite"))
