"""The client side of mutual TLS: files, validity, context, and OpenSSL's errors in words.

TLS 1.3 only: there is no older peer to talk to, and its handshake encrypts the certificates.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from appliance.errors import KeyFileError
from appliance.limits import LIMITS
from appliance.records import Record
from appliance.storage.files import read_bounded
from appliance.trust import keys

HUNG_UP = "it hung up when it saw our certificate: revoked, expired, or of another base? Its log tells"


class TlsFiles(Record):
    """The CA of the broker, and this client's certificate and private key."""

    ca: Path
    certificate: Path
    key: Path


def common_name(files: TlsFiles) -> str:
    """The name the certificate gives its holder; the broker takes it as the user name. Raises KeyFileError."""
    certificate = _certificate(files.certificate)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise KeyFileError(f"{files.certificate}: names nobody; have it issued again")
    return str(names[0].value)


def check_validity(files: TlsFiles, now: float) -> None:
    """The certificate is valid at `now` (UTC seconds). Raises KeyFileError."""
    certificate = _certificate(files.certificate)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends.timestamp():
        raise KeyFileError(f"{files.certificate}: expired on {ends:%Y-%m-%d %H:%M} UTC; have a new one issued")
    if now < begins.timestamp():
        raise KeyFileError(f"{files.certificate}: begins only on {begins:%Y-%m-%d %H:%M} UTC; set this machine's clock")


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A client context: TLS 1.3, broker verified by our CA and by name, our certificate shown. Raises KeyFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(str(files.ca))
        _load_chain(context, files)
    except (OSError, ValueError) as error:
        raise KeyFileError(
            f"{files.certificate.parent}: TLS files are missing, damaged or do not belong together ({error}); "
            "run 'admit' again with what the base sent"
        ) from error
    return context


def _load_chain(context: ssl.SSLContext, files: TlsFiles) -> None:
    """The key may be under a passphrase or a systemd credential; OpenSSL wants a path: an anonymous file in memory."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, keys.read_private(files.key))
        context.load_cert_chain(str(files.certificate), f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, LIMITS.config_bytes))
    except ValueError as error:
        raise KeyFileError(f"{path}: not a certificate ({error}); have it issued again") from error


def explain(error: object) -> str:
    """OpenSSL's words, followed by what to do."""
    text = str(error)
    advice = {
        "EXPIRED": "a certificate has expired; have a new one issued (and check the clock)",
        "UNKNOWN_CA": "the broker does not know the authority of our certificate; both must come from one base",
        "REVOKED": "our certificate was revoked; ask the base",
        "CERTIFICATE_REQUIRED": "the broker wants a client certificate",
        "IP address mismatch": "the broker's certificate is for another address",
        "Hostname mismatch": "the broker's certificate is for another name",
        "not yet valid": "the broker's certificate begins later than this machine's clock; set the clock",
        "certificate has expired": "the broker's certificate has expired; renew it (or check the clock)",
        "CERTIFICATE_VERIFY_FAILED": "the broker's certificate is not by our authority; both must come from one base",
        "WRONG_VERSION_NUMBER": "this is not a TLS port",
        "EOF occurred": HUNG_UP,
        "reset by peer": HUNG_UP,
        "Broken pipe": HUNG_UP,
        "PROTOCOL_VERSION": "the broker does not speak TLS 1.3",
    }
    found = next((words for mark, words in advice.items() if mark.lower() in text.lower()), "")
    return f"{found} ({text})" if found else text
