"""A sealed container opens for its recipient, whole and from a trusted sender, or it does not open."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner, Key

from appliance.errors import SealError
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.trust import keys, seal


class Pair:
    """A sender and a recipient."""

    def __init__(self, folder: Path) -> None:
        self.sender = keys.create(folder / "s", "unit", "van-07")
        self.recipient = keys.create(folder / "r", "control", "room")
        self.signer = CryptoSigner(keys.load_signing(folder / "s" / "signing.pem"))
        key = self.recipient.sealing[0]
        self.opening = {key.id: keys.load_sealing(folder / "r" / "sealing" / f"{key.id}.pem")}

    def header(self, kind: str = "alert") -> Header:
        return Header.model_validate({
            "kind": kind, "id": "a-1", "unit": "van-07", "deployment": "D-1", "created": 1.0, "expires": 2.0,
            "sender": self.signer.public_key.keyid, "recipient": self.recipient.sealing[0].id,
        })  # fmt: skip

    def seal(self, plaintext: bytes, kind: str = "alert") -> bytes:
        return seal.seal(self.header(kind), plaintext, self.recipient.sealing[0].public(), [self.signer])

    def open(self, blob: bytes, trusted: list[Key] | None = None) -> bytes:
        parts = seal.take_apart(blob, LIMITS.envelope_bytes)
        seal.verify(parts, [self.sender.signing_key()] if trusted is None else trusted)
        return seal.open_sealed(parts, self.opening)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


@settings(max_examples=30, deadline=None)
@given(plaintext=st.binary(max_size=2000))
def test_what_is_sealed_opens_unchanged(pair: Pair, plaintext: bytes) -> None:
    blob = pair.seal(plaintext)
    assert pair.open(blob) == plaintext
    body = seal.take_apart(blob, LIMITS.envelope_bytes).body
    assert len(plaintext) < 8 or plaintext not in body


@settings(max_examples=80, deadline=None)
@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_any_flipped_byte_is_refused(pair: Pair, position: int, flip: int) -> None:
    blob = bytearray(pair.seal(b"an alert"))
    blob[position % len(blob)] ^= flip
    with pytest.raises(SealError):
        pair.open(bytes(blob))


@settings(max_examples=60, deadline=None)
@given(junk=st.binary(max_size=400))
def test_junk_is_refused_as_a_seal_error_and_nothing_else(pair: Pair, junk: bytes) -> None:
    for blob in (junk, seal.MAGIC + junk, pair.seal(b"x")[:40] + junk):
        with pytest.raises(SealError):
            pair.open(blob)


def test_an_untrusted_sender_is_refused_before_anything_is_opened(pair: Pair, tmp_path: Path) -> None:
    stranger = keys.create(tmp_path / "x", "unit", "van-99")
    with pytest.raises(SealError, match="not by a trusted key"):
        pair.open(pair.seal(b"x"), [stranger.signing_key()])


def test_one_kind_cannot_be_taken_for_another(pair: Pair) -> None:
    """The signature covers the kind: a health report whose header says alert does not verify."""
    blob = pair.seal(b"{}", "health")
    with pytest.raises(SealError):
        pair.open(blob.replace(b'"kind":"health"', b'"kind":"alert" ', 1))


def test_another_recipient_cannot_open(pair: Pair, tmp_path: Path) -> None:
    other = Pair(tmp_path / "other")
    parts = seal.take_apart(pair.seal(b"x"), LIMITS.envelope_bytes)
    with pytest.raises(SealError, match="for another machine"):
        seal.open_sealed(parts, other.opening)


def test_a_newer_version_and_an_oversized_container_are_named(pair: Pair) -> None:
    blob = bytearray(pair.seal(b"x"))
    blob[8] = 9
    with pytest.raises(SealError, match="format version 9"):
        pair.open(bytes(blob))
    with pytest.raises(SealError, match="more than the"):
        pair.open(bytes(LIMITS.envelope_bytes + 1))


def test_two_signatures_of_one_key_do_not_make_a_quorum(pair: Pair) -> None:
    recipient = pair.recipient.sealing[0].public()
    blob = seal.seal(pair.header(), b"x", recipient, [pair.signer, pair.signer])
    with pytest.raises(SealError, match="signed twice"):
        pair.open(blob)


def test_private_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    keys.create(tmp_path / "k", "unit", "van-07")
    (tmp_path / "k" / "signing.pem").chmod(0o644)
    with pytest.raises(keys.KeyFileError, match="chmod 600"):
        keys.load_signing(tmp_path / "k" / "signing.pem")
