"""How a machine joins: it makes its own keys, asks with a signed request, and installs what the base answers.

 1. machine  make_request   private keys are made here and stay here; `request.json` has the public halves and a CSR
 2. base     keys admit     signs the certificate, puts the identity on the roster, answers with `admission.json`
 3. machine  admit          checks the answer, installs certificate, CA, pinned authorities and roster

On first admission nothing is pinned yet: the authority's fingerprint must be compared by voice or on paper. Later
admissions and rosters must be signed by an authority that is already pinned, and a roster never goes back.

A unit makes many sealing keys at once: each deployment is sealed to one of them, and destroying that one at the end
erases the deployment wherever copies of it may be (crypto-erase).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import Field
from securesystemslib.signer import Key

from appliance.errors import KeyFileError, SealError
from appliance.limits import LIMITS
from appliance.records import Record
from appliance.storage.files import read_bounded, read_record, write_private, write_public
from appliance.trust import envelope, keys, locker

SEALING_KEYS = 32  # deployments a unit can serve before it must be admitted again
REQUEST, ADMISSION = "request", "admission"


class Request(Record):
    """A machine asks to belong. `csr` is PEM; an authority needs no certificate and has none."""

    format: Literal[1] = 1
    identity: keys.Identity
    csr: str | None = Field(default=None, max_length=8192)


class Admission(Record):
    """The base's answer. `roster` is the signed roster's text, certificates are PEM."""

    format: Literal[1] = 1
    name: str
    certificate: str | None = Field(default=None, max_length=16384)
    ca: str = Field(max_length=16384)
    authorities: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=64)
    roster: str = Field(max_length=LIMITS.config_bytes)


def make_request(
    folder: Path,
    role: keys.MachineRole,
    name: str,
    out: Path | None = None,
    *,
    sealing_keys: int | None = None,
    secret: str | None = None,
) -> Path:
    """Make the keys of a machine where it has none, top up its sealing keys, and write its signed request.

    `secret` locks the private keys under a passphrase. Returns the request's path. Raises KeyFileError.
    """
    if not (folder / "identity.json").exists():
        if secret is not None:
            folder.mkdir(parents=True, exist_ok=True)
            locker.start(folder, secret)
        keys.create(folder, role, name, sealing_keys=0)
    identity = read_record(folder / "identity.json", keys.Identity)
    if (identity.role, identity.name) != (role, name):
        raise KeyFileError(f"{folder}: holds the keys of {identity.role} {identity.name}; use another folder")
    identity = _top_up(folder, identity, _wanted(role) if sealing_keys is None else sealing_keys)
    csr = None if role == "authority" else _csr(folder, role, name)
    request = Request(identity=identity, csr=csr)
    out = out or folder / "request.json"
    write_public(out, envelope.sign(request, REQUEST, keys.signer_of(folder)))
    return out


def read_request(blob: bytes) -> Request:
    """A request whose signature is by the very key it presents: nobody can ask with another's key."""
    presented = envelope.unverified(blob, REQUEST, Request).identity.signing_key()
    return envelope.read(blob, REQUEST, Request, [presented])


def authority_fingerprints(blob: bytes) -> list[str]:
    """The authority fingerprints that an admission would pin, to compare by voice before it is installed."""
    return [keys.fingerprint(a["keyid"]) for a in envelope.unverified(blob, ADMISSION, Admission).authorities]


def admit(folder: Path, admission: Path | bytes, fingerprint: str | None = None) -> keys.Roster:
    """Check and install an admission. `fingerprint` is the authority's, as read aloud by the base.

    Raises KeyFileError or SealError; nothing is installed unless all of it is right.
    """
    blob = admission if isinstance(admission, bytes) else read_bounded(admission, LIMITS.config_bytes)
    trusted = _trusted(folder, blob, fingerprint)
    answer = envelope.read(blob, ADMISSION, Admission, trusted)
    identity = read_record(folder / "identity.json", keys.Identity)
    if answer.name != identity.name:
        raise KeyFileError(f"this admission is for {answer.name}, these are the keys of {identity.name}")
    roster = keys.verify_roster(answer.roster.encode(), trusted)
    _never_back(folder, roster)
    if answer.certificate is not None:
        _check_certificate(folder, answer.certificate, answer.ca, identity.name)
        write_public(folder / "tls.crt", answer.certificate.encode())
    write_public(folder / "ca.crt", answer.ca.encode())
    keys.install_roster(folder, answer.roster.encode(), roster)
    return roster


