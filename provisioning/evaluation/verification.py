"""Verification: every pair of stills once (or the pairs of a file), streamed in blocks into histograms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.errors import ConfigError
from appliance.records import Floats
from provisioning.evaluation import intervals
from provisioning.evaluation.intervals import Share
from provisioning.evaluation.statistics import Histogram

BLOCK = 1024  # 4 MB of scores: they are counted while the processor's cache still holds them
Numbers = npt.NDArray[np.int64]


@dataclass
class Verification:
    """Scores of mated and of non-mated comparisons."""

    mated: Histogram = field(default_factory=Histogram)
    non_mated: Histogram = field(default_factory=Histogram)

    def fmr(self, threshold: float) -> Share:
        """False match rate with its Clopper-Pearson interval. Comparisons share stills: it is narrower than true."""
        return _exact(self.non_mated, threshold)

    def fnmr(self, threshold: float) -> Share:
        """False non-match rate with its Clopper-Pearson interval."""
        matched = _exact(self.mated, threshold)
        return Share(
            1 - matched.value, 1 - matched.high, 1 - matched.low, matched.trials - matched.events, matched.trials
        )


def all_pairs(templates: Floats, identities: Numbers, distractors: npt.NDArray[np.bool_] | None = None) -> Verification:
    """Compare every pair of rows of `templates` (n, length) once. Pairs of two distractors are left out.

    Memory does not grow with the number of pairs.
    """
    result = Verification()
    for rows, columns in _tiles(len(templates)):
        scores = templates[rows] @ templates[columns].T
        counted = np.ones(scores.shape, bool) if rows != columns else np.triu(np.ones(scores.shape, bool), 1)
        if distractors is not None and distractors[rows].any():
            counted &= ~(distractors[rows][:, None] & distractors[columns])
        same = identities[rows][:, None] == identities[columns]
        _count(result, scores, same, counted)
    return result


def pairs(templates: Floats, left: Numbers, right: Numbers, mated: npt.NDArray[np.bool_]) -> Verification:
    """Compare the rows that a pairs file names: (n,) left, right, and whether the two are of one identity."""
    result = Verification()
    for start in range(0, len(left), 65_536):
        part = slice(start, start + 65_536)
        scores = np.einsum("ij,ij->i", templates[left[part]], templates[right[part]])
        result.mated.add(scores[mated[part]])
        result.non_mated.add(scores[~mated[part]])
    return result


def read_pairs(file: Path, images: list[Path]) -> tuple[Numbers, Numbers, npt.NDArray[np.bool_]]:
    """A pairs file: image, image, 1 or 0 for mated or not, by commas. Raises ConfigError naming the line."""
    rows = {image.name: i for i, image in enumerate(images)}
    found: list[tuple[int, int, bool]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or (number == 1 and not line.rstrip().endswith(("0", "1"))):
            continue
        cells = [c.strip() for c in line.split(",")]
        if len(cells) != 3 or cells[2] not in ("0", "1") or cells[0] not in rows or cells[1] not in rows:
            raise ConfigError(f"{file}, line {number}: needs two images of the data set and 1 (mated) or 0")
        found.append((rows[cells[0]], rows[cells[1]], cells[2] == "1"))
    if not found:
        raise ConfigError(f"{file}: no pairs in it; each line is image,image,1 or 0")
    left, right, mated = zip(*found, strict=True)
    return np.array(left, np.int64), np.array(right, np.int64), np.array(mated, bool)


def _tiles(count: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, count, BLOCK):
        for column in range(row, count, BLOCK):
            yield slice(row, min(row + BLOCK, count)), slice(column, min(column + BLOCK, count))


def _count(result: Verification, scores: Floats, same: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]) -> None:
    """Mated pairs are few: count all that count, then take the mated ones out again."""
    mated = scores[same & counted]
    result.mated.add(mated)
    everything, few = Histogram(), Histogram()
    everything.add(scores if counted.all() else scores[counted])
    few.add(mated)
    result.non_mated.counts += everything.counts - few.counts


def _exact(histogram: Histogram, threshold: float) -> Share:
    total = histogram.total
    return intervals.clopper_pearson(round(histogram.share_at(threshold) * total), total)
