"""Whether any of many short byte strings stands in a file. Exact; one pass over the file, however many there are.

appliance/attest/search.py finds long needles faster; reference identifiers may be as short as LEAST bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

LEAST = 8  # bytes; a shorter string stands in any megabyte of noise by chance
_PART = 1 << 22
_MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits: spreads words over the table
_BITS = 20
Words = npt.NDArray[np.uint64]


class Telltales:
    """Strings of at least LEAST bytes that must not stand in a file. Raises ValueError for a shorter one."""

    def __init__(self, strings: Iterable[bytes]) -> None:
        self._strings = sorted(set(strings))
        if any(len(string) < LEAST for string in self._strings):
            raise ValueError(f"a string of fewer than {LEAST} bytes stands anywhere by chance")
        self._longest = max(map(len, self._strings), default=0)
        self._heads: Words = np.unique(np.frombuffer(b"".join(s[:LEAST] for s in self._strings), "<u8"))
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[_place(self._heads)] = True

    def stand_in(self, path: Path) -> bool:
        """Whether one does. Read in parts, not mapped: a service may shorten the file, or remove it, meanwhile."""
        tail = b""
        with suppress(FileNotFoundError), path.open("rb") as file:
            while self._strings and (part := file.read(_PART)):
                if self._in(tail + part):
                    return True
                tail = (tail + part)[-self._longest :]
        return False

    def _in(self, blob: bytes) -> bool:
        for start in range(LEAST):
            words = np.frombuffer(blob, "<u8", count=max(0, len(blob) - start) // LEAST, offset=min(start, len(blob)))
            maybe = np.flatnonzero(self._table[_place(words)])
            for index in maybe[np.isin(words[maybe], self._heads)]:
                at = start + int(index) * LEAST
                if any(blob.startswith(string, at) for string in self._of(blob[at : at + LEAST])):
                    return True
        return False

    def _of(self, head: bytes) -> list[bytes]:
        return [string for string in self._strings if string.startswith(head)]


def _place(words: Words) -> Words:
    places: Words = (words * _MIX) >> np.uint64(64 - _BITS)
    return places
