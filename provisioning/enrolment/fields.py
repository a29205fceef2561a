"""What every reference must say before it may be enrolled, and what makes a row unfit.

College of Policing APP: category, source, lawful basis, rationale, image date, reviewer (requirement 5); under 18: risk
rationale and extra authorisation (requirement 7); catch-all categories are refused (requirement 6).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from pydantic import Field

from appliance.limits import LIMITS
from appliance.records import Record
from provisioning import policy as policies
from provisioning.policy import Policy

REQUIRED = (
    "reference_identifier", "category", "source", "lawful_basis", "rationale", "image_date", "reviewer", "expiry",
)  # fmt: skip
MINOR = ("authorised_by", "risk_rationale")
OPTIONAL = ("name", "date_of_birth", "under_18", *MINOR)
COLUMNS = (*REQUIRED, "image", *OPTIONAL)
_TEXT = 2000  # characters of a field
_IDENTIFIER = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{LIMITS.reference_identifier - 1}}}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_YES, _NO = frozenset({"yes", "y", "true", "1"}), frozenset({"no", "n", "false", "0"})


class Reference(Record):
    """One reference as the base keeps it, encrypted. Dates are ISO. Names never leave the base."""

    reference_identifier: str = Field(min_length=1, max_length=LIMITS.reference_identifier)
    category: str = Field(min_length=1, max_length=LIMITS.category)
    source: str
    lawful_basis: str
    rationale: str
    image_date: str
    reviewer: str
    expiry: str
    name: str = ""
    date_of_birth: str = ""
    under_18: bool = False
    authorised_by: str = ""
    risk_rationale: str = ""

    def expired(self, on: datetime.date) -> bool:
        """Whether the reference may not be used on that day any more."""
        return datetime.date.fromisoformat(self.expiry) < on


def judge(
    values: Mapping[str, str], policy: Policy, today: datetime.date
) -> tuple[Reference | None, list[str], list[str]]:
    """A row's reference, or None; then every reason against it; then warnings. Nothing is raised."""
    reasons = [f"{c} is missing" for c in REQUIRED if not values.get(c, "").strip()]
    reasons += [f"{c} holds a spreadsheet formula or begins with {v[0]!r}: write plain text"
                for c, v in values.items() if v.startswith(_FORMULA)]  # fmt: skip
    reasons += [f"{c} has {len(v)} characters, {_TEXT} are allowed" for c, v in values.items() if len(v) > _TEXT]
    reasons += [
        f"{c} holds control characters" for c, v in values.items() if any(ord(x) < 32 and x not in "\r\n" for x in v)
    ]
    reasons += _identifier(values.get("reference_identifier", "")) + _category(values.get("category", ""), policy)
    dates: dict[str, datetime.date | None] = {}
    for column in ("image_date", "expiry", "date_of_birth"):
        dates[column] = date_of(values.get(column, ""))
        if values.get(column, "").strip() and dates[column] is None:
            reasons.append(f"{column} is no date: write YYYY-MM-DD")
    reasons += _dates(dates, today)
    minor, why, warnings = _minor(values, dates["date_of_birth"], today)
    reasons += why
    if reasons:
        return None, list(dict.fromkeys(reasons)), warnings
    warnings += _age(dates["image_date"], policy, today)
    text = {c: values.get(c, "").strip() for c in (*REQUIRED, "name", *MINOR)}
    text |= {c: d.isoformat() for c, d in dates.items() if d is not None}
    return Reference(**text, under_18=minor), [], warnings


def date_of(text: str) -> datetime.date | None:
    """A date written YYYY-MM-DD or DD/MM/YYYY; None for anything else."""
    text = text.strip()
    for form in ("%Y-%m-%d", "%d/%m/%Y"):
        try:
            return datetime.datetime.strptime(text, form).date()
        except ValueError:
            continue
    return None


def years(born: datetime.date, on: datetime.date) -> int:
    """Completed years; who is born on 29 February completes one on 1 March."""
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def _identifier(text: str) -> list[str]:
    if not text.strip() or _IDENTIFIER.fullmatch(text.strip()):
        return []
    return [f"reference_identifier may have letters, digits and . _ : / -, at most {LIMITS.reference_identifier}; "
            "it must not be a name"]  # fmt: skip


def _category(text: str, policy: Policy) -> list[str]:
    text = text.strip()
    if not text:
        return []
    if policies.catch_all(text):
        return [f"category {text!r} is a catch-all and says nothing about why (Bridges, para 152): name the reason"]
    if text not in policy.categories:
        return [f"category {text!r} is not allowed here; allowed: {', '.join(policy.categories)}"]
    return []


def _dates(dates: Mapping[str, datetime.date | None], today: datetime.date) -> list[str]:
    reasons = []
    taken, expiry, born = dates["image_date"], dates["expiry"], dates["date_of_birth"]
    if taken and taken > today:
        reasons.append("image_date lies in the future")
    if expiry and expiry < today:
        reasons.append("expiry has passed")
    if born and (born > today or years(born, today) > 130):
        reasons.append("date_of_birth cannot be right")
    if born and taken and taken < born:
        reasons.append("image_date is before date_of_birth")
    return reasons


def _minor(
    values: Mapping[str, str], born: datetime.date | None, today: datetime.date
) -> tuple[bool, list[str], list[str]]:
    """Whether under 18, reasons, warnings."""
    said = values.get("under_18", "").strip().lower()
    if said and said not in _YES | _NO:
        return False, ["under_18 must be yes or no"], []
    minor = said in _YES or (born is not None and years(born, today) < 18)
    if minor and said in _NO:
        return True, ["under_18 says no, date_of_birth says otherwise"], []
    if not minor:
        return False, [], [] if said or born else ["age not stated: neither date_of_birth nor under_18"]
    return True, [f"under 18: {c} is missing" for c in MINOR if not values.get(c, "").strip()], []


def _age(taken: datetime.date | None, policy: Policy, today: datetime.date) -> list[str]:
    if taken is None or (today - taken).days <= policy.image_years * 365.25:
        return []
    return [f"image is {years(taken, today)} years old"]
