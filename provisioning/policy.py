"""What the authority allows, in `policy.toml` of the base folder: categories, ceilings, ages.

Loosening any of it is visible: the policy's digest is in every issued list's record and in the audit log.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from appliance.errors import ConfigError
from appliance.limits import LIMITS
from appliance.records import Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Words that make a category a catch-all. Bridges, para 152: "persons where intelligence is required" leaves the
# choice of whom to look for to the individual officer, so it is refused whoever configures it (requirement 6).
CATCH_ALL = re.compile(
    r"\b(intelligence|intel|other|others|misc|miscellaneous|general|any|anyone|all|everyone|unknown|unspecified|none"
    r"|(persons?|people|subjects?)[ _-]+of[ _-]+(interest|concern)|of[ _-]+interest|various|tbd|n/?a|default|poi)\b",
    re.IGNORECASE,
)
DEFAULT = """\
# What this authority allows. Every change is logged by its digest.
categories = [
  "wanted-on-warrant",          # a court's warrant is in force
  "suspect-serious-offence",
  "missing-at-risk",
  "court-order-breach",
  "recall-to-prison",
  "blue-list",                  # volunteers who walk past to measure the unit; never a police interest
]
blue_list = "blue-list"
entries = 10000                 # ceiling of one watchlist (requirement 12)
hours_before = 24               # a list is made at most this long before its window (requirement 4)
window_hours = 24               # longest window of one deployment
least_quality = 25              # enrolment images below this score (0 to 100) are refused
least_interocular = 14          # pixels between the eyes
image_years = 10                # older images get a warning
look_alike_share = 1.0          # of the threshold: pairs at or above are reported; below 1 also near ones
receipt_hours = 24              # after a window's end, a list without deletion receipt is overdue
"""


class Policy(Record):
    """`policy.toml`, whole."""

    categories: tuple[str, ...] = Field(min_length=1, max_length=200)
    blue_list: str = "blue-list"
    entries: int = Field(default=10_000, ge=1, le=LIMITS.watchlist_entries)
    hours_before: float = Field(default=24, gt=0, le=24 * 365)
    window_hours: float = Field(default=24, gt=0, le=24 * 31)
    least_quality: float = Field(default=25, ge=0, le=100)
    least_interocular: float = Field(default=14, ge=4)
    image_years: float = Field(default=10, gt=0)
    look_alike_share: float = Field(default=1.0, gt=0, le=1)
    receipt_hours: float = Field(default=24, ge=0)

    @field_validator("categories")
    @classmethod
    def _say_something(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        for category in categories:
            if catch_all(category):
                raise ValueError(
                    f"{category!r} is a catch-all and says nothing about why; name the reason (Bridges, para 152)"
                )
            if len(category) > LIMITS.category:
                raise ValueError(f"{category[:20]!r}... has more than {LIMITS.category} characters")
        return categories


def catch_all(category: str) -> bool:
    """Whether a category leaves open why somebody is on the list."""
    return not category.strip() or CATCH_ALL.search(category.replace("-", " ").replace("_", " ")) is not None


def read(path: Path) -> tuple[Policy, str]:
    """The policy and the SHA-256 of its file. Raises ConfigError."""
    try:
        blob = path.read_bytes()
        return Policy.model_validate(tomllib.loads(blob.decode())), hashlib.sha256(blob).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; run: bluelamp-provision keys init") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}; correct the policy") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML ({error}); correct the policy") from error
