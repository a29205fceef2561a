"""The whole test in one run: templates, verification, identification, groups, conditions, gains, calibration."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.recognition import normalise
from appliance.recognition.calibration import Calibration, Normalisation
from appliance.recognition.packs import Pack
from appliance.records import Floats
from provisioning.evaluation import calibrate, cohort, gains, groups, likelihood, population, rerender, verification
from provisioning.evaluation.cohort import Cohort
from provisioning.evaluation.dataset import Dataset, Still, fold
from provisioning.evaluation.embeddings import CACHE, Templates, embed
from provisioning.evaluation.gains import Gain
from provisioning.evaluation.groups import Group, Labelled
from provisioning.evaluation.identification import Trials, best
from provisioning.evaluation.intervals import Share, clopper_pearson
from provisioning.evaluation.population import Population
from provisioning.evaluation.verification import Verification

SIZES, RATES = calibrate.SIZES, (1e-2, 1e-3, 1 / 6000)
GROUP_SIZE, GROUP_RATE = 1000, 1e-3  # the operating point at which groups are compared
NEAREST = 1  # of the fixed cohort: its rows are means of many people, so that one is enough
USUAL_SHARE = 0.1  # of references whose thresholds the cohort leaves where they are; all others' it raises
NEAREST_STILLS = 5  # of a cohort of single stills
MOST_LOST = 0.02  # of TPIR that the fixed cohort may cost
EVENED = (0.03, 0.01)  # rates at which cohort normalisation is shown on labelled adults: hundreds of them, no less
COHORT_PART = 3  # of five parts of the labelled identities, this one and the next are the cohort
ATTRIBUTES: dict[str, Callable[[Still], str | None]] = {
    "sex": lambda s: s.sex,
    "age": lambda s: s.band,
    "ethnicity": lambda s: s.ethnicity,
    "ethnicity and sex": lambda s: f"{s.ethnicity}, {s.sex}" if s.ethnicity and s.sex else None,
}


@dataclass(frozen=True)
class Point:
    """Identification at one size and wanted FPIR."""

    size: int
    fpir: float
    threshold: float
    extrapolated: bool
    measured: Share | None  # FPIR at the threshold; None where the list is longer than the pool
    tpir: Share


@dataclass(frozen=True)
class Levelled:
    """Groups at one false match rate over all of them: by plain cosines, and with cohort normalisation."""

    rate: float
    threshold: float
    moved_threshold: float
    plain: list[Group]
    moved: list[Group]

    @property
    def narrower(self) -> bool:
        """Whether the greatest ratio of FMR over an attribute's best group is smaller with normalisation."""
        before, after = (groups.greatest_ratio(found) for found in (self.plain, self.moved))
        return before is not None and after is not None and after.fmr_ratio[0] < before.fmr_ratio[0]


