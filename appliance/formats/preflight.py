"""The pre-flight report of a list, as the unit reads it: identifiers and figures, no images, no names.

The base makes it (provisioning/lists/preflight.py) and signs it. The order names its digest; the unit
checks that it is about exactly the list it was given.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.records import Models, Record

KIND = "preflight"
Digest = r"^[0-9a-f]{64}$"


class LookAlikes(Record):
    """Two identifiers whose references resemble each other: siblings, twins, or one subject enrolled twice."""

    first: str
    second: str
    categories: tuple[str, str]
    score: float


class Wolf(Record):
    """A reference that scores high against strangers. `rate` is its own false-positive rate at the list's threshold;
    `threshold` the one it gets instead."""

    reference_identifier: str
    category: str
    mean: float
    deviation: float
    highest: float
    rate: float
    threshold: float


class Cohort(Record):
    """Who the strangers were: `size` templates of faces that are not on the list, and what identifies the set."""

    name: str = Field(max_length=200)
    sha256: str = Field(pattern=Digest)
    size: int = Field(ge=0)


class Preflight(Record):
    """All of it. `made` is UTC seconds, rates run from 0 to 1."""

    format: Literal[1] = 1
    made: float
    content: str = Field(pattern=Digest)
    models: Models
    entries: int
    references: int
    threshold: float
    greatest_fpir: float
    reference_limit: float  # greatest own rate of one reference
    projected_fpir: float
    projection: Literal["calibration", "cohort"]
    cohort_fpir: float | None = None  # measured on the cohort with the thresholds below
    cohort_upper: float | None = None  # its 95 % upper limit
    footfall: int
    projected_alerts: float
    cohort: Cohort
    look_alikes: tuple[LookAlikes, ...] = Field(max_length=5000)
    wolves: tuple[Wolf, ...] = Field(max_length=100_000)
    categories: dict[str, int]
    image_years: dict[str, int]  # references by the age of their newest image
    minors: int
    warnings: tuple[str, ...] = ()
