"""The programs of the image that can be tried without booting it: site.toml, update rules, slots, the field console."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as some

from tests.support.paths import ROOT

IMAGE = ROOT / "packaging/image"
PROGRAMS = IMAGE / "root/usr/lib/bluelamp"
GOOD = """\
name = "van-07"
authority = "77313 81253 77857 81933 03340 23388"
[broker]
host = "control.example"
address = "203.0.113.7"
port = 8883
[[camera]]
name = "gate"
source = "/dev/video0"
"""


def program(name: str) -> ModuleType:
    """A program of the image as a module."""
    spec = importlib.util.spec_from_file_location(f"image_{name}", PROGRAMS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


site, rules, slots, console = (program(n) for n in ("site", "update_rules", "update_slots", "console"))


def site_file(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def test_a_site_becomes_a_configuration_that_the_unit_reads(tmp_path: Path) -> None:
    from appliance import config

    read = site.read(site_file(tmp_path, GOOD + '[beacon]\nled = "input*::capslock"\n'))
    path = tmp_path / "unit.toml"
    path.write_text(site.unit_toml(read, Path("/sys/class/leds/input3::capslock")))
    unit = config.load(path)
    assert unit.camera[0].source == "/dev/video0" and unit.broker.host == "control.example"
    assert unit.beacon.led == Path("/sys/class/leds/input3::capslock")
    packaged = tomllib.loads((IMAGE.parent / "unit.toml").read_text())["unit"]
    made = tomllib.loads(path.read_text())["unit"]
    assert made == packaged, "the image's paths are the package's paths"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("van-07", "Van 7; rm"), "name:"),
        (("77313 81253", "x"), "authority:"),
        (("203.0.113.7", "control"), "broker.address:"),
        (("/dev/video0", "rtsp://a/b"), "camera 1:"),
        (("8883", "0"), "broker.port:"),
        (('name = "van-07"', 'name = "van-07"\npassword = "x"'), "password: unknown key"),
        (("[broker]", "[broker"), "not TOML"),
    ],
)
def test_each_mistake_in_a_site_is_named(tmp_path: Path, change: tuple[str, str], word: str) -> None:
    with pytest.raises(site.SiteError, match=re.escape(word)):
        site.read(site_file(tmp_path, GOOD.replace(*change)))


def test_a_site_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(site.SiteError, match="larger than"):
        site.read(site_file(tmp_path, "#" * (site.MOST_BYTES + 1)))


@given(some.text(max_size=60))
def test_nothing_in_a_site_leaves_its_string(text: str) -> None:
    """A camera's name is data in the configuration, whatever characters it has."""
    made = site.unit_toml({"camera": [{"name": text, "source": "/dev/video0"}], "broker": {"host": "h"}}, None)
    try:
        assert tomllib.loads(made)["camera"] == [{"name": text, "source": "/dev/video0"}]
    except (tomllib.TOMLDecodeError, UnicodeEncodeError):
        assert any(ord(c) == 0x7F or 0xD800 <= ord(c) < 0xE000 or ord(c) > 0xFFFF for c in text)


@pytest.mark.parametrize(
    ("new", "running", "floor", "armed", "rule"),
    [
        ("0.2.0", "0.1.0", "0", False, None),
        ("0.2.0", "0.1.0", "0.1.0", True, "U1"),
        ("0.1.0", "0.1.0", "0.1.0", False, "U3"),
        ("0.0.9", "0.1.0", "0.1.0", False, "U2"),
        ("0.1.5", "0.1.0", "0.2.0", False, "U2"),
        ("0.10.0", "0.9.0", "0.9.0", False, None),
        ("1.0-rc1", "0.9.0", "0", False, "U2"),
        ("1.0; reboot", "0.9.0", "0", False, "U2"),
        ("", "0.9.0", "0", False, "U2"),
    ],
)
def test_which_updates_are_installed(new: str, running: str, floor: str, armed: bool, rule: str | None) -> None:
    why = rules.refusal(new, running, floor, armed)
    assert (why is None) if rule is None else (why or "").startswith(rule)


@given(some.tuples(*[some.integers(0, 999)] * 3), some.tuples(*[some.integers(0, 999)] * 3))
def test_a_version_is_never_replaced_by_an_older_one(new: tuple[int, ...], running: tuple[int, ...]) -> None:
    texts = [".".join(map(str, v)) for v in (new, running)]
    assert (rules.refusal(texts[0], texts[1], "0", False) is None) == (new > running)


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kernels on the EFI partition."""
    monkeypatch.setattr(slots, "KERNELS", tmp_path)
    return tmp_path


def kernel(folder: Path, name: str, version: str) -> None:
    (folder / name).write_bytes(
        b"MZ...\nIMAGE_ID=bluelamp-unit\nIMAGE_VERSION=" + version.encode() + b"\nVARIANT_ID=field\n"
    )


def test_the_newest_slot_with_tries_left_is_started(kernels: Path) -> None:
    kernel(kernels, "bluelamp-a.efi", "0.9.0")
    assert slots.primary() == "a" and not slots.is_good("b")
    kernel(kernels, "bluelamp-b+3.efi", "0.10.0")
    assert slots.primary() == "b" and slots.is_good("b")
    (kernels / "bluelamp-b+3.efi").rename(kernels / "bluelamp-b+1-2.efi")
    assert slots.primary() == "b"
    (kernels / "bluelamp-b+1-2.efi").rename(kernels / "bluelamp-b+0-3.efi")
    assert slots.primary() == "a", "three failed starts, and the other slot is taken"


def test_a_slot_that_is_written_has_no_kernel(kernels: Path) -> None:
    kernel(kernels, "bluelamp-a.efi", "1.0.0")
    kernel(kernels, "bluelamp-b.efi", "1.1.0")
    assert slots.main(["set-state", "b", "bad"]) == 0
    assert slots.primary() == "a" and slots.kernel("b") is None
    assert slots.main(["set-state", "c", "good"]) == 2, "there are two slots"


def test_the_console_starts_nothing_but_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed is compared with the list; it is never part of a command line."""
    started: list[object] = []
    monkeypatch.setattr(console, "run", lambda command: started.append(command))
    for typed in ("sh", "check; sh", "check --config x", "../bin/sh", "$(sh)", "python3", "arm x", "\x1b[A"):
        console.answer(typed)
    assert started == []
    console.answer("check")
    assert started == [["/usr/bin/bluelamp-unit", "check"]]
    for _, action in console.COMMANDS.values():
        if not callable(action):
            assert action[0] in (
                "/usr/bin/bluelamp-unit",
                "/usr/lib/bluelamp/update.py",
                "/usr/lib/bluelamp/setup.py",
                "/usr/bin/journalctl",
                "/usr/bin/systemd-analyze",
            )


@pytest.mark.parametrize("name", ["-x", "a;b", "", "$(id)", "x" * 80, "--yes", "a\nb"])
def test_a_name_cannot_be_an_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(console, "run", lambda command: started.append(command))
    monkeypatch.setattr("builtins.input", lambda _: name)
    console.arm()
    assert started == []


def test_every_option_of_the_image_s_units_has_its_reason() -> None:
    for path in sorted((IMAGE / "root/usr/lib/systemd/system").glob("*.service")):
        lines = path.read_text().splitlines()
        assert any(line.startswith("#") for line in lines), path.name
    text = (IMAGE / "kernel.py").read_text()
    assert "systemd.import_credentials=no" in text, "nothing outside the signature may write files into the unit"
