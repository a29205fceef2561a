"""The real faces that train and measure the embedder: cut once from the photographs, kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import track

from models.training.chips import CANVAS, CANVAS_LANDMARKS, Picture, Points, align, moved, similarity
from models.training.sources import YUNET, SourceError, cache_folder, shared_folder
from models.training.split import held_out_mask, lfw_identity, overlap_aliases, utk_identity
from models.training.teacher import read_picture

_UTK_BORDER = 0.3  # of the side, repeated outwards, so that YuNet finds faces that fill the picture
_YUNET_LEAST_SCORE = 0.5
_ADULT = 18


@dataclass(frozen=True)
class FaceSet:
    """N faces: canvases (N, 152, 152, 3) uint8 BGR, landmarks in them (N, 5, 2), teacher's templates (N, 128)."""

    names: npt.NDArray[np.str_]
    identities: npt.NDArray[np.str_]
    held_out: npt.NDArray[np.bool_]
    canvases: Picture
    points: npt.NDArray[np.float32]
    templates: npt.NDArray[np.float32]

    def part(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> FaceSet:
        """The faces that ``rows`` selects."""
        return FaceSet(
            self.names[rows],
            self.identities[rows],
            self.held_out[rows],
            self.canvases[rows],
            self.points[rows],
            self.templates[rows],
        )


def load_faces(source: str) -> FaceSet:
    """All faces of ``"lfw"`` or ``"utk"``, from the cache or cut now; raises SourceError without the data."""
    if source not in _CUTTERS:
        raise SourceError(f"no face set {source!r}: there are {', '.join(_CUTTERS)}")
    file = cache_folder() / f"faces_{source}.npz"
    if not file.is_file():
        _cut(source, file)
    with np.load(file) as stored:
        return FaceSet(**{key: stored[key] for key in FaceSet.__dataclass_fields__})


def load_pictures(source: str) -> Iterator[tuple[str, bool, Picture, Points]]:
    """Identity, whether it is held out, photograph and landmarks (5, 2) of each face of ``"lfw"`` or ``"utk"``."""
    labels = np.load(shared_folder() / "data" / "labels" / f"{source}.npz")
    identities, held = _identities(source, labels["name"])
    for row, picture, points in _CUTTERS[source](labels):
        if points is not None:
            yield str(identities[row]), bool(held[row]), picture, points


def utk_adults(step: int) -> Iterator[tuple[Picture, Points]]:
    """Photograph and landmarks (5, 2) of every ``step``-th adult of UTKFace's training side."""
    names = np.load(shared_folder() / "data" / "labels" / "utk.npz")["name"]
    _, held = _identities("utk", names)
    wanted = [n for n, h in zip(names.tolist(), held, strict=True) if not h and int(str(n).split("_")[0]) >= _ADULT]
    for _, picture, points in _utk_faces({"name": np.array(wanted[::step])}):
        if points is not None:
            yield picture, points


def _cut(source: str, file: Path) -> None:
    labels = np.load(shared_folder() / "data" / "labels" / f"{source}.npz")
    rows, canvases, points = [], [], []
    faces = _CUTTERS[source](labels)
    for row, picture, found in track(faces, f"cutting {source}", total=len(labels["name"])):
        if found is None:
            continue
        rows.append(row)
        canvases.append(align(picture, found, CANVAS_LANDMARKS, CANVAS))
        points.append(moved(found, similarity(found, CANVAS_LANDMARKS)))
    names = labels["name"][rows]
    identities, held = _identities(source, names)
    templates = labels["teacher"][rows].astype(np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    unfinished = file.with_suffix(".part.npz")  # a stopped run leaves no half file under the final name
    np.savez(
        unfinished,
        names=names,
        identities=identities,
        held_out=held,
        canvases=np.stack(canvases),
        points=np.stack(points).astype(np.float32),
        templates=templates,
    )
    unfinished.rename(file)


def _identities(source: str, names: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.bool_]]:
    aliases = overlap_aliases(shared_folder() / "data" / "labels" / "lfw_overlaps.csv")
    rule = lfw_identity if source == "lfw" else utk_identity
    identities = [aliases.get(name, name) for name in map(rule, names.tolist())]
    return np.array(identities), np.array(held_out_mask(identities))


Face = tuple[int, Picture, Points | None]


def _lfw_faces(labels: dict[str, npt.NDArray[np.generic]]) -> Iterator[Face]:
    folder = shared_folder() / "data" / "lfw"
    for row, (name, yunet) in enumerate(zip(labels["name"], labels["yunet"], strict=True)):
        picture = read_picture(folder / lfw_identity(str(name)) / f"{name}.jpg")
        yield row, picture, np.asarray(yunet, dtype=np.float64)[4:14].reshape(5, 2)


def _utk_faces(labels: dict[str, npt.NDArray[np.generic]]) -> Iterator[Face]:
    folder = shared_folder() / "data" / "utk"
    find = _yunet()
    for row, name in enumerate(labels["name"]):
        picture = read_picture(folder / str(name))
        border = round(_UTK_BORDER * picture.shape[0])
        wide = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REPLICATE)
        yield row, np.asarray(wide, dtype=np.uint8), find(np.asarray(wide, dtype=np.uint8))


def _yunet() -> Callable[[Picture], Points | None]:
    """A function from a picture to the landmarks of the face nearest to its middle, or None."""
    detector = cv2.FaceDetectorYN.create(str(shared_folder() / YUNET), "", (320, 320), _YUNET_LEAST_SCORE)

    def find(picture: Picture) -> Points | None:
        detector.setInputSize((picture.shape[1], picture.shape[0]))
        faces = detector.detect(picture)[1]
        if faces is None:
            return None
        middle = np.array(picture.shape[1::-1]) / 2
        offset = np.linalg.norm(faces[:, :2] + faces[:, 2:4] / 2 - middle, axis=1)
        return np.asarray(faces[int(offset.argmin()), 4:14], dtype=np.float64).reshape(5, 2)

    return find


_CUTTERS: dict[str, Callable[[dict[str, npt.NDArray[np.generic]]], Iterator[Face]]] = {
    "lfw": _lfw_faces,
    "utk": _utk_faces,
}
