"""The report by group that an order names: TPIR and FPIR by sex, age and ethnicity for exactly these models.

Requirement 21 (public sector equality duty, Bridges): arming is blocked without a current one. The unit does not
judge the figures, which the signers of the order did; it checks that they are of its models, by group, and current.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.records import Models
from appliance.times import utc

CURRENT_DAYS = 366.0
REPORT_BYTES = 4_000_000


def refusal(blob: bytes, models: Models, now: float) -> str | None:
    """Why this report does not do, or None.

    A JSON object with `detector` and `embedder` (digests, at the top or under `models`), `made` (UTC seconds), and
    `groups`: at least two rows that each name a group with its `tpir` and `fpir`.
    """
    try:
        report = json.loads(blob) if len(blob) <= REPORT_BYTES else None
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        return "the report by group cannot be read; measure it with: bluelamp-provision evaluate"
    named = report.get("models")
    measured: dict[str, Any] = named if isinstance(named, dict) else report
    for role in ("detector", "embedder"):
        if measured.get(role) != getattr(models, role):
            return f"the report by group was measured with another {role} pack; measure this one"
    if not _has_groups(report.get("groups")):
        return "the report has no figures by group (TPIR and FPIR for at least two groups)"
    made = report.get("made")
    if not isinstance(made, (int, float)) or made > now + 86400:
        return "the report by group does not say when it was made, or says a time to come"
    if now - made > CURRENT_DAYS * 86400:
        return f"the report by group is of {utc(made)}, older than {CURRENT_DAYS:.0f} days; measure again"
    return None


def _has_groups(groups: Any) -> bool:
    if not isinstance(groups, list):
        return False
    rows = [g for g in groups if isinstance(g, dict) and {"group", "tpir", "fpir"} <= set(g)]
    return len(rows) >= 2
