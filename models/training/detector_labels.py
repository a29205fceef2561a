"""What the detector learns: for each composed scene, YuNet's answer in every cell of its three grids.

Scenes are made and labelled once and kept in the cache as shards of 256; a training pass reads a shard, and turns and
degrades its pictures anew. Shard ``n`` of a seed is always the same, whoever makes it and in whatever order.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.training.chips import Picture
from models.training.detector_net import STRIDES, Floats, Grids, grid_shape
from models.training.scenes import Composer, load_album
from models.training.sources import YUNET, SourceError, shared_folder

SHARD = 256
SIDE = 448
"""Of a scene: room for a picture of any of SIZES, turned."""
SIZES = ((320, 320), (416, 248), (352, 288), (400, 256))
"""Width and height of the pictures trained on, in turn: grids that divide evenly and grids that are rounded up."""
_MULTIPLE = 32  # YuNet's input must be a multiple of its greatest stride


class YuNet:
    """The teacher, in ONNX Runtime. Its score is sqrt(cls * obj); boxes and landmarks are as in the "grid" decoder."""

    def __init__(self, file: Path | None = None, threads: int = 1) -> None:
        file = file or shared_folder() / YUNET
        if not file.is_file():
            raise SourceError(f"no YuNet at {file}: set BLUELAMP_SHARED to the folder that holds models/yunet")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def grids(self, picture: Picture) -> Grids:
        """Score, box and landmarks for each stride of one picture (h, w, 3) uint8 BGR of any size."""
        return self.answer(self.prepare(picture), picture.shape[1], picture.shape[0])

    def prepare(self, picture: Picture) -> Floats:
        """(1, 3, H, W) float32: padded below and at the right with black to a multiple of 32."""
        height, width = (-(-n // _MULTIPLE) * _MULTIPLE for n in picture.shape[:2])
        padded = np.zeros((1, 3, height, width), np.float32)
        padded[0, :, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
        return padded

    def answer(self, pixels: Floats, width: int, height: int) -> Grids:
        """The grids of prepared pixels, cut to the picture."""
        found = dict(zip(self._names, self._session.run(None, {"input": pixels}), strict=True))
        grids = []
        for stride in STRIDES:
            rows, columns = grid_shape(width, height, stride)
            whole = (pixels.shape[2] // stride, pixels.shape[3] // stride, -1)
            face, thing, box, points = (
                found[f"{name}_{stride}"].reshape(whole)[:rows, :columns] for name in ("cls", "obj", "bbox", "kps")
            )
            score = np.sqrt(np.clip(face, 0, 1) * np.clip(thing, 0, 1))[..., 0]
            grids.append((score, box, points))
        return grids


@dataclass(frozen=True)
class Shard:
    """Scenes (N, H, W, 3) uint8 and, for each stride, float16 scores (N, h, w), boxes (.., 4), landmarks (.., 10)."""

    scenes: Picture
    labels: tuple[tuple[npt.NDArray[np.float16], npt.NDArray[np.float16], npt.NDArray[np.float16]], ...]


def make_shard(composer: Composer, yunet: YuNet, number: int, count: int = SHARD) -> Shard:
    """Compose and label scenes number * SHARD onwards."""
    scenes = np.stack([composer.scene(number * SHARD + i, SIDE, SIDE) for i in range(count)])
    answers = [yunet.grids(scene) for scene in scenes]
    labels = tuple(
        tuple(np.stack([answer[level][part] for answer in answers]).astype(np.float16) for part in range(3))
        for level in range(len(STRIDES))
    )
    return Shard(scenes, labels)  # type: ignore[arg-type]


def shard_file(folder: Path, number: int) -> Path:
    """Where shard ``number`` is kept."""
    return folder / f"shard_{number:05d}.npz"


def save_shard(shard: Shard, file: Path) -> None:
    """Written under another name first: a stopped maker leaves no half shard."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"scenes": shard.scenes}
    for stride, parts in zip(STRIDES, shard.labels, strict=True):
        arrays |= {f"{name}_{stride}": part for name, part in zip(("score", "box", "points"), parts, strict=True)}
    unfinished = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.rename(file)


def load_shard(file: Path) -> Shard:
    """The inverse of `save_shard`."""
    with np.load(file) as stored:
        labels = tuple((stored[f"score_{s}"], stored[f"box_{s}"], stored[f"points_{s}"]) for s in STRIDES)
        return Shard(stored["scenes"], labels)


def make_shards(folder: Path, seed: int, numbers: list[int], count: int = SHARD) -> None:
    """Make those of ``numbers`` that are not there yet, in order."""
    missing = [n for n in numbers if not shard_file(folder, n).is_file()]
    if not missing:
        return
    composer, yunet, parent = Composer(load_album(held=False), seed), YuNet(), parent_process()
    for number in missing:
        if parent is not None and not parent.is_alive():
            return  # the training was killed
        save_shard(make_shard(composer, yunet, number, count), shard_file(folder, number))


def start_makers(folder: Path, seed: int, shards: int, makers: int, count: int = SHARD) -> list[BaseProcess]:
    """Processes that make all shards, each every ``makers``-th; they end with this process."""
    context = get_context("spawn")
    processes: list[BaseProcess] = []
    for maker in range(makers):
        numbers = list(range(maker, shards, makers))
        process = context.Process(target=_make_quietly, args=(folder, seed, numbers, count), daemon=True)
        process.start()
        processes.append(process)
    return processes


def _make_quietly(folder: Path, seed: int, numbers: list[int], count: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    os.nice(3)  # behind the training: it waits for a shard only where none is ready
    make_shards(folder, seed, numbers, count)


def wait_for(file: Path, makers: list[BaseProcess]) -> None:
    """Until the file is there; raises RuntimeError if all who could make it have ended without doing so."""
    while not file.is_file():
        alive = any(maker.is_alive() for maker in makers)
        if not alive and not file.is_file():
            raise RuntimeError(f"{file} is missing and nobody makes it: look for the maker's error above, then resume")
        time.sleep(0.5)
