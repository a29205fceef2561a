"""The builder's own keys: Secure Boot (PK, KEK, db), and the certificate that signs update bundles.

They are made at the first build, in a folder outside the repository, and used again. Whoever has them can make images
and updates that units accept: keep the folder offline between releases, and keep a copy.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

YEARS = 20
SIGNATURES = ("PK", "KEK", "db")
"""The three Secure Boot databases, each signed by the one before it."""


@dataclass(frozen=True)
class BuilderKeys:
    """Paths of one builder's keys. `owner` is the identifier under which firmware stores the certificates."""

    folder: Path

    @property
    def owner(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.certificate("PK").read_text()))

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def enrolment(self, name: str) -> Path:
        """The signed file by which systemd-boot enrols a certificate in firmware that is in setup mode."""
        return self.folder / f"{name}.auth"


def default_folder() -> Path:
    """$BLUELAMP_IMAGE_KEYS, else a folder of the user's own data."""
    given = os.environ.get("BLUELAMP_IMAGE_KEYS")
    return Path(given) if given else Path.home() / ".local/share/bluelamp/image-keys"


def keys_in(folder: Path) -> BuilderKeys:
    """The keys in `folder`; those that are missing are made."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    found = BuilderKeys(folder)
    for name in (*SIGNATURES, "update"):
        if not found.key(name).exists():
            _make(found, name)
    for name, signer in zip(SIGNATURES, ("PK", "PK", "KEK"), strict=True):
        if not found.enrolment(name).exists():
            _make_enrolment(found, name, signer)
    return found


def _make(keys: BuilderKeys, name: str) -> None:
    subject = f"/O=Bluelamp builder/CN=Bluelamp {name}"
    _run(
        [
            "openssl",
            "req",
            "-new",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-sha256",
            "-days",
            str(365 * YEARS),
            "-subj",
            subject,
            "-keyout",
            str(keys.key(name)),
            "-out",
            str(keys.certificate(name)),
        ]
    )
    keys.key(name).chmod(0o600)


def _make_enrolment(keys: BuilderKeys, name: str, signer: str) -> None:
    entry = keys.folder / f"{name}.esl"
    _run(["cert-to-efi-sig-list", "-g", keys.owner, str(keys.certificate(name)), str(entry)])
    _run(
        [
            "sign-efi-sig-list",
            "-g",
            keys.owner,
            "-k",
            str(keys.key(signer)),
            "-c",
            str(keys.certificate(signer)),
            name,
            str(entry),
            str(keys.enrolment(name)),
        ]
    )


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
