"""The calibration record: what a comparison score is worth with one embedder pack. No threshold stands in code.

It is measured by `bluelamp-provision evaluate calibrate`, lies beside the pack and names both packs by digest: a
record of other models is refused.
"""

from __future__ import annotations

import hashlib
import io
import math
from bisect import bisect_left
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from appliance.errors import PackError
from appliance.limits import LIMITS
from appliance.recognition.normalise import unit
from appliance.recognition.packs import Pack
from appliance.records import Floats, Record

Digest = r"^[0-9a-f]{64}$"
REMEASURE = "measure it again with: bluelamp-provision evaluate calibrate, then install the candidate it writes"


class FalseMatch(Record):
    """Share of comparisons of two different identities' stills that score `score` or more, with 95 % limits.

    `upper` is the upper limit (the rule of three where none did); `extrapolated` marks a point beyond the data.
    """

    score: FiniteFloat
    fmr: float = Field(ge=0, le=1)
    upper: float = Field(ge=0, le=1)
    extrapolated: bool


class Operating(Record):
    """The threshold at which a list of `size` references gives a false-positive identification rate of `fpir`.

    `tpir` is the share of mated probes that reach it with their own reference first, `low` and `high` its 95 %
    limits. `extrapolated` marks a threshold that too few false positives support: a fitted tail gives it.
    """

    size: int = Field(ge=1)
    fpir: float = Field(gt=0, le=1)
    threshold: FiniteFloat
    tpir: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    extrapolated: bool


class Normalisation(Record):
    """How a plain cosine becomes the comparison score that `thresholds` and `floor` are of.

    `none`: it is the cosine. `cohort`: a reference that scores high against everybody must be scored higher: its
    threshold is raised by `reference_weight` times what its level is above `usual`
    (appliance.recognition.normalise). Levels are measured against the templates of `cohort`, a file beside the record,
    pinned by its digest.
    """

    kind: Literal["none", "cohort"] = "none"
    reference_weight: FiniteFloat = Field(default=0.0, ge=0)
    nearest: int = Field(default=0, ge=0)
    usual: FiniteFloat = 0.0
    cohort: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    cohort_sha256: str | None = Field(default=None, pattern=Digest)

    @model_validator(mode="after")
    def _cohort_is_named(self) -> Normalisation:
        if self.kind == "cohort" and (self.cohort is None or self.cohort_sha256 is None or self.nearest < 1):
            raise ValueError("cohort normalisation names its cohort's file and digest, and how many of it are nearest")
        return self


class Likelihood(Record):
    """A score as evidence: log10 of the likelihood ratio is `slope` times the score plus `offset`, within bounds.

    The ratio says how much more usual a score is for two stills of one identity than for stills of two. It is not the
    probability that they are of one identity, and no alert is decided by it. Beyond `least` and `greatest` the
    comparisons it was fitted on are too few to support more (the rule of three).
    """

    slope: FiniteFloat = Field(gt=0)
    offset: FiniteFloat
    least: FiniteFloat = Field(lt=0)
    greatest: FiniteFloat = Field(gt=0)

    def log_ratio(self, score: float) -> float:
        """log10 of the likelihood ratio of a comparison score."""
        return min(max(self.slope * score + self.offset, self.least), self.greatest)


