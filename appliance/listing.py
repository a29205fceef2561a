"""What identifies the content of a watchlist: its references and templates, whatever it was sealed to.

The same list sealed to two units gives two files with two digests; the pre-flight report is about the content.
Thresholds are left out: the pre-flight sets them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from appliance.records import Floats
from appliance.watchlist import Manifest


def content_digest(entries: Iterable[tuple[str, str]], templates: Floats) -> str:
    """SHA-256 over (identifier, category) pairs and their templates (entries, length) as a file stores them."""
    whole = hashlib.sha256(b"bluelamp.list.v1\n")
    for identifier, category in entries:
        whole.update(f"{len(identifier)}:{identifier}{len(category)}:{category}".encode())
    whole.update(templates.astype("<f2").tobytes())
    return whole.hexdigest()


def of_manifest(manifest: Manifest, templates: Floats) -> str:
    """The content digest of an opened watchlist, before its templates are scaled again."""
    return content_digest(((e.reference_identifier, e.category) for e in manifest.entries), templates)
