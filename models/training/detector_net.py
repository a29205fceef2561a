"""The detector's network: three grids of score, box and five landmarks, after YuNet's geometry; and that geometry.

Dense 3 x 3 convolutions with few channels: they train and quantise better than depthwise ones, and run faster in int8
on a CPU's dot-product units. Every layer exists in TFLite and for the Edge TPU compiler: CONV_2D (with its PAD), RELU,
ADD, RESIZE_NEAREST_NEIGHBOR, LOGISTIC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
Floats = npt.NDArray[np.float32]
Grids = list[tuple[Floats, Floats, Floats]]
"""For each stride: score (h, w), box (h, w, 4) and landmarks (h, w, 10), as in the model pack's "grid" decoder."""

_LARGEST_LOG_SIZE = 6.0
_SAME_FACE, _VOTES = 0.4, 0.6  # IoU


@dataclass(frozen=True)
class Shape:
    """Channels of the stem's layers, of those at strides 8, 16 and 32, and of the heads; layers at each stride."""

    stem: tuple[int, int] = (16, 32)
    channels: tuple[int, int, int] = (48, 56, 64)
    depth: tuple[int, int, int] = (2, 2, 2)
    head: int = 32


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(_layer(inputs, outputs, 2), *[_layer(outputs, outputs) for _ in range(depth)])


class Head(nn.Module):
    """Score (as a logit), box and landmarks of one grid."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layer = _layer(channels, width)
        self.score, self.box, self.landmarks = (nn.Conv2d(width, n, 1) for n in (1, 4, 10))
        nn.init.constant_(self.score.bias, -4.0)  # faces are rare: start from that, not from one half

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, width, h, w), after ``layer`` -> (n, 1, h, w), (n, 4, h, w), (n, 10, h, w)."""
        return self.score(features), self.box(features), self.landmarks(features)


class DetectorNet(nn.Module):
    """BGR pixels divided by 255, (n, 3, H, W), to three grids of ceil(H / s) x ceil(W / s) cells."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        c8, c16, c32 = shape.channels
        self.stem = nn.Sequential(_layer(3, shape.stem[0], 2), _layer(shape.stem[0], shape.stem[1], 2))
        self.at8 = _stage(shape.stem[1], c8, shape.depth[0])
        self.at16 = _stage(c8, c16, shape.depth[1])
        self.at32 = _stage(c16, c32, shape.depth[2])
        self.down16, self.down8 = nn.Conv2d(c32, c16, 1), nn.Conv2d(c16, c8, 1)
        self.heads = nn.ModuleList([Head(c, shape.head) for c in shape.channels])

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Score logits, boxes and landmarks for strides 8, 16, 32."""
        return [head(features) for head, features in zip(self.heads, self.features(pixels), strict=True)]

    def features(self, pixels: Tensor) -> list[Tensor]:
        """What the heads' last layers see: all that training computes in bfloat16."""
        fine = self.at8(self.stem(pixels))
        middle = self.at16(fine)
        coarse = self.at32(middle)
        middle = middle + _enlarged(self.down16(coarse), middle)
        fine = fine + _enlarged(self.down8(middle), fine)
        return [head.layer(at) for head, at in zip(self.heads, (fine, middle, coarse), strict=True)]


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    """Twice the size, cut to ``like``: grids are rounded up, so a coarse one can reach one row further."""
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")[..., : like.shape[2], : like.shape[3]]


class ExportNet(nn.Module):
    """What is exported: batch normalisation folded, probabilities, channels last out."""

    def __init__(self, net: DetectorNet) -> None:
        super().__init__()
        self.net = folded(net)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """BGR pixels / 255 (1, 3, H, W) -> score, box and landmarks for each stride, (1, h, w, 1 | 4 | 10)."""
        grids = self.net(pixels)
        parts = [part for score, box, points in grids for part in (torch.sigmoid(score), box, points)]
        return tuple(part.permute(0, 2, 3, 1) for part in parts)


def folded(net: DetectorNet) -> DetectorNet:
    """A copy in evaluation mode whose batch normalisations are merged into their convolutions."""
    import copy

    net = copy.deepcopy(net).eval()
    for module in list(net.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Sequential) and len(layer) == 3 and isinstance(layer[1], nn.BatchNorm2d):
                merged = torch.nn.utils.fusion.fuse_conv_bn_eval(cast(nn.Conv2d, layer[0]), layer[1])
                setattr(module, name, nn.Sequential(merged, nn.ReLU()))
    return net


