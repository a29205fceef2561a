"""Enrolment tables for tests: rows that are right but for what a test changes."""

from __future__ import annotations

import csv
from pathlib import Path

GOOD = {
    "category": "wanted-on-warrant", "source": "custody image", "lawful_basis": "PACE s. 64A",
    "rationale": "a court's warrant is in force", "image_date": "2025-05-01", "reviewer": "Insp. A",
    "expiry": "2099-12-31", "under_18": "no",
}  # fmt: skip


def write_list(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8", delimiter: str = ",") -> Path:
    """A CSV of rows; every column that any row has."""
    columns = list(dict.fromkeys(c for row in rows for c in row))
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(identifier: str, image: str, **changes: str) -> dict[str, str]:
    """A sound row but for `changes`."""
    return {"reference_identifier": identifier, "image": image, **GOOD, **changes}
