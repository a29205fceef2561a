"""What identifies the content of a watchlist: its references and templates, whatever it was sealed to.

The same list sealed to two units gives two files with two digests; the pre-flight report is about the content.
Thresholds are left out: the pre-flight sets them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def content_digest(entries: Iterable[tuple[str, str]], vectors: bytes) -> str:
    """SHA-256 over (identifier, category) pairs and the templates' bytes as a watchlist file holds them."""
    whole = hashlib.sha256(b"bluelamp.list.v1\n")
    for identifier, category in entries:
        whole.update(f"{len(identifier)}:{identifier}{len(category)}:{category}".encode())
    whole.update(vectors)
    return whole.hexdigest()
