"""Average a fine-tuned network's weights with those it started from, and solve its heads again.

Fine-tuning on 20,000 photographs learns the teacher and forgets some of what dlib knew from three million. Half-way
between the two sets of weights both are kept better than at either end (Wortsman et al., Robust fine-tuning of
zero-shot models, 2022); the heads are then the least-squares ones for the features that are there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.training.chips import chips_of_canvases
from models.training.dataset import Floats, Lessons
from models.training.embedder_net import LAST, FaceNet
from models.training.embedder_train import embed, ridge


def blended(start: FaceNet, tuned: FaceNet, share: float) -> FaceNet:
    """(1 - share) of ``start``'s weights plus ``share`` of ``tuned``'s; both are twins with a spatial head."""
    net = FaceNet(spatial=True, twin=True)
    first, last = start.state_dict(), tuned.state_dict()
    net.load_state_dict({name: torch.lerp(first[name].float(), last[name].float(), share) for name in last})
    return net.to(memory_format=torch.channels_last).eval()


def solve_heads(net: FaceNet, lessons: Lessons, origins: Floats, count: int, seed: int) -> None:
    """Both heads by least squares on ``count`` clean training chips: dlib's own templates, and the teacher's."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(lessons.real), min(count, len(lessons.real)), replace=False))
    chips = np.ascontiguousarray(chips_of_canvases(lessons.real[rows]))
    features = embed(net, chips, torch.device("cpu"), features=True)
    for head, read, wanted in (
        (net.head, features, lessons.real_templates[rows]),
        (net.origin, features[:, -LAST:], origins[rows]),
    ):
        weight, bias = ridge(read, wanted)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weight.T.copy()))
            head.bias.copy_(torch.from_numpy(bias))


def save(net: FaceNet, folder: Path) -> None:
    """As a checkpoint that the export reads."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"averaged": net.state_dict()}, folder / "checkpoint.pt")
