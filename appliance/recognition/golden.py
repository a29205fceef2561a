"""The golden check: does this runtime, on this machine, compute what the pack's maker computed?

The same quantised file can give another answer in another runtime version; a watchlist made elsewhere would then be
compared with templates that are not comparable. So it is asked at every start.
"""

from __future__ import annotations

import numpy as np

from appliance.errors import PackError
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import Pack
from appliance.recognition.track import overlap


def check_embedder(pack: Pack, embedder: Embedder) -> float:
    """Cosine of the golden template and the one computed here. Raises PackError below the pack's tolerance."""
    chip, wanted = pack.golden()
    cosine = float(embedder.embed(chip[None])[0] @ wanted.reshape(-1))
    return _judged(pack, cosine, "cosine")


def check_detector(pack: Pack, detector: Detector) -> float:
    """Least overlap of golden and found boxes. Raises PackError below the pack's tolerance or on another count."""
    scene, wanted = pack.golden()
    found = detector.rows_at(scene)
    if len(found) != len(wanted):
        raise PackError(f"{pack.folder}: finds {len(found)} faces in its golden scene, not {len(wanted)}; {_ADVICE}")
    if not len(wanted):
        raise PackError(f"{pack.folder}: its golden scene holds no face, so it proves nothing; restore the pack")
    best = overlap(found[:, :4], wanted[:, :4]).max(axis=0)
    return _judged(pack, float(np.min(best)), "overlap")


_ADVICE = "this runtime computes something else: install the runtime version the pack names, or another pack"


def _judged(pack: Pack, value: float, word: str) -> float:
    if not value >= pack.manifest.golden.tolerance:
        tolerance = pack.manifest.golden.tolerance
        raise PackError(
            f"{pack.folder}: golden check gives {word} {value:.4f}, at least {tolerance} is needed; {_ADVICE}"
        )
    return value
