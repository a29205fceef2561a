"""The issuing authority and the small certificate authority beside it.

The CA signs with P-256 and issues two kinds of certificate: clients (units, control rooms; common name = the name the
broker enforces) and the broker's own. Certificates of machines last a year; the CA ten.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import KeyFileError
from appliance.storage.files import write_private, write_public
from appliance.trust import admission, envelope, keys, locker
from appliance.trust.admission import Admission, Request
from provisioning import policy
from provisioning.base import Base, open_base

_YEARS_CA, _DAYS_MACHINE = 10, 366
RESERVED = frozenset({"broker", "mosquitto", "anonymous"})  # names that mean something to the broker


def init(folder: Path, name: str = "base", *, secret: str | None = None) -> Base:
    """Make a base: authority key, CA, roster version 1, policy, store key. `secret` locks the private keys.

    Raises KeyFileError where a base is already there.
    """
    if (folder / "identity.json").exists():
        raise KeyFileError(f"{folder}: already holds keys; move them away first, they are not overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if secret is not None:
        locker.start(folder, secret)
    identity = keys.create(folder, "authority", name)
    _make_ca(folder, name)
    keys.store_private(folder, folder / "store.key", os.urandom(32))
    write_public(folder / "policy.toml", policy.DEFAULT.encode())
    roster = keys.Roster(version=1, made=time.time(), authorities=(identity,))
    _publish(folder, roster)
    base = open_base(folder)
    base.audit.add("keys", identity.signing_key().keyid, f"authority {name} and its certificate authority made")
    return base


def admit(base: Base, request: bytes, *, replace: bool = False) -> bytes:
    """Answer a request: sign its certificate, put its identity on the roster. Returns the signed admission.

    A name that another key already has needs `replace`, which revokes the old key. Raises KeyFileError, SealError.
    """
    asked = admission.read_request(request)
    _check_name(asked)
    roster = _with(base.keys.roster, asked.identity, replace)
    certificate = None if asked.csr is None else _sign_csr(base.folder, asked.csr, asked.identity)
    signed = _publish(base.folder, roster)
    identity = asked.identity
    what = f"{identity.role} {identity.name} admitted, {len(identity.sealing)} sealing keys, roster {roster.version}"
    base.audit.add("keys", identity.signing_key().keyid, what)
    answer = Admission(
        name=identity.name, certificate=certificate, ca=(base.folder / "ca.crt").read_text(),
        authorities=tuple(a.signing for a in roster.authorities if a.signing_key().keyid not in roster.revoked),
        roster=signed.decode(),
    )  # fmt: skip
    return envelope.sign(answer, admission.ADMISSION, base.keys.signer)


def revoke(base: Base, name: str) -> keys.Roster:
    """Trust a machine's or an authority's key no more: new roster, new certificate revocation list."""
    roster = base.keys.roster
    found = [i for i in (*roster.authorities, *roster.units, *roster.controls) if i.name == name]
    current = [i.signing_key().keyid for i in found if i.signing_key().keyid not in roster.revoked]
    if not current:
        raise KeyFileError(f"{name}: not on the roster; see: bluelamp-provision keys show {base.folder}")
    if base.keys.identity.signing_key().keyid in current:
        raise KeyFileError(
            f"{name} is this base's own key; replace it with: bluelamp-provision keys rotate {base.folder}"
        )
    _revoke_certificates(base.folder, name)
    roster = _next(roster, revoked=(*roster.revoked, *current))
    _publish(base.folder, roster)
    base.audit.add("keys", current[0], f"{name} revoked, roster {roster.version}")
    return roster


def set_quorum(base: Base, quorum: int) -> keys.Roster:
    """How many authorities must sign an order."""
    have = len(base.keys.roster.authority_keys())
    if not 1 <= quorum <= have:
        raise KeyFileError(f"a quorum of {quorum} with {have} authorities; admit more authorities first")
    roster = _next(base.keys.roster, quorum=quorum)
    _publish(base.folder, roster)
    base.audit.add("keys", f"roster {roster.version}", f"quorum set to {quorum}")
    return roster


def rotate(base: Base) -> Base:
    """Replace this base's signing key. Both sign the roster that says so: machines must get that one next."""
    old = base.keys.identity
    staged = base.folder / "next"
    staged.mkdir(mode=0o700, exist_ok=True)
    (staged / "identity.json").unlink(missing_ok=True)
    fresh = keys.create(staged, "authority", old.name)
    roster = _next(base.keys.roster, authorities=tuple(fresh if a == old else a for a in base.keys.roster.authorities),
                   revoked=(*base.keys.roster.revoked, old.signing_key().keyid))  # fmt: skip
    signed = keys.sign_roster(roster, base.keys.signer, keys.signer_of(staged))
    base.audit.add("keys", fresh.signing_key().keyid, f"replaces {old.signing_key().keyid}, roster {roster.version}")
    keys.store_private(base.folder, base.folder / "signing.pem", keys.read_private(staged / "signing.pem"))
    (staged / "identity.json").replace(base.folder / "identity.json")
    (staged / "signing.pem").unlink()
    staged.rmdir()
    _install(base.folder, signed, roster)
    return open_base(base.folder)


