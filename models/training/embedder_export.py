"""Turn an embedder into its pack: float TFLite, int8 by a representative set of training chips, manifest, golden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.training.chips import (
    DLIB_LANDMARKS,
    DLIB_WIDTH,
    TEACHER_LANDMARKS,
    Picture,
    align,
    chips_of_canvases,
)
from models.training.dataset import training_faces
from models.training.dlib_weights import read_weights
from models.training.edgetpu import objections
from models.training.embedder_net import LAST, LENGTH, MEAN, SCALE, FaceNet, from_dlib, normalise, unit_halves
from models.training.embedder_train import raw_templates
from models.training.export import ExportError, input_name, to_int8, to_tflite
from models.training.faces import load_faces
from models.training.fairface import fairface
from models.training.figures import verification
from models.training.pack_writer import Head, PackShape, PackText, write_embedder_pack
from models.training.sources import SourceError, cache_folder, dlib_weights_file

_FILE = "embedder_int8.tflite"
_RATES = (1e-3, 1e-4, 1e-5)
_THREADS = 2
_PUBLIC = PackText(
    "open-embedder",
    "1.0.0",
    "CC0-1.0",
    "dlib's face recognition ResNet by Davis E. King, from face_recognition_models 0.3.0, converted and quantised",
    "public domain; no evaluation for operational use is implied: calibrate it before any deployment",
)
_TUNED = PackText(
    "lamp-embedder",
    "1.0.0",
    "LicenseRef-Research-Only",
    "open-embedder's network, fine-tuned by the recipe in models/training on LFW, UTKFace and a teacher's templates",
    "research and evaluation only: the teacher and the photographs it learnt from are licensed for research",
)


_MATCHED_FILE = "matched_int8.tflite"
_MATCHED = PackText(
    "lamp-embedder",
    "1.1.0",
    "LicenseRef-Research-Only",
    "open-embedder's network twice: fine-tuned, and matched to a teacher, on LFW, UTKFace, FairFace (models/training)",
    _TUNED.terms,
)
_EVERY, _USUAL_WIDTH = 10, 112


def export_public(folder: Path, samples: int, seed: int) -> None:
    """The pack of the network as dlib made it."""
    model = quantised(from_dlib(read_weights(dlib_weights_file())), _representative(samples, seed))
    write_embedder_pack(folder, _PUBLIC, {_FILE: model}, PackShape(_FILE, DLIB_WIDTH, DLIB_LANDMARKS))


class Pair(nn.Module):
    """Two networks in one graph: the template of the untouched one, then the learnt half of the tuned one. (N, 256)."""

    def __init__(self, untouched: FaceNet, tuned: FaceNet) -> None:
        super().__init__()
        self.untouched, self.tuned = untouched, tuned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        learnt = self.tuned.head(self.tuned.features(x))
        return torch.cat([self.untouched(x), learnt], dim=1)


def export_tuned(run: str, folder: Path, version: str, samples: int, seed: int, share: float, small: bool) -> None:
    """The pack of a run's averaged network; raises SourceError without such a run.

    ``share`` is the weight of dlib's own half in the cosine of two templates. It comes from the untouched network,
    which doubles the file, or, if ``small``, from the head that the tuned network keeps for it.
    """
    tuned = averaged_net(cache_folder() / run / "checkpoint.pt")
    net = tuned if small else Pair(from_dlib(read_weights(dlib_weights_file())), tuned).eval()
    text = PackText(_TUNED.name, version, _TUNED.licence, _TUNED.origin, _TUNED.terms)
    heads = Head(share, _FILE), Head(1 - share, _FILE)
    shape = PackShape(_FILE, DLIB_WIDTH, DLIB_LANDMARKS, heads, mirror=True)
    write_embedder_pack(folder, text, {_FILE: quantised(net, _representative(samples, seed))}, shape)


def export_matched(
    state: Path, folder: Path, version: str, samples: int, seed: int, share: float, weight: float
) -> None:
    """Add dlib's network as function matching tuned it to the pack that `export_tuned` wrote.

    ``state`` is its weights, half precision. It looks at the chip's mirror image, so that two looks in all serve two
    networks and both sides: as much time as one network on both sides. ``weight`` is its part in the cosine; the rest
    is divided by ``share`` as in `export_tuned`. Raises SourceError without the weights.
    """
    if not state.is_file():
        raise SourceError(f"no weights at {state}: name the file with --state")
    net = FaceNet(spatial=True)
    stored = torch.load(state, map_location="cpu", weights_only=True)
    net.load_state_dict({name: value.float() for name, value in stored.items()})
    rest = 1 - weight
    heads = Head(rest * share, _FILE), Head(rest * (1 - share), _FILE), Head(weight, _MATCHED_FILE, mirror=True)
    shape = PackShape(_FILE, DLIB_WIDTH, DLIB_LANDMARKS, heads)
    text = PackText(_MATCHED.name, version, _MATCHED.licence, _MATCHED.origin, _MATCHED.terms)
    model = quantised(net.eval(), _aligned_canvases(samples, seed))
    write_embedder_pack(folder, text, {_MATCHED_FILE: model}, shape)


def _aligned_canvases(samples: int, seed: int) -> Picture:
    """FairFace's training faces as dlib's chips, drawn by ``seed``: the most varied set, and quick to cut."""
    faces = list(fairface("train", _EVERY))
    rows = np.sort(np.random.default_rng(seed).choice(len(faces), samples, replace=False))
    usual = TEACHER_LANDMARKS + (faces[0].shape[0] - _USUAL_WIDTH) / 2
    return np.stack([align(faces[row], usual, DLIB_LANDMARKS, DLIB_WIDTH) for row in rows])


def averaged_net(checkpoint: Path) -> FaceNet:
    """The averaged network of a checkpoint."""
    if not checkpoint.is_file():
        raise SourceError(f"no checkpoint at {checkpoint}: run python -m models.training embedder train first")
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["averaged"]
    net = FaceNet(spatial=weights["head.weight"].shape[1] > LAST, twin="origin.weight" in weights)
    net.load_state_dict(weights)
    return net.eval()


def share_figures(run: str, shares: tuple[float, ...]) -> dict[float, dict[float, float]]:
    """TAR by FAR for each share of the untouched network's half, on the training faces of LFW."""
    faces = load_faces("lfw")
    faces = faces.part(~faces.held_out)
    untouched = raw_templates(from_dlib(read_weights(dlib_weights_file())), _THREADS)(faces.canvases)
    tuned = raw_templates(averaged_net(cache_folder() / run / "checkpoint.pt"), _THREADS)(faces.canvases)
    raw = torch.from_numpy(np.concatenate([untouched, tuned[:, -LENGTH:]], axis=1))
    return {share: verification(unit_halves(raw, share).numpy(), faces.identities, _RATES).accept for share in shares}


def quantised(net: nn.Module, chips: Picture) -> bytes:
    """The int8 file; refuses a graph that an Edge TPU would not take whole."""
    floating = to_tflite(net, torch.zeros(1, 3, *chips.shape[1:3]))
    inputs = network_inputs(chips)
    black, white = (0 - max(MEAN)) / SCALE, (255 - min(MEAN)) / SCALE
    model = to_int8(floating, (each[None] for each in inputs), {input_name(floating): (black, white)})
    if found := objections(model):
        raise ExportError(f"the Edge TPU would not take this graph: {found[0]}")
    return model


def network_inputs(chips: Picture) -> npt.NDArray[np.float32]:
    """(N, H, W, 3) uint8 BGR -> float inputs in the file's order (N, H, W, 3)."""
    tensor = normalise(torch.from_numpy(np.ascontiguousarray(chips))).permute(0, 2, 3, 1)
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)


def _representative(samples: int, seed: int) -> Picture:
    """Chips of training faces, drawn by ``seed``."""
    faces = training_faces()
    rows = np.sort(np.random.default_rng(seed).choice(len(faces.names), samples, replace=False))
    return chips_of_canvases(faces.canvases[rows])
