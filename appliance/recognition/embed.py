"""Aligned chips to templates of unit length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from appliance.recognition.normalise import unit as unit  # whoever embeds needs it too
from appliance.recognition.packs import Pack, TemplatePart
from appliance.recognition.runtime import open_session, tensor_of
from appliance.records import Floats, Image


class Embedder:
    """An embedder pack, opened. Not thread-safe: one for each thread."""

    def __init__(self, pack: Pack, threads: int = 1) -> None:
        part = pack.embedder
        self._pack = pack
        self.width, self.height, self.length = part.width, part.height, part.length
        self.landmarks: Floats = np.asarray(part.landmarks, np.float32)
        self._parts, self._mirror = part.parts, part.mirror
        self._looks = _looks(part.parts)
        files = {file.path: file for file in pack.manifest.files}
        first = pack.manifest.files[0]
        wanted = dict.fromkeys(look.file for look in self._looks)
        self._sessions = {name: open_session(pack, files.get(name or "", first), threads) for name in wanted}

    def embed(self, chips: Image) -> Floats:
        """(n, height, width, 3) uint8 BGR chips to (n, length) float32 templates of unit length."""
        if not len(chips):
            return np.empty((0, self.length), np.float32)
        templates = self._templates(chips)
        return unit(templates + self._templates(chips[:, :, ::-1])) if self._mirror else templates

    def _templates(self, chips: Image) -> Floats:
        raw = np.concatenate([self._raw(look, chips) for look in self._looks], axis=1)
        return unit(_weighted(raw, [part for look in self._looks for part in look.parts]))

    def _raw(self, look: Look, chips: Image) -> Floats:
        # One at a time: the exported files have a fixed batch of one, as an Edge TPU needs.
        session = self._sessions[look.file]
        seen = chips[:, :, ::-1] if look.mirror else chips
        return np.stack([session.run(tensor_of(self._pack, chip[None]))[0].reshape(-1) for chip in seen])


@dataclass(frozen=True)
class Look:
    """One network's look at a chip, and the parts of the template that it gives; `file` is None for the first file."""

    file: str | None
    mirror: bool
    parts: tuple[TemplatePart, ...]


def _looks(parts: Sequence[TemplatePart]) -> list[Look]:
    """Parts that follow each other from one file and one side of the chip are one look."""
    grouped = groupby(parts, key=lambda part: (part.file, part.mirror))
    return [Look(file, mirror, tuple(group)) for (file, mirror), group in grouped] or [Look(None, False, ())]


def _weighted(raw: Floats, parts: Sequence[TemplatePart]) -> Floats:
    """Each part to unit length times the root of its weight: the cosine of two templates is the weighted sum."""
    if not parts:
        return raw
    ends = np.cumsum([p.length for p in parts])
    pieces = np.split(raw, ends[:-1], axis=1)
    return np.concatenate([unit(x) * np.float32(p.weight**0.5) for x, p in zip(pieces, parts, strict=True)], axis=1)