class Calibration(Record):
    """One embedder pack's record, with the detector pack that made the chips.

    `thresholds` and `floor` are of scores as `normalisation` says; `false_matches` and `likelihood` are of plain
    cosines, which is what an alert states.
    """

    format: Literal[1]
    embedder: str = Field(pattern=Digest)
    detector: str = Field(pattern=Digest)
    made: FiniteFloat  # UTC seconds
    data: str = Field(max_length=4000)
    data_sha256: str = Field(pattern=Digest)
    normalisation: Normalisation = Normalisation()
    floor: FiniteFloat  # no order may set a threshold below this one
    false_matches: tuple[FalseMatch, ...] = Field(min_length=2, max_length=4000)
    thresholds: tuple[Operating, ...] = Field(min_length=1, max_length=4000)
    likelihood: Likelihood | None = None  # absent from records made before it was measured

    @model_validator(mode="after")
    def _monotonic(self) -> Calibration:
        rates = [(f.score, f.fmr) for f in self.false_matches]
        if any(b[0] <= a[0] or b[1] > a[1] for a, b in pairwise(rates)):
            raise ValueError("false_matches must rise in score and never rise in rate")
        for size, rows in self._lists.items():
            if any(b.fpir >= a.fpir or b.threshold < a.threshold for a, b in pairwise(rows)):
                raise ValueError(f"thresholds of size {size} must rise as the rate falls")
        for short, long in pairwise(self._lists.values()):
            at = {row.fpir: row.threshold for row in short}
            if any(row.threshold < at.get(row.fpir, row.threshold) for row in long):
                raise ValueError(f"thresholds must not fall from size {short[0].size} to size {long[0].size}")
        return self

    def operating(self, size: int, fpir: float) -> Operating:
        """The operating point for a list of `size` references and a wanted rate.

        Between measured sizes and rates it is interpolated on logarithmic axes. A longer list than any measured is
        given the threshold at which the union bound holds (the rate of the longest, scaled by the length, which is
        never too low), and is marked extrapolated. A shorter one than any measured is treated as the shortest.
        Raises PackError for a rate below the record's least.
        """
        if size < 1 or not 0 < fpir <= 1:
            raise PackError(f"no threshold for {size} references at a rate of {fpir:g}: the one must be positive, "
                            "the other above 0 and at most 1")  # fmt: skip
        sizes = list(self._lists)
        if size > sizes[-1]:
            row = self._at(sizes[-1], fpir * sizes[-1] / size)
            return row.model_copy(update={"size": size, "fpir": fpir, "extrapolated": True})
        place = bisect_left(sizes, size)
        if size <= sizes[0] or sizes[place] == size:
            return self._at(sizes[place], fpir).model_copy(update={"size": size})
        below, above = self._at(sizes[place - 1], fpir), self._at(sizes[place], fpir)
        return _between(below, above, _share(math.log(size), math.log(below.size), math.log(above.size)), size, fpir)

    def threshold_for(self, size: int, fpir: float) -> float:
        """The least threshold at which `size` references keep the rate `fpir`, never below the floor."""
        return max(self.operating(size, fpir).threshold, self.floor)

    def fpir_at(self, size: int, threshold: float) -> float:
        """The false-positive identification rate of `size` references at `threshold`: 0 to 1.

        A threshold above the highest on record gives that one's rate: an upper limit.
        """
        sizes = list(self._lists)
        if size > sizes[-1]:
            return min(1.0, self._rate(sizes[-1], threshold) * size / sizes[-1])
        place = bisect_left(sizes, size)
        if size <= sizes[0] or sizes[place] == size:
            return self._rate(sizes[place], threshold)
        return self._between_sizes(sizes[place - 1], sizes[place], size, threshold)

    def fmr_at(self, threshold: float) -> float:
        """The false match rate of one comparison at `threshold`; above the table, the table's least."""
        table = self.false_matches
        scores = [f.score for f in table]
        place = bisect_left(scores, threshold)
        if place == 0:
            return table[0].fmr
        if place == len(table):
            return table[-1].fmr
        a, b = table[place - 1], table[place]
        return _log_mix(a.fmr, b.fmr, _share(threshold, a.score, b.score))

    @cached_property
    def _lists(self) -> dict[int, list[Operating]]:
        """Rows of each size, sizes rising, rates falling."""
        ordered = sorted(self.thresholds, key=lambda o: (o.size, -o.fpir))
        return {o.size: [row for row in ordered if row.size == o.size] for o in ordered}

    def _at(self, size: int, fpir: float) -> Operating:
        rows = self._lists[size]
        if fpir >= rows[0].fpir:
            return rows[0]
        for above, below in pairwise(rows):
            if fpir >= below.fpir:
                share = _share(math.log(fpir), math.log(above.fpir), math.log(below.fpir))
                return _between(above, below, share, size, fpir)
        if math.isclose(fpir, rows[-1].fpir):
            return rows[-1]
        raise PackError(
            f"the calibration knows no rate below {rows[-1].fpir:.2g} for {size} references, {fpir:.2g} was asked "
            f"for; allow a higher rate or {REMEASURE}"
        )

    def _rate(self, size: int, threshold: float) -> float:
        rows = self._lists[size]
        if threshold < rows[0].threshold:
            return 1.0
        for above, below in pairwise(rows):
            if threshold < below.threshold:
                return _log_mix(above.fpir, below.fpir, _share(threshold, above.threshold, below.threshold))
        return rows[-1].fpir

    def _between_sizes(self, small: int, large: int, size: int, threshold: float) -> float:
        """The rate at which `operating` would give `threshold`: bisection on the same interpolation."""
        low, high = math.log(self._least(small, large)), 0.0
        if threshold < self.operating(size, 1.0).threshold:
            return 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self.operating(size, math.exp(middle)).threshold > threshold else (low, middle)
            )
        return math.exp(high)

    def _least(self, *sizes: int) -> float:
        return max(self._lists[size][-1].fpir for size in sizes)


