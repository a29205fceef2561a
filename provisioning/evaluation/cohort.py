"""The fixed cohort beside an embedder pack, and the rule that the calibration record makes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from appliance.errors import PackError
from appliance.limits import LIMITS
from appliance.recognition import normalise
from appliance.recognition.calibration import Normalisation, cohort_templates
from appliance.recognition.packs import Pack
from appliance.records import Floats

FILE = "cohort.npy"


@dataclass(frozen=True)
class Cohort:
    """Templates (n, length), unit length, each the mean of many people's; and their file's digest."""

    templates: Floats
    sha256: str

    def rule(self, references: Floats, nearest: int, share: float) -> Normalisation:
        """Full weight; `share` of references (m, length) are left where they are, the thresholds of all others rise."""
        levels = normalise.level(references, self.templates, nearest)
        return Normalisation(
            kind="cohort",
            reference_weight=1.0,
            nearest=nearest,
            usual=round(float(np.quantile(levels, share)), 6),
            cohort=FILE,
            cohort_sha256=self.sha256,
        )

    def raised(self, references: Floats, rule: Normalisation) -> Floats:
        """(m,) by how much a rule raises each reference's threshold."""
        levels = normalise.level(references, self.templates, rule.nearest)
        return normalise.raised(levels, rule.usual, rule.reference_weight)


def found(pack: Pack) -> Cohort | None:
    """The cohort beside a pack; None where there is none. Raises PackError where it is of another pack."""
    path = pack.folder / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > LIMITS.calibration_bytes:
        raise PackError(f"{path}: larger than {LIMITS.calibration_bytes} bytes; this is not a cohort")
    blob = path.read_bytes()
    return Cohort(cohort_templates(blob, pack, str(path)), hashlib.sha256(blob).hexdigest())
