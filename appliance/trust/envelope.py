"""Signed records that anyone may read: DSSE in JSON, one or several signers.

Sealed things use seal.py; orders, receipts, requests, admissions and recalls have no secrets and use this.
DSSE, because its pre-authentication encoding covers type and payload, and because securesystemslib signs it with
files, smart cards and cloud keys alike.

Stricter than DSSE asks, so that one document has one form of bytes: the JSON is re-encoded and must be the same to
the byte, and every signature on it must verify by a trusted key, each key once. A stray signature is not ignored:
somebody put it there, and a digest of the file would differ with and without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signer

from appliance.errors import SealError
from appliance.records import Record

DOCUMENT_BYTES = 16_000_000  # a pre-flight of 10,000 references; other kinds are bounded lower where they are read
RecordType = TypeVar("RecordType", bound=Record)


def payload_type(kind: str) -> str:
    """DSSE payload type of a kind of signed record."""
    return f"application/vnd.bluelamp.{kind}.v1+json"


def sign(record: Record, kind: str, signer: Signer) -> bytes:
    """The record as a signed document."""
    envelope = Envelope(record.model_dump_json().encode(), payload_type(kind), {})
    envelope.sign(signer)
    return encode(envelope)


def add_signature(blob: bytes, kind: str, signer: Signer) -> bytes:
    """The same document with one more signature. Raises SealError where this key signed it before."""
    envelope = parse(blob, kind)
    if signer.public_key.keyid in envelope.signatures:
        raise SealError(f"this {kind} is already signed by this key; another authority must sign it")
    envelope.sign(signer)
    return encode(envelope)


def read(blob: bytes, kind: str, model: type[RecordType], keys: Sequence[Key], quorum: int = 1) -> RecordType:
    """Verify at least `quorum` signatures by different `keys`, then parse. Raises SealError."""
    envelope = parse(blob, kind)
    signers = verified_signers(envelope, kind, keys)
    if len(signers) < quorum:
        raise SealError(
            f"this {kind} has {len(signers)} of the {quorum} signatures it needs; have another authority sign it"
        )
    return record_in(envelope, kind, model)


def unverified(blob: bytes, kind: str, model: type[RecordType]) -> RecordType:
    """The record inside, nothing verified: only to show it, or to find the key that it names."""
    return record_in(parse(blob, kind), kind, model)


def verified_signers(envelope: Envelope, kind: str, keys: Sequence[Key]) -> list[str]:
    """Key ids of all signers. Raises SealError unless every signature is by one of `keys` and verifies."""
    known = {key.keyid: key for key in keys}
    pae = envelope.pae()
    for keyid, signature in envelope.signatures.items():
        key = known.get(keyid)
        if key is None:
            raise SealError(f"this {kind} is signed by key {keyid[:12]}..., which is not trusted here or was revoked; "
                            "have it signed by keys on the roster, or update the roster")  # fmt: skip
        try:
            key.verify_signature(signature, pae)
        except UnverifiedSignatureError as error:
            raise SealError(
                f"the signature of this {kind} does not verify: it was altered; ask for it again"
            ) from error
    return list(envelope.signatures)


def parse(blob: bytes, kind: str) -> Envelope:
    """The envelope, its form checked to the byte, no signature verified. Raises SealError."""
    if len(blob) > DOCUMENT_BYTES:
        raise SealError(f"{len(blob)} bytes are too many for a signed {kind}; choose the right file")
    try:
        envelope = Envelope.from_dict(json.loads(blob))
        same = encode(envelope) == blob
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SealError(f"not a signed {kind}, or damaged; ask for it again") from error
    if envelope.payload_type != payload_type(kind):
        raise SealError(f"signed as {str(envelope.payload_type)[:80]!r}, not as a {kind}; choose the right file")
    if not same:
        raise SealError(f"this {kind} was edited after it was written; ask for it again")
    return envelope


def record_in(envelope: Envelope, kind: str, model: type[RecordType]) -> RecordType:
    """The envelope's payload as a record. Raises SealError."""
    try:
        return model.model_validate_json(envelope.payload)
    except ValidationError as error:
        where = ".".join(str(p) for p in error.errors()[0]["loc"])
        raise SealError(f"this {kind} is malformed ({where}: {error.errors()[0]['msg']}); make it again") from error


def encode(envelope: Envelope) -> bytes:
    """The one form of bytes a signed document has."""
    return (json.dumps(envelope.to_dict(), indent=1, sort_keys=True) + "\n").encode()