def load_cohort(pack: Pack, record: Calibration) -> Floats | None:
    """The cohort's templates (n, length), unit length; None where the record does not normalise. Raises PackError."""
    rule = record.normalisation
    if rule.kind == "none" or rule.cohort is None:
        return None
    path = pack.folder / rule.cohort
    try:
        with path.open("rb") as file:
            blob = file.read(LIMITS.calibration_bytes + 1)
    except OSError as error:
        raise PackError(f"{path}: the calibration's cohort is missing ({error.strerror}); {REMEASURE}") from error
    if len(blob) > LIMITS.calibration_bytes or hashlib.sha256(blob).hexdigest() != rule.cohort_sha256:
        raise PackError(f"{path}: not the cohort that the calibration was measured with; {REMEASURE}")
    return cohort_templates(blob, pack, str(path))


def cohort_templates(blob: bytes, pack: Pack, name: str) -> Floats:
    """The rows of a cohort's file, unit length (n, length). Raises PackError where it is another pack's, or none."""
    try:
        rows = np.load(io.BytesIO(blob), allow_pickle=False)
    except ValueError as error:
        raise PackError(f"{name}: not a NumPy array of templates; {REMEASURE}") from error
    if rows.ndim != 2 or rows.shape[1] != pack.embedder.length or not np.isfinite(rows).all() or not len(rows):
        raise PackError(f"{name}: not templates of {pack.embedder.length} numbers; {REMEASURE}")
    return unit(rows.astype(np.float32))


def load(pack: Pack) -> Calibration:
    """The record beside an embedder pack. Raises PackError when it is missing, malformed or of another pack."""
    name = pack.manifest.calibration
    if name is None:
        raise PackError(f"{pack.folder}: the pack names no calibration, so no threshold is known for it; {REMEASURE}")
    return read(pack.folder / name, pack)


def read(path: Path, pack: Pack) -> Calibration:
    """A record of this embedder pack, wherever it lies. Raises PackError when it is missing, malformed or another's."""
    try:
        with path.open("rb") as file:
            text = file.read(LIMITS.calibration_bytes + 1)
    except OSError as error:
        raise PackError(f"{path}: no calibration for this pack ({error.strerror}); {REMEASURE}") from error
    if len(text) > LIMITS.calibration_bytes:
        raise PackError(f"{path}: larger than {LIMITS.calibration_bytes} bytes; this is not a calibration")
    try:
        record = Calibration.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"]) or "record"
        raise PackError(f"{path}: {place}: {first['msg']}; {REMEASURE}") from error
    if record.embedder != pack.digest:
        raise PackError(
            f"{path}: measured with another pack ({record.embedder[:12]}..., this one is {pack.digest[:12]}...); "
            + REMEASURE
        )
    return record


def _between(a: Operating, b: Operating, share: float, size: int, fpir: float) -> Operating:
    def mix(x: float, y: float) -> float:
        return x + (y - x) * share

    return Operating(
        size=size,
        fpir=fpir,
        threshold=mix(a.threshold, b.threshold),
        tpir=mix(a.tpir, b.tpir),
        low=mix(a.low, b.low),
        high=mix(a.high, b.high),
        extrapolated=a.extrapolated or b.extrapolated,
    )


def _share(x: float, a: float, b: float) -> float:
    return 0.0 if a == b else min(max((x - a) / (b - a), 0.0), 1.0)


def _log_mix(a: float, b: float, share: float) -> float:
    if a <= 0 or b <= 0:
        return a if share < 1 else b
    return math.exp(math.log(a) + (math.log(b) - math.log(a)) * share)
