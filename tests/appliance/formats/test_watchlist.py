"""A watchlist opens for one unit, one pair of models and one window, whole and unaltered, or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from appliance.errors import WatchlistError
from appliance.formats import watchlist
from appliance.formats.watchlist import Entry, Manifest
from appliance.limits import LIMITS
from appliance.records import Header, Models
from appliance.trust import keys, seal

NOW = 1_800_000_000.0
MODELS = Models(detector="d" * 64, embedder="e" * 64)


@dataclass(frozen=True)
class Kit:
    """An authority and a unit, and a list sealed from one to the other."""

    blob: bytes
    signer: CryptoSigner
    unit: keys.Identity
    opening: dict[str, Any]


def templates(count: int, length: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(count, length)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def manifest(count: int = 5, **changes: Any) -> Manifest:
    base = Manifest(
        unit="van-07", deployment="D-1", version=3, created=NOW - 3600, not_before=NOW - 60, not_after=NOW + 3600,
        models=MODELS, length=32, threshold=0.5, category_thresholds={"missing": 0.45},
        entries=tuple(
            Entry(reference_identifier=f"REF-{i}", category="warrant" if i else "missing") for i in range(count)
        ),
    )  # fmt: skip
    return base.model_copy(update=changes)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    root = tmp_path_factory.mktemp("keys")
    authority = keys.create(root / "a", "authority", "base")
    unit = keys.create(root / "u", "unit", "van-07")
    signer = CryptoSigner(keys.load_signing(root / "a" / "signing.pem"))
    sealing = {unit.sealing[0].id: keys.load_sealing(root / "u" / "sealing" / f"{unit.sealing[0].id}.pem")}
    opening = {
        "unit": "van-07", "keys": sealing, "authorities": [authority.signing_key()], "models": MODELS, "now": NOW,
    }  # fmt: skip
    return Kit(make(signer, unit, manifest()), signer, unit, opening)


def make(signer: CryptoSigner, unit: keys.Identity, content: Manifest) -> bytes:
    key = unit.sealing[0]
    return watchlist.make(content, templates(len(content.entries)), "w-1", key.public(), key.id, [signer])


def test_it_opens_as_it_was_made(kit: Kit) -> None:
    opened = watchlist.open_watchlist(kit.blob, **kit.opening)
    assert opened.manifest == manifest()
    assert np.allclose(opened.templates, templates(5), atol=1e-3)
    assert opened.digest == hashlib.sha256(kit.blob).hexdigest()
    assert opened.threshold(0) == 0.45, "the category's own threshold"
    assert opened.threshold(1) == 0.5


def test_erasing_leaves_zeros(kit: Kit) -> None:
    opened = watchlist.open_watchlist(kit.blob, **kit.opening)
    opened.erase()
    assert not opened.templates.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "van-08"}, "issued to unit van-07, this is van-08"),
        ({"models": Models(detector="d" * 64, embedder="f" * 64)}, "made with another embedder pack"),
        ({"models": Models(detector="0" * 64, embedder="e" * 64)}, "made with another detector pack"),
        ({"now": NOW - 7200}, "begins at"),
        ({"now": NOW + 3600}, "ended at"),
        ({"least_version": 4}, "version 3 is older than version 4"),
        ({"limit_entries": 4}, "5 entries, the policy allows 4"),
        ({"keys": {}}, "its key was destroyed"),
        ({"authorities": []}, "only 0 key"),
    ],
)
def test_each_refusal_says_what_to_do(kit: Kit, change: dict[str, Any], words: str) -> None:
    with pytest.raises(WatchlistError, match=words):
        watchlist.open_watchlist(kit.blob, **{**kit.opening, **change})


def test_another_authority_is_refused(kit: Kit, tmp_path: Path) -> None:
    stranger = keys.create(tmp_path / "s", "authority", "stranger")
    with pytest.raises(WatchlistError, match="not by a trusted key"):
        watchlist.open_watchlist(kit.blob, **{**kit.opening, "authorities": [stranger.signing_key()]})


def test_truncated_and_lengthened_files_are_refused(kit: Kit) -> None:
    for blob in (kit.blob[:-1], kit.blob[: len(kit.blob) // 2], kit.blob[:10], b"", kit.blob + b"x"):
        with pytest.raises(WatchlistError, match=r"cut short|beginning is missing|do not belong"):
            watchlist.open_watchlist(blob, **kit.opening)


def test_an_oversized_file_is_refused_before_it_is_parsed(kit: Kit) -> None:
    blob = kit.blob + bytes(LIMITS.watchlist_bytes)
    with pytest.raises(WatchlistError, match="more than the"):
        watchlist.open_watchlist(blob, **kit.opening)


def test_a_sealed_file_of_another_kind_is_refused(kit: Kit) -> None:
    key = kit.unit.sealing[0]
    header = Header(
        kind="health", id="h", unit="van-07", deployment="D-1", created=NOW, expires=NOW + 9,
        sender=kit.signer.public_key.keyid, recipient=key.id,
    )  # fmt: skip
    blob = seal.seal(header, b"{}", key.public(), [kit.signer])
    with pytest.raises(WatchlistError, match="this is a sealed health"):
        watchlist.open_watchlist(blob, **kit.opening)


def test_a_manifest_that_contradicts_its_header_is_refused(kit: Kit) -> None:
    plain = manifest(version=0)
    with pytest.raises(WatchlistError, match="manifest is malformed"):
        watchlist.open_watchlist(make(kit.signer, kit.unit, plain), **kit.opening)


def test_wrong_numbers_of_templates_are_refused_when_it_is_made(kit: Kit) -> None:
    key = kit.unit.sealing[0]
    with pytest.raises(WatchlistError, match="templates for 5 entries"):
        watchlist.make(manifest(), templates(4), "w", key.public(), key.id, [kit.signer])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_any_flipped_byte_is_refused(kit: Kit, position: int, flip: int) -> None:
    blob = bytearray(kit.blob)
    blob[position % len(blob)] ^= flip
    with pytest.raises(WatchlistError):
        watchlist.open_watchlist(bytes(blob), **kit.opening)
