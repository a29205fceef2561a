"""Key folders: what a unit, a control room or the base holds, and whom each trusts.

A key folder (0700) holds
    identity.json       public: name, role, signing key, sealing keys
    signing.pem         Ed25519, private
    sealing/<id>.pem    X25519, private; a unit has one for each deployment, destroyed with it (crypto-erase)
    tls.key, tls.crt    the MQTT client certificate; its common name is the unit's name
    ca.crt              the certificate authority of the broker
    roster.json         DSSE: who belongs to the system, signed by the authority
    authorities.json    the authority keys this machine pinned when it was admitted
    lock.json           where the private keys are under a passphrase (locker.py)

Private keys never leave the folder they were made in. A private file that is not in the folder may be delivered as a
systemd credential of the same name.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field, ValidationError
from securesystemslib.dsse import Envelope as DsseEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from appliance.errors import KeyFileError, SealError
from appliance.limits import LIMITS
from appliance.records import Record
from appliance.storage.files import (
    read_bounded,
    read_json,
    read_record,
    write_private,
    write_public,
)
from appliance.trust import locker

MachineRole = Literal["unit", "control", "authority"]


class SealingKey(Record):
    """Public half of a sealing key: `id` is the SHA-256 of its 32 raw bytes, `key` those bytes in hexadecimal."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    key: str = Field(pattern=r"^[0-9a-f]{64}$")

    def public(self) -> X25519PublicKey:
        """The key itself; SealError where the identifier is not its digest."""
        raw = bytes.fromhex(self.key)
        if hashlib.sha256(raw).hexdigest() != self.id:
            raise SealError(f"sealing key {self.id[:12]}... does not match its identifier; ask for the identity again")
        return X25519PublicKey.from_public_bytes(raw)


class Identity(Record):
    """The public side of a machine or an authority."""

    format: Literal[1] = 1
    role: MachineRole
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    signing: dict[str, Any]  # securesystemslib's public key form, with its key id
    sealing: tuple[SealingKey, ...] = Field(default=(), max_length=512)

    def signing_key(self) -> Key:
        """The public signing key as securesystemslib's Key."""
        return key_from(self.signing)


class Roster(Record):
    """Everybody who belongs to the system. A higher version replaces a lower one, never the reverse."""

    format: Literal[1] = 1
    version: int = Field(ge=1)
    made: float
    authorities: tuple[Identity, ...]
    quorum: int = Field(ge=1, le=16, default=1)  # signatures an order needs
    units: tuple[Identity, ...] = ()
    controls: tuple[Identity, ...] = ()
    revoked: tuple[str, ...] = ()  # key ids that are trusted no more

    def authority_keys(self) -> list[Key]:
        """Keys whose signature on a watchlist, an order or a roster counts."""
        return [k for k in (a.signing_key() for a in self.authorities) if k.keyid not in self.revoked]

    def unit(self, name: str) -> Identity | None:
        """The unit of that name, unless it was revoked."""
        found = [u for u in self.units if u.name == name and u.signing_key().keyid not in self.revoked]
        return found[0] if found else None


ROSTER_TYPE = "application/vnd.bluelamp.roster.v1+json"


@dataclass(frozen=True)
class KeyFolder:
    """An opened key folder. `sealing` maps a sealing key's id to its private half."""

    folder: Path
    identity: Identity
    signer: Signer
    sealing: dict[str, X25519PrivateKey] = field(repr=False)
    roster: Roster

    @property
    def tls(self) -> tuple[Path, Path, Path]:
        """Paths of the CA, the client certificate and its key, for the MQTT client."""
        return self.folder / "ca.crt", self.folder / "tls.crt", self.folder / "tls.key"

    def control(self) -> tuple[SealingKey, str]:
        """The control room's newest sealing key and name; KeyFileError where the roster has none."""
        for control in self.roster.controls:
            if control.sealing and control.signing_key().keyid not in self.roster.revoked:
                return control.sealing[-1], control.name
        raise KeyFileError(f"{self.folder}: the roster names no control room; admit one and bring the new roster here")


@dataclass(frozen=True)
class PublicFolder:
    """What a key folder tells without its private keys: no passphrase is needed."""

    identity: Identity
    roster: Roster