class Evaluation:
    """One pair of packs on one data set; every figure is computed when it is first asked for."""

    def __init__(
        self,
        dataset: Dataset,
        detector: Pack,
        embedder: Pack,
        cache: Path = CACHE,
        threads: int = 1,
        mirror: bool = False,
        record: Calibration | None = None,
    ) -> None:
        """`mirror` also measures what averaging with the mirror image gains, at twice the embedder's time.

        With a `record`, groups are measured at its threshold and by its normalisation, not at what this data set gives:
        for a data set that could not calibrate, such as one with a single still of everybody.
        """
        self.record = record
        self.dataset, self.detector, self.embedder = dataset, detector, embedder
        self._cache, self._threads, self._mirror = cache, threads, mirror
        self.made = time.time()

    @cached_property
    def templates(self) -> Templates:
        """Templates of every still, from the cache where they are there."""
        return self._embedded(self.dataset, self._mirror)

    def _embedded(self, dataset: Dataset, mirror: bool = False) -> Templates:
        return embed(dataset, self.detector, self.embedder, self._cache, self._threads, mirror)

    @cached_property
    def population(self) -> Population:
        """One reference still an identity, all others probes."""
        return population.choose(self.dataset, self.templates.found)

    @cached_property
    def cohort(self) -> Cohort | None:
        """The fixed cohort beside the embedder pack; None where there is none."""
        return cohort.found(self.embedder)

    @cached_property
    def plain_trials(self) -> Trials:
        """Every probe among every reference, each of one still, by plain cosines."""
        return self.population.search(self.templates)

    @cached_property
    def moved_trials(self) -> Trials | None:
        """The same with the fixed cohort; None without one."""
        rule = self._rule
        if rule is None or self.cohort is None:
            return None
        references = self.population.reference_templates(self.templates)
        probes = self.templates.plain[self.population.probes]
        return self.population.among(references, probes, -self.cohort.raised(references, rule))

    @cached_property
    def _rule(self) -> Normalisation | None:
        if self.cohort is None:
            return None
        if self.record is not None:
            return self.record.normalisation if self.record.normalisation.kind == "cohort" else None
        return self.cohort.rule(self.population.reference_templates(self.templates), NEAREST, USUAL_SHARE)

    @cached_property
    def normalisation(self) -> Normalisation:
        """By the fixed cohort where it makes groups more alike at a cost of TPIR that is small; else none."""
        if self.record is not None:
            return self.record.normalisation
        shown, moved = self.levelled, self.moved_trials
        if self._rule is None or moved is None or shown is None or not shown.narrower:
            return Normalisation()
        before, after = (
            t.tpir(calibrate.point(t, GROUP_SIZE, GROUP_RATE)[0], min(GROUP_SIZE, t.pool)).value
            for t in (self.plain_trials, moved)
        )
        return self._rule if after >= before - MOST_LOST else Normalisation()

    @cached_property
    def trials(self) -> Trials:
        """What the calibration is made of: with the fixed cohort where it is used, else by plain cosines."""
        moved = self.moved_trials
        return self.plain_trials if self.normalisation.kind == "none" or moved is None else moved

    @cached_property
    def verification(self) -> Verification:
        """All pairs of stills, but of two distractors, whose identities nobody vouches for."""
        rows = self.templates.found
        return verification.all_pairs(
            self.templates.plain[rows], self.dataset.identities[rows], self.dataset.distractors[rows]
        )

    @cached_property
    def evidence(self) -> likelihood.Shown | None:
        """What log-likelihood ratios are worth, each part of the identities judged by a line fitted on the others."""
        rows, parts = self.templates.found, np.array([fold(s.identity, likelihood.FOLDS) for s in self.dataset.stills])
        return likelihood.crossed(
            self.templates.plain[rows], self.dataset.identities[rows], self.dataset.distractors[rows], parts[rows]
        )

    @cached_property
    def points(self) -> list[Point]:
        """Identification at every size and rate; nothing where no identity has two stills."""
        if np.isnan(self.trials.mated).all():
            return []
        return [self._point(size, rate) for size in SIZES for rate in RATES]

    def _point(self, size: int, rate: float) -> Point:
        threshold, extrapolated = calibrate.point(self.trials, size, rate)
        possible = size <= self.trials.pool
        return Point(
            size,
            rate,
            threshold,
            extrapolated,
            self.trials.fpir(threshold, size) if possible else None,
            self.trials.tpir(threshold, min(size, self.trials.pool)),
        )

    @cached_property
    def threshold(self) -> float:
        """The operating threshold that groups and conditions are compared at."""
        if self.record is not None:
            return self.record.threshold_for(GROUP_SIZE, GROUP_RATE)
        return calibrate.point(self.trials, GROUP_SIZE, GROUP_RATE)[0]

    @cached_property
    def failures(self) -> Share:
        """Share of stills in which no face was found: failure to acquire. They count as misses everywhere."""
        found = self.templates.found
        return clopper_pearson(int((~found).sum()), len(found))

    @cached_property
    def groups(self) -> list[Group]:
        """Rates by every label the data set has."""
        rows = self._with_labels & self.templates.found
        if rows.sum() < 2 * groups.LEAST:
            return []
        raise_by = None if self.normalisation.kind == "none" else self._fixed_shift
        found = _by_label(self.dataset.where(rows), self._labelled(rows, raise_by), self.threshold)
        return [replace(group, fta=self._missed(group)) for group in found]

    def _missed(self, group: Group) -> Share:
        """Failures to acquire among all stills of a label."""
        of = self.dataset.labels(ATTRIBUTES[group.attribute]) == group.label
        return clopper_pearson(int((of & ~self.templates.found).sum()), int(of.sum()))

    @cached_property
    def levelled(self) -> Levelled | None:
        """Groups of adults with and without cohort normalisation of the references, at one overall false match rate.

        By the fixed cohort; without one, by labelled adults of identities that take no part. None where too few.
        """
        inside, outside = self._adults
        if min(inside.sum(), outside.sum()) < 2 * groups.LEAST:
            return None
        stills = self.templates.plain[outside]
        shift = self._fixed_shift if self.cohort else (lambda references: _still_shift(references, stills))
        plain, moved = self._labelled(inside, None), self._labelled(inside, shift)
        plain_threshold = calibrate.point(self.plain_trials, GROUP_SIZE, GROUP_RATE)[0]
        rate = groups.comparisons(plain).share_at(plain_threshold)
        threshold = groups.comparisons(moved).threshold_at(rate)
        part = self.dataset.where(inside)
        return Levelled(
            rate, plain_threshold, threshold, _by_label(part, plain, plain_threshold), _by_label(part, moved, threshold)
        )

    def _fixed_shift(self, references: Floats) -> Floats:
        """What the fixed cohort adds to each reference's scores: nothing, or less than nothing."""
        if self.cohort is None or self._rule is None:
            return np.zeros(len(references), np.float32)
        return -self.cohort.raised(references, self._rule)

    @cached_property
    def _adults(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Labelled adults to show and, of other identities, for the cohort: no list may lightly hold children."""
        adult = np.array([s.age is not None and s.age >= population.ADULT for s in self.dataset.stills])
        parts = np.array([fold(s.identity) for s in self.dataset.stills])
        rows = self._with_labels & self.templates.found & adult
        return rows & (parts < COHORT_PART), rows & (parts >= COHORT_PART)

    @cached_property
    def _with_labels(self) -> npt.NDArray[np.bool_]:
        return np.array([bool(s.sex or s.ethnicity or s.age is not None) for s in self.dataset.stills])

    def _labelled(self, rows: npt.NDArray[np.bool_], shift_of: Callable[[Floats], Floats] | None) -> Labelled:
        part, plain = self.dataset.where(rows), self.templates.plain[rows]
        shift = np.zeros(len(plain), np.float32) if shift_of is None else shift_of(plain)
        probes, references = groups.moved(plain, plain, shift)
        mated = self._mated(part, plain, shift)
        return Labelled(probes, references, part.identities, mated, _alone(probes, references, part.identities))

    def _mated(self, part: Dataset, plain: Floats, shift: Floats) -> Floats:
        """A mated score for each labelled still: with another still of its identity, else with its second look."""
        order = np.argsort(part.identities, kind="stable")
        same = part.identities[order][1:] == part.identities[order][:-1]
        later, earlier = order[1:][same], order[:-1][same]
        scores = np.full(len(part.stills), np.nan, np.float32)
        scores[later] = np.einsum("ij,ij->i", plain[later], plain[earlier]) + shift[earlier]
        alone = np.isnan(scores) & ~np.isin(part.identities, part.identities[later])
        if alone.any():
            looks = self._embedded(rerender.second_looks(part.where(alone), self._cache))
            scores[alone] = np.einsum("ij,ij->i", looks.plain, plain[alone]) + shift[alone]
        return scores

    @cached_property
    def conditions(self) -> dict[str, list[tuple[float, float, Share]]]:
        """TPIR of mated probes by what the image is like, at the operating threshold."""
        if np.isnan(self.trials.mated).all():
            return {}
        rows, owners = self.population.probes, self.population.probe_owners
        values = {
            name: np.abs(self.templates.condition(name)[rows])
            for name in ("interocular", "sharpness", "yaw", "brightness", "quality")
        }
        return {n: groups.by_condition(v, self.trials.mated, owners, self.threshold) for n, v in values.items()}

    @cached_property
    def gains(self) -> list[Gain]:
        """What better comparing gains at the operating point, on identities it was not fitted on."""
        return gains.measure(self.dataset, self.templates, GROUP_SIZE, GROUP_RATE) + self._evened()

    def _evened(self) -> list[Gain]:
        inside, outside = self._adults
        if min(inside.sum(), outside.sum()) < 2 * groups.LEAST:
            return []
        stills = self.templates.plain[outside]
        shift = self._fixed_shift if self.cohort else (lambda references: _still_shift(references, stills))
        plain, moved = self._labelled(inside, None), self._labelled(inside, shift)
        if np.isnan(plain.mated).all():
            return []
        size = min(GROUP_SIZE, int(inside.sum()) // 2)
        return [gains.evened(plain, moved, size, rate) for rate in EVENED]

    def calibration(self) -> Calibration:
        """The record for the unit. Raises ConfigError where the data cannot carry one."""
        return calibrate.record(
            self.trials,
            self.verification,
            embedder=self.embedder.digest,
            detector=self.detector.digest,
            made=self.made,
            data=f"{self.dataset.name}: {self.dataset.note}",
            data_sha256=self.dataset.digest,
            normalisation=self.normalisation,
        )


def _by_label(part: Dataset, stills: Labelled, threshold: float) -> list[Group]:
    found = (groups.by_attribute(stills, name, part.labels(of), threshold) for name, of in ATTRIBUTES.items())
    return [group for attribute in found for group in attribute]


def _still_shift(references: Floats, cohort: Floats) -> Floats:
    """What a cohort of single stills adds to each reference's scores; moving all of them alike changes nothing."""
    return -normalise.level(references, cohort, NEAREST_STILLS)


def _alone(probes: Floats, references: Floats, identities: npt.NDArray[np.int64]) -> Floats:
    """(n,) greatest score of each still in a list of GROUP_SIZE other identities, drawn once, of all groups."""
    rng = np.random.default_rng(20200124)
    size = min(GROUP_SIZE, len(probes) // 2)
    drawn = rng.permutation(len(probes))
    result = np.empty(len(probes), np.float32)
    # Two lists, so that every still is searched in one that it is not on.
    for listed, searched in ((drawn[:size], drawn[size:]), (drawn[size : 2 * size], drawn[:size])):
        apart = searched[~np.isin(identities[searched], identities[listed])]
        result[searched] = -1.0
        result[apart] = best(probes[apart], references[listed])[0]
    return result