def broker_certificate(base: Base, hosts: Sequence[str], out: Path) -> None:
    """The broker's certificate and key (`server.crt`, `server.key`) with the CA and its revocation list, in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [_general_name(h) for h in hosts]
    builder = _builder(hosts[0], "broker", key.public_key(), _ca(base.folder)[0], _DAYS_MACHINE)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    certificate = builder.sign(_ca(base.folder)[1], hashes.SHA256())
    write_private(out / "server.key", admission.private_pem(key))
    write_public(out / "server.crt", certificate.public_bytes(serialization.Encoding.PEM))
    write_public(out / "ca.crt", (base.folder / "ca.crt").read_bytes())
    write_public(out / "crl.pem", (base.folder / "crl.pem").read_bytes())
    base.audit.add("keys", hosts[0][:128], f"broker certificate for {', '.join(hosts)}")


def _with(roster: keys.Roster, identity: keys.Identity, replace: bool) -> keys.Roster:
    """The next roster with this identity; the newest entry of a name replaces the older."""
    everybody = (*roster.authorities, *roster.units, *roster.controls)
    keyid = identity.signing_key().keyid
    if keyid in roster.revoked:
        raise KeyFileError(f"{identity.name}: this key was revoked; the machine must make new keys and ask again")
    others = [i for i in everybody if i.name == identity.name and i.signing_key().keyid not in (keyid, *roster.revoked)]
    if others and not replace:
        owner = keys.fingerprint(others[0].signing_key().keyid)
        raise KeyFileError(
            f"{identity.name}: the name belongs to another key ({owner}); choose another name, or replace that "
            "machine with --replace"
        )
    field = {"authority": "authorities", "unit": "units", "control": "controls"}[identity.role]
    gone = {i.signing_key().keyid for i in others}
    if gone & {a.signing_key().keyid for a in roster.authorities} and identity.role != "authority":
        raise KeyFileError(f"{identity.name}: the name of an authority; choose another name")
    kept = {f: tuple(i for i in getattr(roster, f) if i.signing_key().keyid not in {keyid, *gone})
            for f in ("authorities", "units", "controls")}  # fmt: skip
    kept[field] = (*kept[field], identity)
    return _next(roster, **kept, revoked=(*roster.revoked, *sorted(gone)))


def _next(roster: keys.Roster, **changes: object) -> keys.Roster:
    return roster.model_copy(update={"version": roster.version + 1, "made": time.time(), **changes})


def _publish(folder: Path, roster: keys.Roster) -> bytes:
    signed = keys.sign_roster(roster, keys.signer_of(folder))
    _install(folder, signed, roster)
    return signed


def _install(folder: Path, signed: bytes, roster: keys.Roster) -> None:
    (folder / "rosters").mkdir(exist_ok=True)
    write_public(folder / "rosters" / f"{roster.version:06d}.json", signed)
    keys.install_roster(folder, signed, roster)


def _check_name(asked: Request) -> None:
    if asked.identity.name in RESERVED:
        raise KeyFileError(f"{asked.identity.name}: a reserved name; choose another")
    if asked.identity.role != "authority" and asked.csr is None:
        raise KeyFileError(f"{asked.identity.name}: the request has no certificate request; make it again")


def _make_ca(folder: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Bluelamp CA of {name}")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS_CA))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_usage(authority=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    keys.store_private(folder, folder / "ca.key", admission.private_pem(key))
    write_public(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    _write_crl(folder, [])


def _ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(keys.read_private(folder / "ca.key"), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(f"{folder / 'ca.key'}: not the CA's key; restore it from its backup")
    return x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()), key


def _sign_csr(folder: Path, text: str, identity: keys.Identity) -> str:
    """Only the public key is taken from the CSR: name and role are what the roster says."""
    try:
        csr = x509.load_pem_x509_csr(text.encode())
    except ValueError as error:
        raise KeyFileError(
            f"{identity.name}: its certificate request cannot be read ({error}); make it again"
        ) from error
    if not csr.is_signature_valid or not isinstance(csr.public_key(), ec.EllipticCurvePublicKey):
        raise KeyFileError(
            f"{identity.name}: its certificate request is not signed by its own P-256 key; make it again"
        )
    authority, key = _ca(folder)
    builder = _builder(identity.name, identity.role, csr.public_key(), authority, _DAYS_MACHINE)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    certificate = builder.sign(key, hashes.SHA256())
    issued = folder / "certificates"
    issued.mkdir(exist_ok=True)
    write_public(
        issued / f"{identity.name}-{certificate.serial_number:x}.crt",
        certificate.public_bytes(serialization.Encoding.PEM),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _builder(name: str, role: str, public: object, authority: x509.Certificate, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
                         x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role)])  # fmt: skip
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(authority.subject)
        .public_key(public)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_usage(authority=False), True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
    )  # fmt: skip


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _revoke_certificates(folder: Path, name: str) -> None:
    crl = x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())
    mine = [int(p.stem.rsplit("-", 1)[1], 16) for p in (folder / "certificates").glob("*.crt")
            if re.fullmatch(re.escape(name) + r"-[0-9a-f]+", p.stem)]  # fmt: skip
    _write_crl(folder, sorted({*mine, *(r.serial_number for r in crl)}))


def _write_crl(folder: Path, serials: Sequence[int]) -> None:
    """A revocation list of every serial number that was ever revoked; the broker's `crlfile`."""
    authority, key = _ca(folder)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject).last_update(now)
    builder = builder.next_update(now + datetime.timedelta(days=365 * _YEARS_CA))
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(revoked)
    signed = builder.sign(key, hashes.SHA256())
    write_public(folder / "crl.pem", signed.public_bytes(serialization.Encoding.PEM))