def create(folder: Path, role: MachineRole, name: str, sealing_keys: int = 1) -> Identity:
    """Make a key folder with fresh private keys. Raises KeyFileError where one is already there."""
    if (folder / "identity.json").exists():
        raise KeyFileError(f"{folder}: already holds keys; move them away first, they are not overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    signing = Ed25519PrivateKey.generate()
    store_private(folder, folder / "signing.pem", _pem(signing))
    public = CryptoSigner(signing).public_key
    keys = tuple(add_sealing_key(folder) for _ in range(sealing_keys if role != "authority" else 0))
    identity = Identity(role=role, name=name, signing={"keyid": public.keyid, **public.to_dict()}, sealing=keys)
    write_public(folder / "identity.json", identity.model_dump_json(indent=2).encode())
    return identity


def add_sealing_key(folder: Path) -> SealingKey:
    """Make one more sealing key in a key folder; the caller lists it in `identity.json`."""
    key = X25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    entry = SealingKey(id=hashlib.sha256(raw).hexdigest(), key=raw.hex())
    (folder / "sealing").mkdir(mode=0o700, exist_ok=True)
    store_private(folder, folder / "sealing" / f"{entry.id}.pem", _pem(key))
    return entry


def store_private(folder: Path, path: Path, blob: bytes) -> None:
    """Write a private file of a key folder, under the folder's passphrase where it has one."""
    write_private(path, locker.lock(folder, path.name, blob) if locker.locks(folder) else blob)


def read_private(path: Path) -> bytes:
    """A private file's plain bytes: from the folder, or a systemd credential. Raises KeyFileError."""
    delivered = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / path.name
    if not path.exists() and delivered.exists():
        return read_bounded(
            delivered, LIMITS.header_bytes
        )  # systemd guards these: its access list is not ours to judge
    blob = read_bounded(path, LIMITS.header_bytes)
    about = path.stat()
    # A group that is not just its user's own was given on purpose: vision reads what only the keeper may destroy.
    if stat.S_IMODE(about.st_mode) & (0o077 if about.st_gid == os.getgid() else 0o037):
        raise KeyFileError(f"{path}: others can read this private key; run: chmod 600 {path}")
    if not locker.is_locked(blob):
        return blob
    return locker.unlock(path.parent.parent if path.parent.name == "sealing" else path.parent, path.name, blob)


def fingerprint(keyid: str) -> str:
    """A key id as people read it aloud: 30 digits in groups of five, about 100 of its 256 bits."""
    digits = str(int(hashlib.sha256(keyid.encode()).hexdigest(), 16) % 10**30).zfill(30)
    return " ".join(digits[i : i + 5] for i in range(0, 30, 5))


def load(folder: Path) -> KeyFolder:
    """Open a key folder: permissions, kinds and the roster's signature are checked. Raises KeyFileError."""
    identity = read_record(folder / "identity.json", Identity)
    signing = load_signing(folder / "signing.pem")
    if CryptoSigner(signing).public_key.keyid != identity.signing_key().keyid:
        raise KeyFileError(
            f"{folder}: signing.pem and identity.json do not belong together; restore both from one backup"
        )
    sealing = {p.stem: load_sealing(p) for p in sorted((folder / "sealing").glob("*.pem"))}
    return KeyFolder(folder, identity, CryptoSigner(signing), sealing, load_roster(folder))


def load_public(folder: Path) -> PublicFolder:
    """A key folder without its private keys. Raises KeyFileError."""
    return PublicFolder(read_record(folder / "identity.json", Identity), load_roster(folder))


def signer_of(folder: Path) -> Signer:
    """The signer of a key folder that need not be admitted yet."""
    return CryptoSigner(load_signing(folder / "signing.pem"))


def pinned(folder: Path) -> list[Key]:
    """The authority keys pinned in a key folder."""
    advice = "the machine is not admitted yet: run its 'keys admit' command"
    return [key_from(k) for k in read_json(folder / "authorities.json", advice)]


def load_roster(folder: Path) -> Roster:
    """The roster of a key folder, verified against the authority keys pinned beside it."""
    return verify_roster(read_bounded(folder / "roster.json", LIMITS.config_bytes), pinned(folder))


def install_roster(folder: Path, blob: bytes, roster: Roster) -> None:
    """Write a verified roster and pin the authorities it names, so that authorities can be rotated."""
    named = [a.signing for a in roster.authorities if a.signing_key().keyid not in roster.revoked]
    write_public(folder / "roster.json", blob)
    write_public(folder / "authorities.json", json.dumps(named, indent=1).encode())


def verify_roster(blob: bytes, authorities: list[Key]) -> Roster:
    """Check a roster's DSSE signature by any pinned authority, then parse it. Raises SealError."""
    try:
        envelope = DsseEnvelope.from_dict(json.loads(blob))
        if envelope.payload_type != ROSTER_TYPE:
            raise SealError("roster.json: signed as something else than a roster; ask the base for the roster")
        envelope.verify(authorities, 1)
        return Roster.model_validate_json(envelope.payload)
    except (
        VerificationError,
        ValidationError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise SealError(
            "roster.json: not signed by a pinned authority, or altered; ask the base for it again"
        ) from error


def sign_roster(roster: Roster, *signers: Signer) -> bytes:
    """The roster as DSSE JSON. Where an authority's key is replaced, the old and the new one sign."""
    envelope = DsseEnvelope(roster.model_dump_json().encode(), ROSTER_TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    return json.dumps(envelope.to_dict()).encode()


def load_signing(path: Path) -> Ed25519PrivateKey:
    """A private Ed25519 key that nobody else can read. Raises KeyFileError."""
    key = _load_private(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key; restore it from its backup")
    return key


def load_sealing(path: Path) -> X25519PrivateKey:
    """A private X25519 key that nobody else can read. Raises KeyFileError."""
    key = _load_private(path)
    if not isinstance(key, X25519PrivateKey):
        raise KeyFileError(f"{path}: not an X25519 key; restore it from its backup")
    return key


def _load_private(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(read_private(path), None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: not a readable private key ({error}); restore it from its backup") from error


def _pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from(data: dict[str, Any]) -> Key:
    """A public signing key from its public form; its id must be its digest. Raises SealError."""
    try:
        fields = dict(data)
        claimed = fields.pop("keyid")
        key = SSlibKey.from_dict(claimed, fields)
        if SSlibKey.from_crypto(key._crypto_key()).keyid != claimed:
            raise SealError(f"signing key {claimed[:12]}... does not match its identifier; ask for the identity again")
        return key
    except (KeyError, ValueError, TypeError) as error:
        raise SealError(f"malformed public signing key ({error}); ask for the identity again") from error
