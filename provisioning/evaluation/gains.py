"""Can the same models be compared better? Each way is fitted on other identities than it is shown on.

Identities are split in five by a hash of the name (another one than that which holds identities out of training). A
way that needs fitting (a weight, a cohort) is fitted on four parts and shown on the fifth, each part in turn, so no
identity is ever in what its own searches were fitted on. The gain is in TPIR at one size and one FPIR, each way at a
threshold of its own; its interval is a bootstrap over identities, the same draws for both, thresholds chosen anew in
each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from appliance.recognition import normalise
from appliance.recognition.extract import pooled
from appliance.records import Floats
from provisioning.evaluation import identification, population
from provisioning.evaluation.dataset import Dataset, fold
from provisioning.evaluation.embeddings import Templates
from provisioning.evaluation.groups import Labelled
from provisioning.evaluation.identification import Resampled, Trials
from provisioning.evaluation.population import Population

FOLDS = 5
DRAWS = 300
WEIGHTS = (0.0, 0.25, 0.5, 1.0)
NEAREST = 10
LONGEST = 2000  # references searched; a longer pool costs time and tells little more
POOLED = 5  # stills of a pooled probe: what a unit keeps of a track
LEAST_TRACKS = 40  # pooled probes under which nothing is said
KEPT = 60  # greatest scores of each probe: lists of half the pool leave nothing below them
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gain:
    """TPIR of one way, of the plain cosine on the same probes, and the difference with its 95 % interval.

    Both at the rate `fpir` with a list of `size`, each at a threshold of its own.
    """

    way: str
    probes: int
    identities: int
    tpir: float
    plain: float
    gain: float
    low: float
    high: float
    size: int
    fpir: float
    fitted: str = ""


@dataclass(frozen=True)
class Part:
    """One fold: who is searched among whom, and a cohort of single reference templates of other identities.

    The cohort is as mixed as the list: named identities of the other folds, and this fold's distractors, which are
    not on the list. A cohort of one source only lowers or raises whole sources, which looks like a gain and is none.
    """

    chosen: Population
    cohort: Floats
    pool: int


Way = Callable[[Part, Templates], tuple[Floats, Floats]]  # references (m, length), probes (n, length)


def compare(
    base: Trials, other: Trials, size: int, fpir: float, seed: int = 1
) -> tuple[float, float, float, float, float]:
    """TPIR of both, the difference, and its limits. Both are of the same probes in the same order."""
    _, place = np.unique(base.identities, return_inverse=True)
    count = int(place.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.multinomial(count, np.full(count, 1 / count)) for _ in range(DRAWS)])
    both = [Resampled.of(t, size, fpir) for t in (base, other)]
    before, after = np.array([[r.tpir(w[place]) for w in (np.ones(count, np.int64), *drawn)] for r in both])
    low, high = np.quantile(after[1:] - before[1:], (0.025, 0.975))
    return float(before[0]), float(after[0]), float(after[0] - before[0]), float(low), float(high)


def measure(dataset: Dataset, templates: Templates, size: int, fpir: float) -> list[Gain]:
    """Gains of every way. Empty where the data cannot make lists of `size`."""
    parts = np.array([fold(s.identity, FOLDS) for s in dataset.stills])
    single = [_part(dataset, templates, parts, k, 1, None) for k in range(FOLDS)]
    if min(p.pool for p in single) < size or not any((~p.chosen.enrolled).any() for p in single):
        return []
    plain = _trials(single, templates, _plain)
    gains = []
    for name, way in track(list(_ways(templates).items()), "gains", console=Console(stderr=True), transient=True):
        gains.append(_gain(name, plain, _trials(single, templates, way), size, fpir))
    gains.append(_cohort(dataset, templates, parts, single, plain, size, fpir))
    gains += _one_source(dataset, templates, parts, size, fpir)
    return gains + _several(dataset, templates, parts, size, fpir) + _tracks(dataset, templates, size, fpir)


def evened(plain: Labelled, moved: Labelled, size: int, fpir: float) -> Gain:
    """Cohort normalisation on labelled stills of all groups together, at a rate that they themselves give.

    Mated probes are second looks where the data has no other still; the bootstrap is over stills.
    """
    count = len(plain.alone)
    rng = np.random.default_rng(1)
    draws = [np.arange(count), *(rng.integers(0, count, count) for _ in range(DRAWS))]
    before, after = np.array([[_found(part, rows, fpir) for rows in draws] for part in (plain, moved)])
    low, high = np.quantile(after[1:] - before[1:], (0.025, 0.975))
    way = "cohort normalisation, labelled adults of all groups, a list of other adults"
    gain = float(after[0] - before[0])
    return Gain(
        way, count, count, float(after[0]), float(before[0]), gain, float(low), float(high), size, fpir, "weight 1"
    )


def _found(part: Labelled, rows: Numbers, fpir: float) -> float:
    alone, mated = part.alone[rows], part.mated[rows]
    known = ~np.isnan(mated)
    threshold = np.nextafter(np.sort(alone)[::-1][int(fpir * len(alone))], np.float32(2))
    return float(np.mean((mated[known] >= threshold) & (mated[known] > alone[known])))


def _ways(templates: Templates) -> dict[str, Way]:
    if templates.mirrored is None:
        return {}
    both = templates.averaged()
    return {
        "mirror image averaged, references only": lambda p, t: (
            population.fused(both, p.chosen.references),
            _probes(p, t.plain),
        ),
        "mirror image averaged, both sides": lambda p, t: (
            population.fused(both, p.chosen.references),
            _probes(p, both),
        ),
    }


def _plain(part: Part, templates: Templates) -> tuple[Floats, Floats]:
    return population.fused(templates.plain, part.chosen.references), _probes(part, templates.plain)


def _probes(part: Part, templates: Floats) -> Floats:
    return templates[part.chosen.probes]


def _cohort(
    dataset: Dataset,
    templates: Templates,
    parts: Numbers,
    single: list[Part],
    plain: Trials,
    size: int,
    fpir: float,
) -> Gain:
    """Reference-side cohort normalisation; the weight is the best one on the four parts that are not shown."""
    chosen = _weights(dataset, templates, parts, size, fpir)
    way = _trials(single, templates, _plain, chosen)
    gain = _gain(f"cohort normalisation, reference side, {NEAREST} nearest", plain, way, size, fpir)
    return replace(gain, fitted="weight " + ", ".join(f"{w:g}" for w in chosen))


def _one_source(dataset: Dataset, templates: Templates, parts: Numbers, size: int, fpir: float) -> list[Gain]:
    """The same where no distractor is on the list: every reference is of the probes' own source."""
    if not dataset.distractors.any():
        return []
    made = [_part(dataset, templates, parts, k, 1, None, mixed=False) for k in range(FOLDS)]
    size = min(size, *(p.pool for p in made))
    chosen = _weights(dataset, templates, parts, size, fpir, mixed=False)
    plain, way = _trials(made, templates, _plain), _trials(made, templates, _plain, chosen)
    gain = _gain(f"the same, every reference of the probes' own source, list of {size}", plain, way, size, fpir)
    return [replace(gain, fitted="weight " + ", ".join(f"{w:g}" for w in chosen))]


