"""Compare a probe with the watchlist: HNSW proposes candidates, their scores are computed exactly.

The graph is built in memory from verified templates, never read from a file: an altered index file can corrupt the
heap of its library. Recall against brute force is measured when the list is opened; a list on which the graph is not
exact is searched by brute force, which is as fast up to some 20,000 entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import hnswlib
import numpy as np

from appliance.formats.watchlist import Watchlist
from appliance.records import Candidate, Floats, Probe

_LINKS, _BUILD_EFFORT, _SEARCH_EFFORT = 24, 200, 160
_CHECKS = 256  # probes of the recall check
_SEED = 20200124


@dataclass(frozen=True)
class Recall:
    """What the check at opening found. `share` is the graph's recall@1 against brute force."""

    share: float
    checked: int
    exact: bool  # brute force is used from now on


class Identifier:
    """An opened watchlist, searchable. Thread-safe for searching."""

    def __init__(self, watchlist: Watchlist, count: int = 10) -> None:
        self.watchlist = watchlist
        self._count = min(count, len(watchlist.templates))
        self._graph = self._built(watchlist.templates)
        self.recall = self._check()

    def identify(self, probe: Probe) -> list[Candidate]:
        """The best candidates of a probe, greatest comparison score first."""
        rows = self._rows(probe.template)
        scores = self.watchlist.templates[rows] @ probe.template
        order = np.argsort(-scores)
        return [self._candidate(int(rows[i]), float(scores[i])) for i in order]

    def _candidate(self, row: int, score: float) -> Candidate:
        entry = self.watchlist.manifest.entries[row]
        return Candidate(row, entry.reference_identifier, entry.category, score, self.watchlist.threshold(row))

    def _rows(self, template: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        if self.recall.exact:
            return _brute_force(self.watchlist.templates, template, self._count)
        labels, _ = self._graph.knn_query(template[None], k=self._count)
        return np.asarray(labels[0], np.int64)

    def _built(self, templates: Floats) -> hnswlib.Index:
        graph = hnswlib.Index(space="ip", dim=templates.shape[1])
        graph.init_index(len(templates), M=_LINKS, ef_construction=_BUILD_EFFORT, random_seed=_SEED)
        graph.add_items(templates)
        graph.set_ef(max(_SEARCH_EFFORT, self._count))
        return graph

    def _check(self) -> Recall:
        """Half the probes are disturbed references (mated), half are directions of no reference (non-mated)."""
        templates = self.watchlist.templates
        rng = np.random.default_rng(_SEED)
        picked = templates[rng.integers(0, len(templates), _CHECKS // 2)]
        length = templates.shape[1]
        near = picked + rng.normal(0, 0.8 / np.sqrt(length), picked.shape).astype(np.float32)
        mixed = rng.normal(0, 1, (_CHECKS - len(near), len(templates) if len(templates) < 16 else 16))
        far = mixed.astype(np.float32) @ templates[rng.integers(0, len(templates), mixed.shape[1])]
        probes = np.concatenate([near, far])
        probes /= np.maximum(np.linalg.norm(probes, axis=1, keepdims=True), 1e-12)
        truth = np.argmax(probes @ templates.T, axis=1)
        labels, _ = self._graph.knn_query(probes, k=self._count)
        # Two entries with the same template are one answer: compare scores, not row numbers.
        best = np.max(np.einsum("nkd,nd->nk", templates[labels.astype(np.int64)], probes), axis=1)
        wanted = np.einsum("nd,nd->n", templates[truth], probes)
        share = float(np.mean(best >= wanted - 1e-6))
        return Recall(share, _CHECKS, exact=share < 1.0)


def _brute_force(templates: Floats, template: Floats, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    scores = templates @ template
    return np.asarray(np.argpartition(-scores, count - 1)[:count], np.int64)
