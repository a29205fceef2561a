"""Aligned chips to templates of unit length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appliance.recognition.packs import Pack, TemplatePart
from appliance.recognition.runtime import open_session, tensor_of
from appliance.records import Floats, Image


class Embedder:
    """An embedder pack, opened. Not thread-safe: one for each thread."""

    def __init__(self, pack: Pack, threads: int = 1) -> None:
        part = pack.embedder
        self._pack = pack
        self._session = open_session(pack, pack.manifest.files[0], threads)
        self.width, self.height, self.length = part.width, part.height, part.length
        self.landmarks: Floats = np.asarray(part.landmarks, np.float32)
        self._parts, self._mirror = part.parts, part.mirror

    def embed(self, chips: Image) -> Floats:
        """(n, height, width, 3) uint8 BGR chips to (n, length) float32 templates of unit length."""
        if not len(chips):
            return np.empty((0, self.length), np.float32)
        templates = self._templates(chips)
        return unit(templates + self._templates(chips[:, :, ::-1])) if self._mirror else templates

    def _templates(self, chips: Image) -> Floats:
        # One at a time: the exported files have a fixed batch of one, as an Edge TPU needs.
        raw = np.stack([self._session.run(tensor_of(self._pack, c[None]))[0].reshape(-1) for c in chips])
        return unit(_weighted(raw, self._parts))


def _weighted(raw: Floats, parts: Sequence[TemplatePart]) -> Floats:
    """Each part to unit length times the root of its weight: the cosine of two templates is the weighted sum."""
    if not parts:
        return raw
    ends = np.cumsum([p.length for p in parts])
    pieces = np.split(raw, ends[:-1], axis=1)
    return np.concatenate([unit(x) * np.float32(p.weight**0.5) for x, p in zip(pieces, parts, strict=True)], axis=1)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length one; a row of zeros stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)
