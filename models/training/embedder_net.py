"""dlib's face recognition ResNet in PyTorch, with the affine layers folded into the convolutions.

Its habits, kept so that the public-domain weights mean the same: convolutions of stride 2 and pools have no padding,
a residual sum pads the smaller side with zeros (right, below, and in channels), the mean over what is left of the
picture feeds one matrix. Input: RGB, (pixel - (122.782, 117.001, 104.298)) / 256.

Between layers a tensor stands as (N, H, W, C), channels last: with weights and input in that memory format the views
cost nothing, and the exported graph needs no transpositions around the residual sums.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from models.training.dlib_weights import DlibWeights, FloatArray, WeightsError

MEAN = (122.782, 117.001, 104.298)
SCALE = 256.0
LENGTH = 128
DLIB_SIDE = 150
LAST = 256  # numbers of the last stage's mean over the picture
_SPATIAL_SIDE = 4  # of the last stage but one, at 150 x 150
_STAGES = ((3, 32, False), (4, 64, True), (3, 128, True), (3, 256, True), (1, 256, True))


class Block(nn.Module):
    """Two convolutions and a shortcut; ``halve`` takes every second pixel. (N, H, W, C) -> (N, H', W', outputs)."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.halve = halve
        self.grow = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = _last(self.second(functional.relu(self.first(_first(x)))))
        shortcut = _last(functional.avg_pool2d(_first(x), 2, 2)) if self.halve else x
        down, right = shortcut.shape[1] - y.shape[1], shortcut.shape[2] - y.shape[2]
        shortcut = _pad(shortcut, self.grow, max(-down, 0), max(-right, 0))
        y = _pad(y, 0, max(down, 0), max(right, 0))
        return functional.relu(shortcut + y)


class FaceNet(nn.Module):
    """(N, 3, H, W) normalised RGB -> (N, 128), not scaled to length one.

    As dlib made it, the head reads the last stage's mean over the picture. ``spatial``: it reads the 4 x 4 pixels
    before the last stage too, each with its place, so that it knows where in the face a thing is; 150 x 150 only.
    """

    def __init__(self, spatial: bool = False, twin: bool = False) -> None:
        super().__init__()
        self.spatial, self.twin = spatial, twin
        self.stem = nn.Conv2d(3, 32, 7, 2, 0)
        blocks, inputs = [], 32
        for count, outputs, halve in _STAGES:
            for index in range(count):
                blocks.append(Block(inputs, outputs, halve and index == 0))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs * (1 + _SPATIAL_SIDE**2 if spatial else 1), LENGTH)
        if twin:
            self.origin = nn.Linear(LAST, LENGTH)

    def features(self, x: Tensor) -> Tensor:
        """(N, 256), or (N, 4352) if ``spatial``: what the head reads."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        before: Tensor = self.blocks[:-1](_last(x))
        mean: Tensor = self.blocks[-1](before).mean((1, 2))
        return torch.cat([before.flatten(1), mean], dim=1) if self.spatial else mean

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        template: Tensor = self.head(features)
        return torch.cat([self.origin(features[:, -LAST:]), template], 1) if self.twin else template

    def convolutions(self) -> list[nn.Conv2d]:
        """Every convolution from input to output, the order of dlib's file."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


def unit_halves(raw: Tensor, share: float) -> Tensor:
    """A twin's raw output (N, 256) as templates of unit length: cosines are ``share`` of dlib's and the rest ours."""
    halves = functional.normalize(raw[:, :LENGTH]), functional.normalize(raw[:, LENGTH:])
    return torch.cat([halves[0] * share**0.5, halves[1] * (1 - share) ** 0.5], 1)


def from_dlib(weights: DlibWeights, spatial: bool = False, twin: bool = False) -> FaceNet:
    """The network with the public-domain weights; a ``spatial`` one's head is left at random, to be solved for."""
    net = FaceNet(spatial, twin)
    layers = net.convolutions()
    if len(layers) != len(weights.convolutions):
        raise WeightsError(f"{len(weights.convolutions)} convolutions in the file, {len(layers)} in the network")
    with torch.no_grad():
        for layer, (filters, scale, offset) in zip(layers, weights.convolutions, strict=True):
            _fold(layer, filters, scale, offset)
        if twin:
            net.origin.weight.copy_(torch.from_numpy(np.ascontiguousarray(weights.head.T)))
            net.origin.bias.zero_()
        elif not spatial:
            net.head.weight.copy_(torch.from_numpy(np.ascontiguousarray(weights.head.T)))
            net.head.bias.zero_()
    return net.eval()


def _fold(layer: nn.Conv2d, packed: FloatArray, scale: FloatArray, offset: FloatArray) -> None:
    """Convolution, then affine layer, as one convolution."""
    filters, biases = packed[: layer.weight.numel()], packed[layer.weight.numel() :]
    layer.weight.copy_(torch.from_numpy(filters.reshape(layer.weight.shape) * scale[:, None, None, None]))
    assert layer.bias is not None  # every convolution here is made with one
    layer.bias.copy_(torch.from_numpy(biases * scale + offset))


def normalise(chips: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 BGR, OpenCV's order -> (N, 3, H, W) float RGB as the network reads it."""
    rgb = chips.flip(-1).permute(0, 3, 1, 2).float()
    return (rgb - torch.tensor(MEAN, device=chips.device)[:, None, None]) / SCALE


def fitted(chips: Tensor) -> Tensor:
    """`normalise`, enlarged to the 150 x 150 that dlib's network reads.

    The chips of the training sets are 112 wide because their photographs hold no more: enlarging adds nothing, but
    the filters meet faces at the scale they were made for.
    """
    return functional.interpolate(normalise(chips), size=(DLIB_SIDE, DLIB_SIDE), mode="bilinear", align_corners=False)


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _pad(x: Tensor, channels: int, down: int, right: int) -> Tensor:
    return functional.pad(x, (0, channels, 0, right, 0, down)) if channels or down or right else x