def _weights(
    dataset: Dataset, templates: Templates, parts: Numbers, size: int, fpir: float, mixed: bool = True
) -> list[float]:
    folds = range(FOLDS)
    return [
        _best_weight(
            [_part(dataset, templates, parts, j, 1, None, mixed) for j in folds if j != k], templates, size, fpir
        )
        for k in folds
    ]


def _best_weight(fitted: list[Part], templates: Templates, size: int, fpir: float) -> float:
    size = min(size, min(p.pool for p in fitted))
    rates = {}
    for weight in WEIGHTS:
        trials = _trials(fitted, templates, _plain, [weight] * len(fitted))
        rates[weight] = Resampled.of(trials, size, fpir).tpir(np.ones(len(trials.identities), np.int64))
    return max(rates, key=lambda w: rates[w])


def _several(dataset: Dataset, templates: Templates, parts: Numbers, size: int, fpir: float) -> list[Gain]:
    """Two and three references fused, against one, on probes of identities that have more than three stills."""
    made = [_part(dataset, templates, parts, k, 1, 3) for k in range(FOLDS)]
    plain = _trials(made, templates, _plain)
    if np.isnan(plain.mated).all():
        return []
    gains = []
    for stills in (2, 3):
        made = [_part(dataset, templates, parts, k, stills, 3) for k in range(FOLDS)]
        gains.append(_gain(f"{stills} references fused", plain, _trials(made, templates, _plain), size, fpir))
    for name, way in _ways(templates).items():
        gains.append(_gain(f"3 references fused, {name}", plain, _trials(made, templates, way), size, fpir))
    return gains


