"""Cohort normalisation: what a reference scores against people it is not, taken off its comparison scores.

Some references resemble everybody a little more than others do. `level` measures that once, at base, against a fixed
cohort of non-mated templates; a score is then moved by the reference's distance from the usual level. The result
stays on the cosine's own scale. Moving the scores of a reference or its threshold is the same thing, so a unit needs
no more than a threshold for each reference, and base only ever raises one (`raised`). (Symmetric s-norm without its
division; Shum and others 2010.)
"""

from __future__ import annotations

import numpy as np

from appliance.records import Floats


def level(references: Floats, cohort: Floats, nearest: int) -> Floats:
    """(m,) mean score of each reference (m, length) against its `nearest` of the cohort (n, length): cosines.

    The cohort must hold nobody who is on the list.
    """
    scores = references @ cohort.T
    count = min(nearest, scores.shape[1])
    top = np.partition(scores, scores.shape[1] - count, axis=1)[:, scores.shape[1] - count :]
    return np.asarray(top.mean(axis=1), np.float32)


def raised(levels: Floats, usual: float, weight: float) -> Floats:
    """(m,) by how much each reference's threshold is raised: `weight` times what its level is above `usual`.

    No threshold is lowered, so that a list's own threshold stays the least that any reference of it has.
    """
    return np.asarray(np.float32(weight) * np.maximum(levels - np.float32(usual), 0), np.float32)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length one; a row of zeros stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def normalised(scores: Floats, levels: Floats, usual: float, weight: float) -> Floats:
    """Scores (..., m) against m references, moved by `weight` times each one's distance from the `usual` level."""
    return np.asarray(scores - np.float32(weight) * (levels - np.float32(usual)), np.float32)
