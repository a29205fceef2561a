"""Aligned chips to templates of unit length."""

from __future__ import annotations

import numpy as np

from appliance.packs import Pack
from appliance.records import Floats, Image
from appliance.runtime import open_session, tensor_of


class Embedder:
    """An embedder pack, opened. Not thread-safe: one for each thread."""

    def __init__(self, pack: Pack, threads: int = 1) -> None:
        part = pack.embedder
        self._pack = pack
        self._session = open_session(pack, pack.manifest.files[0], threads)
        self.width, self.height, self.length = part.width, part.height, part.length
        self.landmarks: Floats = np.asarray(part.landmarks, np.float32)

    def embed(self, chips: Image) -> Floats:
        """(n, height, width, 3) uint8 BGR chips to (n, length) float32 templates of unit length."""
        if not len(chips):
            return np.empty((0, self.length), np.float32)
        # One at a time: the exported files have a fixed batch of one, as an Edge TPU needs.
        raw = np.stack([self._session.run(tensor_of(self._pack, c[None]))[0].reshape(-1) for c in chips])
        return unit(raw)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length one; a row of zeros stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)