def _part(
    dataset: Dataset,
    templates: Templates,
    parts: Numbers,
    number: int,
    stills: int,
    alike: int | None,
    mixed: bool = True,
) -> Part:
    """One fold; without `mixed`, no distractor is on its list."""
    own = parts == number
    inside = np.where(dataset.distractors, ~own & mixed, own)
    # A still outside the part counts as one without a face: it is neither enrolled nor, below, a probe.
    chosen = population.choose(dataset, templates.found & inside, stills, alike)
    kept = parts[chosen.probes] == number
    chosen = replace(
        chosen, probes=chosen.probes[kept], probe_owners=chosen.probe_owners[kept], enrolled=chosen.enrolled[kept]
    )
    outside = population.choose(dataset, templates.found & np.where(dataset.distractors, own, ~own))
    return Part(chosen, population.fused(templates.plain, outside.references), len(chosen.references) - 1)


def _trials(made: list[Part], templates: Templates, way: Way, weights: list[float] | None = None) -> Trials:
    """All parts' trials as one; each part's list is cut to the shortest one's length, distractors last."""
    least = min(LONGEST, *(p.pool for p in made)) + 1
    found = []
    for i, part in enumerate(made):
        references, probes = way(part, templates)
        cut = replace(part.chosen, references=part.chosen.references[:least], owners=part.chosen.owners[:least])
        references = references[:least]
        shift = None
        if weights is not None:
            levels = normalise.level(references, part.cohort, NEAREST)
            shift = normalise.normalised(np.zeros(least, np.float32), levels, float(levels.mean()), weights[i])
        found.append(cut.among(references, probes, shift, KEPT))
    return Trials(
        np.concatenate([t.identities for t in found]),
        np.concatenate([t.tail for t in found]),
        least - 1,
        np.concatenate([t.mated for t in found]),
        np.concatenate([t.above for t in found]),
    )


def _gain(way: str, plain: Trials, other: Trials, size: int, fpir: float) -> Gain:
    before, after, gain, low, high = compare(plain, other, size, fpir)
    mated = ~np.isnan(plain.mated)
    identities = len(np.unique(plain.identities[mated]))
    return Gain(way, int(mated.sum()), identities, after, before, gain, low, high, size, fpir)


def _tracks(dataset: Dataset, templates: Templates, size: int, fpir: float) -> list[Gain]:
    """Pooling POOLED stills into one probe, as a track is pooled, plainly and by quality, against the first of them.

    Different photographs stand in for the frames of a track: they differ more than frames do.
    """
    chosen = population.choose(dataset, templates.found)
    rows = _chunks(chosen, templates)
    if len(rows) < LEAST_TRACKS:
        return []
    least = min(LONGEST, len(chosen.references))
    stored = population.fused(templates.plain, chosen.references)[:least]
    owners = dataset.identities[np.array([r[0] for r in rows])]
    found = []
    for weights in (None, np.ones(len(templates.found), np.float32), templates.condition("quality")):
        first = templates.plain[[r[0] for r in rows]]
        probes = first if weights is None else np.stack([pooled(templates.plain[r], weights[r]) for r in rows])
        found.append(identification.search(probes, owners, stored, chosen.owners[:least], KEPT))
    plain, mean, weighted = found
    return [
        _gain(f"{POOLED} stills pooled into one probe, plain mean", plain, mean, size, fpir),
        _gain(f"{POOLED} stills pooled into one probe, weighted by quality", plain, weighted, size, fpir),
    ]


def _chunks(chosen: Population, templates: Templates) -> list[Numbers]:
    """Probe rows of one identity, POOLED at a time; stills that are enrolled take no part."""
    free = ~chosen.enrolled & templates.found[chosen.probes]
    rows, owners = chosen.probes[free], chosen.probe_owners[free]
    return [
        own[start : start + POOLED]
        for identity in np.unique(owners)
        for own in [rows[owners == identity]]
        for start in range(0, len(own) - POOLED + 1, POOLED)
    ]
