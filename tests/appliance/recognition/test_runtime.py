"""Loading a network leaves the operator's screen clean, and hides nothing else."""

from __future__ import annotations

import os

import pytest

from appliance.recognition import packs, runtime


def test_loading_a_pack_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """LiteRT tells of its delegate each time, with no switch for it."""
    pack = packs.load("lamp-detector")
    runtime.open_session(pack, pack.manifest.files[0])
    assert capfd.readouterr().err == ""


def test_whatever_else_is_said_meanwhile_comes_through(capfd: pytest.CaptureFixture[str]) -> None:
    with runtime.hushed():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nthe disk is on fire\n")
    os.write(2, b"and later\n")
    assert capfd.readouterr().err == "the disk is on fire\nand later\n"


def test_stderr_comes_back_when_loading_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), runtime.hushed():
        raise RuntimeError("no such network")
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"
