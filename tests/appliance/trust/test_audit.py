"""The log of every act: any change, cut or reorder is found (requirement 18)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from appliance.errors import SealError
from appliance.trust import audit
from appliance.trust.audit import Audit, Happening

SIGNER = CryptoSigner.generate_ed25519()
KEYS = [SIGNER.public_key]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Five acts."""
    made = Audit(tmp_path / "audit.log", SIGNER, by="tester")
    for number in range(5):
        made.add("collection", f"R-{number}", "image")
    return made.path


def rewrite(log: Path, lines: list[bytes]) -> None:
    log.write_bytes(b"".join(lines))


def test_a_whole_log_verifies(log: Path) -> None:
    assert [e.subject for e in audit.verify(log, KEYS)] == [f"R-{i}" for i in range(5)]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found(log: Path, data: st.DataObject) -> None:
    whole = log.read_bytes()
    blob = bytearray(whole)
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    log.write_bytes(bytes(blob))
    try:
        with pytest.raises(SealError):
            audit.verify(log, KEYS)
    finally:
        log.write_bytes(whole)


@pytest.mark.parametrize("lost", range(5))
def test_a_lost_line_is_found(log: Path, lost: int) -> None:
    """Also the last one: the head file remembers it."""
    lines = log.read_bytes().splitlines(keepends=True)
    rewrite(log, lines[:lost] + lines[lost + 1 :])
    with pytest.raises(SealError):
        audit.verify(log, KEYS)


def test_reordered_lines_are_found(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    rewrite(log, [lines[0], lines[2], lines[1], *lines[3:]])
    with pytest.raises(SealError, match="line 2"):
        audit.verify(log, KEYS)


def test_a_repeated_line_is_found(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    rewrite(log, [*lines, lines[-1]])
    with pytest.raises(SealError, match="line 6"):
        audit.verify(log, KEYS)


def test_an_emptied_log_is_found(log: Path) -> None:
    log.write_bytes(b"")
    with pytest.raises(SealError, match="was cut after line 0"):
        audit.verify(log, KEYS)


def test_a_log_without_its_head_is_not_called_whole(log: Path) -> None:
    log.with_suffix(".head").unlink()
    with pytest.raises(SealError, match="a cut at the end cannot be excluded"):
        audit.verify(log, KEYS)


def test_a_line_by_another_key_is_found(log: Path) -> None:
    """Somebody appends a well-formed, well-linked line with a key of his own."""
    Audit(log, CryptoSigner.generate_ed25519()).add("erasure", "R-1")
    with pytest.raises(SealError, match="not this machine's"):
        audit.verify(log, KEYS)


def test_a_half_written_line_stops_appending(log: Path) -> None:
    """Nothing is appended to a damaged log as if nothing had happened."""
    with log.open("ab") as file:
        file.write(b'{"entry"')
    with pytest.raises(SealError, match="incomplete"):
        Audit(log, SIGNER).add("erasure", "R-1")


def test_a_full_disk_leaves_whole_lines_only(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = log.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            Audit(log, SIGNER).add("erasure", "R-1")
    assert log.read_bytes() == before
    assert len(audit.verify(log, KEYS)) == 5


def test_two_writers_do_not_fork_the_chain(log: Path) -> None:
    """Two commands at once: every act is there, each once."""

    def write(name: str) -> None:
        mine = Audit(log, SIGNER)
        for number in range(20):
            mine.add("consultation", f"{name}-{number}")

    threads = [threading.Thread(target=write, args=(n,)) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(audit.verify(log, KEYS)) == 45


def test_many_acts_are_one_write(tmp_path: Path) -> None:
    made = Audit(tmp_path / "audit.log", SIGNER)
    anchor = made.extend(Happening("collection", f"R-{i}") for i in range(100))
    assert anchor.sequence == 100
    assert len(audit.verify(made.path, KEYS, [anchor])) == 100
