"""Which identities train and which are held out: one rule, used by training and by every evaluation.

The rule is a hash of the identity's name, so it needs no list, is the same on every machine, and stays the same when
photographs are added. Two names of one person (or siblings) are hashed as one, so that no pair of them crosses over.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

HELD_OUT_SHARE = 5  # one in five


def held_out(identity: str, aliases: dict[str, str] | None = None) -> bool:
    """True if ``identity`` is never trained on. ``aliases`` maps a name to the name it is hashed under."""
    name = (aliases or {}).get(identity, identity)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % HELD_OUT_SHARE == 0


def overlap_aliases(file: Path) -> dict[str, str]:
    """From ``lfw_overlaps.csv`` (identity_a, identity_b, ...): both names of a pair map to the pair's first name."""
    aliases: dict[str, str] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            first = aliases.get(row["identity_a"], row["identity_a"])
            aliases[row["identity_a"]] = aliases[row["identity_b"]] = first
    return aliases


def lfw_identity(photograph: str) -> str:
    """``Ann_Lee_0003`` -> ``Ann_Lee``."""
    return photograph.rsplit("_", 1)[0]


def utk_identity(photograph: str) -> str:
    """UTKFace names no one: each photograph counts as its own identity, named by its date stamp (unique)."""
    return "utk:" + photograph.split(".")[0]


def held_out_mask(identities: Iterable[str], aliases: dict[str, str] | None = None) -> list[bool]:
    """`held_out` for each identity in order."""
    return [held_out(identity, aliases) for identity in identities]
