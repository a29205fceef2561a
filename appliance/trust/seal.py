"""The sealed container: one binary format for alerts, health, receipts and watchlists.

    magic "BLUELAMP" | version u8 | header length u32 | body length u64 | signatures length u32   (big endian)
    header (JSON, public) | body (HPKE ciphertext) | signatures (JSON list of key id and signature)

Choices, each with its reason:
- HPKE (RFC 9180), base mode, X25519 + HKDF-SHA256 + ChaCha20-Poly1305: one recipient, nobody else, not even the
  sender, can open it. ChaCha20 because the smaller boards have no AES instructions. The header is HPKE's `info`,
  so a changed header does not open.
- HPKE does not say who sent it, so the whole is signed (Ed25519) with DSSE's pre-authentication encoding: payload
  type and payload are both covered and one kind can never be taken for another. The signature is outside: it is
  checked before anything is decrypted. The header inside the seal names sender and recipient, so re-signing
  somebody else's ciphertext gains nothing.
- DSSE's JSON form would carry a 25 MB watchlist in base64; the container keeps the bytes as they are. The signature is
  the same as DSSE's.

No plaintext leaves `open_sealed` before the whole container is authenticated.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import Field, TypeAdapter, ValidationError
from securesystemslib.dsse import Envelope as DsseEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, Signature, Signer

from appliance.errors import SealError
from appliance.limits import LIMITS
from appliance.records import Header, Record

MAGIC = b"BLUELAMP"
VERSION = 1
_PREFIX = struct.Struct(">8sBIQI")
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class _Signed(Record):
    keyid: str
    sig: str = Field(pattern=r"^[0-9a-f]+$")


_SIGNATURES = TypeAdapter(list[_Signed])


@dataclass(frozen=True)
class Sealed:
    """A container taken apart, nothing of it verified yet. `signed` is the stretch the signatures cover."""

    header: Header
    header_bytes: bytes
    body: bytes
    signatures: tuple[_Signed, ...]
    signed: bytes


def payload_type(kind: str) -> str:
    """DSSE payload type of a kind of container."""
    return f"application/vnd.bluelamp.{kind}.v1"


def seal(header: Header, plaintext: bytes, recipient: X25519PublicKey, signers: Sequence[Signer]) -> bytes:
    """Seal `plaintext` to `recipient` and sign the result with every signer."""
    header_bytes = header.model_dump_json().encode()
    body = _SUITE.encrypt(plaintext, recipient, info=header_bytes)
    envelope = DsseEnvelope(header_bytes + body, payload_type(header.kind), {})
    signed = [_Signed(keyid=s.keyid, sig=s.signature) for s in (envelope.sign(signer) for signer in signers)]
    signatures = _encode(signed)
    prefix = _PREFIX.pack(MAGIC, VERSION, len(header_bytes), len(body), len(signatures))
    return prefix + header_bytes + body + signatures


def take_apart(blob: bytes, limit: int) -> Sealed:
    """Step 1 to 3: bound the size, check the structure to the byte, parse the public header.

    Raises SealError; nothing in the result may be believed before `verify`.
    """
    if len(blob) > limit:
        raise SealError(f"{len(blob)} bytes, more than the {limit} allowed; it was not made by this project")
    if len(blob) < _PREFIX.size or not blob.startswith(MAGIC):
        raise SealError("not a sealed file of this project, or its beginning is missing; copy it again from its source")
    _, version, n_header, n_body, n_signatures = _PREFIX.unpack_from(blob)
    if version != VERSION:
        raise SealError(
            f"format version {version}; this software reads version {VERSION}: update it or reissue the file"
        )
    if n_header > LIMITS.header_bytes or n_signatures > LIMITS.signatures_bytes:
        raise SealError("header or signatures are larger than the format allows; it was not made by this project")
    wanted = _PREFIX.size + n_header + n_body + n_signatures
    if len(blob) != wanted:
        word = "cut short" if len(blob) < wanted else "followed by bytes that do not belong to it"
        raise SealError(f"{word}: {len(blob)} bytes where its header says {wanted}; copy it again from its source")
    start = _PREFIX.size
    header_bytes = blob[start : start + n_header]
    body = blob[start + n_header : start + n_header + n_body]
    try:
        header = Header.model_validate_json(header_bytes)
        signatures = tuple(_SIGNATURES.validate_json(blob[len(blob) - n_signatures :]))
    except ValidationError as error:
        raise SealError(
            f"malformed header ({error.errors()[0]['msg']}); it was altered or made by other software"
        ) from error
    if _encode(signatures) != blob[len(blob) - n_signatures :]:
        # One container has one form of bytes: its digest is a link of the chain of alerts.
        raise SealError("its signatures were rewritten after it was sealed; ask for it again")
    return Sealed(header, header_bytes, body, signatures, header_bytes + body)


def verify(sealed: Sealed, senders: Sequence[Key], threshold: int = 1) -> None:
    """Step 4: `threshold` different pinned senders signed exactly these bytes as exactly this kind."""
    signatures: dict[str, Signature] = {}
    for signed in sealed.signatures:
        if signed.keyid in signatures:
            raise SealError("signed twice by the same key; it was altered, or reissue it")
        signatures[signed.keyid] = Signature(signed.keyid, signed.sig)
    envelope = DsseEnvelope(sealed.signed, payload_type(sealed.header.kind), signatures)
    if len(senders) < threshold:
        raise SealError(
            f"{threshold} signature(s) are needed but only {len(senders)} key(s) are trusted; update the roster"
        )
    try:
        envelope.verify(list(senders), threshold)
    except (VerificationError, ValueError) as error:
        raise SealError(
            f"the signature of {sealed.header.kind} {sealed.header.id} is not by a trusted key: it was altered, "
            "or its sender is not on this machine's roster"
        ) from error


def open_sealed(sealed: Sealed, keys: Mapping[str, X25519PrivateKey]) -> bytes:
    """Step 5 and 6: the recipient is one of our keys, and the whole body opens with it.

    Call `verify` first: HPKE proves that nothing changed on the way, not who sent it.
    """
    key = keys.get(sealed.header.recipient)
    if key is None:
        raise SealError(
            f"sealed to key {sealed.header.recipient[:12]}..., which is not here: it is for another machine, "
            "or its key was destroyed"
        )
    try:
        return bytes(_SUITE.decrypt(sealed.body, key, info=sealed.header_bytes))
    except (InvalidTag, ValueError) as error:
        raise SealError("does not open: it was altered after it was sealed; ask for it again") from error


def _encode(signatures: Sequence[_Signed]) -> bytes:
    return json.dumps([signature.model_dump() for signature in signatures]).encode()
