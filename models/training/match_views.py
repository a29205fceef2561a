"""Views of faces, made where the network trains: mixed, warped, recoloured; then as a street shows them.

The teacher sees a view as it is, the student sees it degraded. Coordinates are pixels of the 112 x 112 template; a
view covers -8 to 120, so that a chip a little off still shows real pixels. Values are 0 to 255, (n, 3, 128, 128).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from models.training.match_faces import CANVAS, SIDE

VIEW, FIRST = 128, -8.0
MIXED, DEGRADED = 0.4, 0.5
_CHUNKS = 6  # parts of a batch that share a blur, or a coarseness
_ROUGH = torch.arange(8)[:, None] + torch.arange(8)[None]


class Street:
    """Draws views on one device from torch's own random numbers; ``seed`` sets what NumPy draws."""

    def __init__(self, where: torch.device, seed: int) -> None:
        self._where, self._rng = where, np.random.default_rng(seed)
        row = torch.arange(VIEW, device=where) + FIRST
        self._row, self._column = torch.meshgrid(row, row, indexing="ij")
        self._dct = _cosines().to(where)
        self._steps = torch.stack([10 + 7.0 * _ROUGH, 17 + 9.0 * _ROUGH, 17 + 9.0 * _ROUGH]).to(where)  # near JPEG's
        self._ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
        self._rgb = torch.linalg.inv(self._ycc).to(where)
        self._ycc = self._ycc.to(where)

    def views(self, faces: Tensor, count: int) -> Tensor:
        """``count`` views of canvases (n, 144, 144, 3) uint8: real faces, and mixtures of two by a smooth mask."""
        first = self._warped(faces, count)
        some = int(count * MIXED)
        if some:
            second = self._warped(faces, some)
            smooth = torch.sigmoid(self._cloud(some, 4, 4.0, 1) + self._normal(some, 1, 1, 1))
            even = self._uniform(some, 1, 1, 1)
            mask = torch.where(self._uniform(some, 1, 1, 1) < 0.4, even.expand_as(smooth), smooth)
            first = torch.cat([first[:some] * mask + second * (1 - mask), first[some:]])
        return self._coloured(first[torch.randperm(count, device=self._where)])

    def degraded(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Views as a street shows them, and (n,) which of them were changed."""
        n = len(views)
        bad = self._uniform(n, 1, 1, 1) < DEGRADED
        x = torch.where((self._uniform(n, 1, 1, 1) < 0.5) & bad, _by_chunks(views, self._small), views)
        x = torch.where((self._uniform(n, 1, 1, 1) < 0.4) & bad, _by_chunks(x, self._soft), x)
        return self._dim_and_hidden(x, bad), bad.flatten()

    def chips(self, views: Tensor, bad: Tensor) -> Tensor:
        """(n, 3, 112, 112) as the network reads them, with a detector's error; some narrowed like a turned head."""
        n = len(views)
        strength = torch.where(bad, 1.7, 0.8)
        where = _turned(
            self._grid(n, SIDE, 0.0, SIDE),
            self._normal(n) * 0.03 * strength,
            self._normal(n) * 0.022 * strength,
            self._normal(n, 2) * 0.9 * strength[:, None],
        )
        narrow = bad * (self._uniform(n) < 0.3) * self._uniform(n) * 0.25
        where = torch.stack([56 + (where[..., 0] - 56) * (1 + narrow)[:, None, None], where[..., 1]], -1)
        return normalised(_sampled(views.float(), where, FIRST, VIEW))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self._where)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self._where)

    def _grid(self, count: int, out: int, first: float, span: float) -> Tensor:
        steps = (torch.arange(out, device=self._where) + 0.5) * (span / out) - 0.5 + first
        return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)[None].expand(count, out, out, 2)

    def _cloud(self, count: int, grain: int, strength: float, channels: int) -> Tensor:
        coarse = self._normal(count, channels, grain, grain) * strength
        return functional.interpolate(coarse, size=(VIEW, VIEW), mode="bicubic", align_corners=True)

    def _warped(self, faces: Tensor, n: int) -> Tensor:
        """Views of faces drawn by lot, each turned, moved and elastically bent a little, mirrored half the time."""
        rows = torch.randint(len(faces), (n,), device=faces.device)
        grid = self._grid(n, VIEW, FIRST, VIEW)
        where = _turned(grid, self._normal(n) * 0.045, self._normal(n) * 0.035, self._normal(n, 2) * 1.2)
        amount = 2.6 * (self._uniform(n, 1, 1, 1) < 0.6) * self._uniform(n, 1, 1, 1)
        where = where + (self._cloud(n, 5, 1.0, 2) * amount).permute(0, 2, 3, 1)
        x = torch.where((self._uniform(n) < 0.5)[:, None, None], SIDE - 1 - where[..., 0], where[..., 0])
        where = torch.stack([x, where[..., 1]], -1)
        return _sampled(faces[rows].permute(0, 3, 1, 2).float(), where, -(CANVAS - SIDE) / 2, CANVAS)

    def _coloured(self, x: Tensor) -> Tensor:
        n = len(x)
        x = (x - 110) * torch.exp(self._normal(n, 1, 1, 1) * 0.12 + self._normal(n, 3, 1, 1) * 0.05) + 110
        x = x + self._normal(n, 1, 1, 1) * 12
        light = (x * self._ycc[0][None, :, None, None]).sum(1, keepdim=True)
        return torch.where(self._uniform(n, 1, 1, 1) < 0.08, light.expand_as(x), x).clamp(0, 255)

    def _small(self, x: Tensor) -> Tensor:
        side = int(self._rng.integers(22, 90))
        tiny = functional.interpolate(x, size=(side, side), mode="area")
        mode = "bicubic" if self._rng.random() < 0.5 else "bilinear"
        return functional.interpolate(tiny, size=(VIEW, VIEW), mode=mode, align_corners=False).clamp(0, 255)

    def _soft(self, x: Tensor) -> Tensor:
        """Out of focus, or moved."""
        if self._rng.random() < 0.5:
            t = np.arange(-6, 7)
            line = np.exp(-t * t / (2 * self._rng.uniform(0.5, 2.2) ** 2))
            kernel = line[:, None] * line[None]
        else:
            kernel = np.zeros((13, 13))
            angle, length = self._rng.uniform(0, math.pi), self._rng.uniform(1.5, 5)
            for u in np.linspace(-length, length, 41):
                kernel[round(6 + math.sin(angle) * u), round(6 + math.cos(angle) * u)] += 1
        weights = torch.from_numpy(kernel / kernel.sum()).to(self._where, x.dtype)[None, None].expand(3, 1, -1, -1)
        return functional.conv2d(functional.pad(x, (6, 6, 6, 6), mode="replicate"), weights, groups=3)

    def _dim_and_hidden(self, x: Tensor, bad: Tensor) -> Tensor:
        n = len(x)

        def some(share: float) -> Tensor:
            return (self._uniform(n, 1, 1, 1) < share) & bad

        dark = x * (0.25 + 0.55 * self._uniform(n, 1, 1, 1)) + 25 * self._uniform(n, 1, 1, 1)
        x = torch.where(some(0.25), dark, x)
        angle = self._uniform(n, 1, 1) * 2 * math.pi
        across = torch.cos(angle) * (self._column - 56) + torch.sin(angle) * (self._row - 56)
        ramp = across / 64 * (0.2 + 0.4 * self._uniform(n, 1, 1))
        x = torch.where(some(0.25), x * (1 + ramp[:, None]), x)
        x = torch.where(some(0.3), self._hidden(x), x)
        strength = torch.where(some(0.4), torch.exp(self._uniform(n, 1, 1, 1) * 2.6 - 0.4), 0.0)
        x = (x + strength * torch.randn_like(x)).clamp(0, 255)
        return torch.where(some(0.5), self._compressed(x, 12 + self._uniform(n) * 65), x)

    def _hidden(self, x: Tensor) -> Tensor:
        """A patch, a mask, a hat, dark glasses or rims, where they would sit."""
        n = len(x)
        kind, colour = self._uniform(n), self._uniform(n, 3, 1, 1) * 255

        def drawn(low: float, spread: float) -> Tensor:
            return (low + self._uniform(n) * spread)[:, None, None]

        patch = (self._column - drawn(0, 112)).abs() < drawn(7, 17)
        patch &= (self._row - drawn(0, 112)).abs() < drawn(7, 17)
        mask = self._row > (64 + self._normal(n) * 4)[:, None, None] + (self._column - 56).abs() * 0.12
        hat = self._row < (38 + self._normal(n) * 4)[:, None, None]
        dark, rims = self._spectacles(n, drawn)
        shapes = torch.stack([patch, mask, hat, dark, rims])
        chosen = torch.bucketize(kind, torch.tensor([0.3, 0.5, 0.6, 0.8], device=self._where))
        shape = shapes[chosen, torch.arange(n, device=self._where)]
        colour = torch.where((kind >= 0.6)[:, None, None, None], colour * 0.35, colour)
        return torch.where(shape[:, None], colour.expand_as(x), x)

    def _spectacles(self, n: int, drawn: Callable[[float, float], Tensor]) -> tuple[Tensor, Tensor]:
        wide, high = drawn(10, 5), drawn(6, 5)
        level = (51.6 + self._normal(n) * 1.5)[:, None, None]
        right, left = (((self._column - x) / wide) ** 2 + ((self._row - level) / high) ** 2 for x in (38.3, 73.5))
        bridge, off = (self._row - level).abs() < 1.2, (self._column - 56).abs()
        dark = (right < 1) | (left < 1) | (bridge & (off < 20))
        return dark, ((right - 1).abs() < 0.28) | ((left - 1).abs() < 0.28) | (bridge & (off < 8))

    def _compressed(self, x: Tensor, quality: Tensor) -> Tensor:
        """As JPEG loses it: colour halved, 8 x 8 blocks rounded in the frequencies."""
        n, _, h, w = x.shape
        y = torch.einsum("ij,njhw->nihw", self._ycc, x)
        chroma = functional.interpolate(functional.avg_pool2d(y[:, 1:], 2), scale_factor=2.0, mode="nearest")
        blocks = torch.cat([y[:, :1] - 128, chroma], 1).reshape(n, 3, h // 8, 8, w // 8, 8)
        found = torch.einsum("ux,ncaxby,vy->ncaubv", self._dct, blocks, self._dct)
        scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
        step = (self._steps[None, :, None, :, None, :] * scale[:, None, None, None, None, None]).clamp(1, 255)
        y = torch.einsum("ux,ncaubv,vy->ncaxby", self._dct, torch.round(found / step) * step, self._dct)
        y = y.reshape(n, 3, h, w)
        y = torch.cat([y[:, :1] + 128, y[:, 1:]], 1)
        return torch.einsum("ij,njhw->nihw", self._rgb, y).clamp(0, 255)


def normalised(pixels: Tensor) -> Tensor:
    """0 to 255, as the student reads it."""
    return (pixels - 127.5) / 128


def middle(pixels: Tensor) -> Tensor:
    """The 112 x 112 middle of (n, 3, side, side)."""
    edge = (pixels.shape[2] - SIDE) // 2
    return pixels[:, :, edge : edge + SIDE, edge : edge + SIDE].contiguous(memory_format=torch.channels_last)


def _by_chunks(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([change(part) for part in x.chunk(_CHUNKS)])


def _turned(where: Tensor, angle: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    centre = torch.tensor([56.0, 64.0], device=where.device)
    scale = torch.exp(log_scale)
    c, s = (torch.cos(angle) * scale)[:, None, None], (torch.sin(angle) * scale)[:, None, None]
    d = where - centre
    turned = torch.stack([c * d[..., 0] - s * d[..., 1], s * d[..., 0] + c * d[..., 1]], -1)
    return turned + centre + shift[:, None, None]


def _sampled(images: Tensor, where: Tensor, origin: float, size: int) -> Tensor:
    grid = (where - origin + 0.5) * (2 / size) - 1
    return functional.grid_sample(images, grid, "bilinear", "border", align_corners=False)


def _cosines() -> Tensor:
    rows = [
        [math.sqrt((1 if u == 0 else 2) / 8) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8)]
        for u in range(8)
    ]
    return torch.tensor(rows)