def update_roster(folder: Path, blob: bytes) -> keys.Roster:
    """Install a newer roster, signed by a pinned authority. The authorities it names become the pinned ones."""
    roster = keys.verify_roster(blob, keys.pinned(folder))
    _never_back(folder, roster)
    keys.install_roster(folder, blob, roster)
    return roster


def lock(folder: Path, secret: str) -> int:
    """Put the private keys of a folder under a passphrase (locker.py). Returns how many files.

    `tls.key` stays as it is: the courier reads it, and has no passphrase.
    """
    private = [folder / n for n in ("signing.pem", "ca.key", "store.key") if (folder / n).exists()]
    private += sorted((folder / "sealing").glob("*.pem"))
    plain = {path: keys.read_private(path) for path in private}
    locker.start(folder, secret)
    for path, blob in plain.items():
        write_private(path, locker.lock(folder, path.name, blob, secret))
    return len(plain)


def _trusted(folder: Path, blob: bytes, fingerprint: str | None) -> list[Key]:
    presented = [keys.key_from(a) for a in envelope.unverified(blob, ADMISSION, Admission).authorities]
    found = {keys.fingerprint(k.keyid) for k in presented}
    if fingerprint is not None and _digits(fingerprint) not in {_digits(f) for f in found}:
        raise KeyFileError(
            "the authority's fingerprint is another one: do not use this file, ask the base for it again"
        )
    return keys.pinned(folder) if (folder / "authorities.json").exists() else presented


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


def _never_back(folder: Path, roster: keys.Roster) -> None:
    if not (folder / "roster.json").exists():
        return
    have = keys.load_roster(folder).version
    if roster.version < have:
        raise SealError(f"roster version {roster.version} is older than version {have} already here; use the newest")


def _wanted(role: keys.MachineRole) -> int:
    return {"unit": SEALING_KEYS, "control": 1, "authority": 0}[role]


def _top_up(folder: Path, identity: keys.Identity, wanted: int) -> keys.Identity:
    """Replace sealing keys that were destroyed by fresh ones; the identity lists exactly those that are here."""
    here = tuple(k for k in identity.sealing if (folder / "sealing" / f"{k.id}.pem").exists())
    fresh = tuple(keys.add_sealing_key(folder) for _ in range(wanted - len(here)))
    identity = identity.model_copy(update={"sealing": here + fresh})
    write_public(folder / "identity.json", identity.model_dump_json(indent=2).encode())
    return identity


def _csr(folder: Path, role: str, name: str) -> str:
    """P-256 for TLS: every broker and TLS library takes it, which is not yet so for Ed25519 certificates."""
    path = folder / "tls.key"
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        write_private(path, private_pem(fresh))
    key = serialization.load_pem_private_key(keys.read_private(path), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(f"{path}: not a P-256 key; move it away and ask again")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name),
                         x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role)])  # fmt: skip
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A TLS private key as PEM; it is not under the passphrase, because the courier reads it and has none."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _check_certificate(folder: Path, certificate: str, ca: str, name: str) -> None:
    try:
        ours, issuer = x509.load_pem_x509_certificate(certificate.encode()), x509.load_pem_x509_certificate(ca.encode())
        ours.verify_directly_issued_by(issuer)
    except Exception as error:  # the library raises several unrelated kinds; all mean the same here
        raise KeyFileError(f"the certificate in this admission is not by its own CA ({error}); ask again") from error
    key = serialization.load_pem_private_key(keys.read_private(folder / "tls.key"), None)
    if key.public_key() != ours.public_key():
        raise KeyFileError("the certificate is for another TLS key: the request was made again since; send the new one")
    names = [a.value for a in ours.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name]:
        raise KeyFileError(f"the certificate names {names}, not {name}; ask the base again")
