"""Private keys: only their owner can read them, a passphrase locks them, a credential delivers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import KeyFileError
from appliance.storage.files import read_record
from appliance.trust import admission, keys, locker

SECRET = "four random words here"


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A unit's key folder whose private keys are under a passphrase."""
    admission.make_request(tmp_path / "unit", "unit", "van-1", sealing_keys=2, secret=SECRET)
    return tmp_path / "unit"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The passphrase is in a file that only its owner can read."""
    path = tmp_path / "passphrase"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    monkeypatch.setenv("BLUELAMP_PASSPHRASE_FILE", str(path))
    return path


def test_locked_keys_stand_nowhere_in_the_clear(tmp_path: Path, told: Path, locked: Path) -> None:
    """No private file of a locked folder but the TLS key (the courier's) holds a PEM key."""
    clear = [p.name for p in locked.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert clear == ["tls.key"]


def test_locked_keys_open_with_the_passphrase(told: Path, locked: Path) -> None:
    """The signing key that opens is the one the identity names."""
    identity = read_record(locked / "identity.json", keys.Identity)
    assert keys.signer_of(locked).public_key.keyid == identity.signing_key().keyid


def test_wrong_passphrase_is_said(told: Path, locked: Path) -> None:
    told.write_text("another passphrase")
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        keys.signer_of(locked)


def test_without_a_passphrase_the_error_says_where_to_put_one(
    told: Path, locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLUELAMP_PASSPHRASE_FILE")
    with pytest.raises(KeyFileError, match="BLUELAMP_PASSPHRASE_FILE"):
        keys.signer_of(locked)


def test_passphrase_file_that_others_can_read_is_refused(told: Path, locked: Path) -> None:
    told.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        keys.signer_of(locked)


def test_passphrase_comes_as_a_systemd_credential(
    told: Path, locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLUELAMP_PASSPHRASE_FILE")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "bluelamp-passphrase").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert keys.signer_of(locked)


def test_private_key_comes_as_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not in the folder is taken from the credentials of the service."""
    admission.make_request(tmp_path / "unit", "unit", "van-1", sealing_keys=1)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "unit" / "signing.pem").rename(tmp_path / "credentials" / "signing.pem")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert keys.signer_of(tmp_path / "unit")


def test_one_locked_file_cannot_stand_for_another(told: Path, locked: Path) -> None:
    """The file's name is under the lock, so exchanging two files is found."""
    first, second = sorted((locked / "sealing").glob("*.pem"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(KeyFileError, match="does not unlock"):
        keys.load_sealing(first)


def test_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    admission.make_request(tmp_path / "unit", "unit", "van-1", sealing_keys=1)
    (tmp_path / "unit" / "signing.pem").chmod(0o640)
    with pytest.raises(KeyFileError, match="others can read this private key; run: chmod 600"):
        keys.signer_of(tmp_path / "unit")


def test_locking_a_folder_later_keeps_its_keys(tmp_path: Path, told: Path) -> None:
    folder = tmp_path / "unit"
    admission.make_request(folder, "unit", "van-1", sealing_keys=2)
    before = keys.signer_of(folder).public_key.keyid
    assert admission.lock(folder, SECRET) == 3
    assert keys.signer_of(folder).public_key.keyid == before
    assert locker.is_locked((folder / "signing.pem").read_bytes())


def test_short_passphrases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="12 characters"):
        admission.make_request(tmp_path / "unit", "unit", "van-1", secret="short")


def test_fingerprints_are_digits_in_groups() -> None:
    """Thirty digits, five at a time: no letters to spell, no case."""
    groups = keys.fingerprint("0" * 64).split(" ")
    assert len(groups) == 6
    assert all(len(g) == 5 and g.isdigit() for g in groups)
    assert keys.fingerprint("0" * 64) != keys.fingerprint("0" * 63 + "1")