def grid_shape(width: int, height: int, stride: int) -> tuple[int, int]:
    """Rows and columns of a grid: rounded up."""
    return -(-height // stride), -(-width // stride)


def decode(grids: Grids, threshold: float, overlap: float = 0.3, strides: tuple[int, ...] = STRIDES) -> Floats:
    """Faces (n, 15): x, y, width, height, five landmarks x, y, score; pixels; best first, overlaps removed."""
    rows = np.concatenate([_rows(*grid, stride, threshold) for grid, stride in zip(grids, strides, strict=True)])
    kept = cv2.dnn.NMSBoxes(rows[:, :4].tolist(), rows[:, 14].tolist(), threshold, overlap)
    return rows[np.asarray(kept, dtype=np.intp).reshape(-1)]


def _rows(score: Floats, box: Floats, landmarks: Floats, stride: int, threshold: float) -> Floats:
    y, x = np.nonzero(score >= threshold)
    cell = np.stack([x, y], 1).astype(np.float32)
    size = np.exp(np.minimum(box[y, x, 2:], _LARGEST_LOG_SIZE)) * stride
    corner = (cell + box[y, x, :2]) * stride - size / 2
    points = (landmarks[y, x].reshape(-1, 5, 2) + cell[:, None]) * stride
    return np.concatenate([corner, size, points.reshape(-1, 10), score[y, x, None]], 1).astype(np.float32)


def agree(grids: Grids, threshold: float, strides: tuple[int, ...] = STRIDES) -> None:
    """Make every cell of a face, in place, say what its cells say together of box and landmarks.

    A teacher's cells differ by some hundredths of the face, and which of them is best changes with a grain of noise.
    Their mean, weighted by the square of the score, is steadier than any of them.
    """
    rows, cells = [], []
    for level, ((score, box, points), stride) in enumerate(zip(grids, strides, strict=True)):
        rows.append(_rows(score, box, points, stride, threshold))
        cells += [(level, int(y), int(x)) for y, x in zip(*np.nonzero(score >= threshold), strict=True)]
    faces = np.concatenate(rows)
    kept = np.asarray(cv2.dnn.NMSBoxes(faces[:, :4].tolist(), faces[:, 14].tolist(), threshold, 0.3), np.intp).ravel()
    if not len(kept):
        return
    shared = overlaps(faces, faces[kept])
    best = shared.argmax(1)
    votes = np.where(shared > _VOTES, faces[:, 14:] ** 2, 0).T
    means = votes @ faces / votes.sum(1, keepdims=True)
    for cell, (level, y, x) in enumerate(cells):
        if shared[cell, best[cell]] >= _SAME_FACE:
            _, box, points = grids[level]
            box[y, x], points[y, x] = encode(means[best[cell]], x, y, strides[level])


def overlaps(ours: Floats, theirs: Floats) -> Floats:
    """IoU (n, m) of boxes x, y, width, height in the first four columns."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, :2] + ours[:, None, 2:4], theirs[None, :, :2] + theirs[None, :, 2:4])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = ours[:, None, 2:4].prod(-1) + theirs[None, :, 2:4].prod(-1)
    return (shared / np.maximum(areas - shared, 1e-6)).astype(np.float32)


def encode(face: Floats, column: int, row: int, stride: int) -> tuple[Floats, Floats]:
    """One decoded face (15,) as box (4,) and landmarks (10,) of a cell: the inverse of `decode`."""
    cell = np.array([column, row], np.float32)
    box = np.concatenate([(face[:2] + face[2:4] / 2) / stride - cell, np.log(face[2:4] / stride)])
    points = face[4:14].reshape(5, 2) / stride - cell
    return box.astype(np.float32), points.reshape(10).astype(np.float32)


def run(net: DetectorNet, picture: npt.NDArray[np.uint8]) -> Grids:
    """The network's grids, scores as probabilities, for one picture (h, w, 3) uint8 BGR."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float().div_(255)[None]
    device = next(net.parameters()).device
    with torch.inference_mode():
        grids = net(pixels.to(device))
    return [
        (
            torch.sigmoid(score)[0, 0].cpu().numpy(),
            box[0].permute(1, 2, 0).cpu().numpy(),
            points[0].permute(1, 2, 0).cpu().numpy(),
        )
        for score, box, points in grids
    ]
