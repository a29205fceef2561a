"""What is shipped is pinned, licensed, listed, and says so when it was not audited."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "packaging"))


def script(name: str) -> ModuleType:
    """A script of packaging/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"packaging/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


openssl_stand_in, sbom = script("openssl_stand_in"), script("sbom")


def pinned(lock: Path) -> dict[str, str]:
    """Name to version of a lock file; every entry must have a SHA-256."""
    entries = re.split(r"\n(?=\S)", lock.read_text())
    found = {}
    for entry in entries:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", entry)
        if match:
            assert "--hash=sha256:" in entry, f"{match.group(1)} in {lock.name} has no digest"
            found[match.group(1).lower().replace("_", "-").replace(".", "-")] = match.group(2)
    return found


@pytest.mark.parametrize("name", ["development.txt", "unit.txt"])
def test_every_dependency_is_locked_with_its_digest(name: str) -> None:
    locked = pinned(ROOT / "packaging/locks" / name)
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^  "([A-Za-z0-9._-]+)', text.split("dependencies = [")[1].split("\n]")[0], re.MULTILINE)
    skipped = {"tomli"}  # only for Python 3.10
    for library in wanted:
        key = library.lower().replace("_", "-")
        assert key in locked or key in skipped, f"{library} is not in {name}: make lock"


def test_the_unit_s_lock_holds_what_the_package_pins() -> None:
    """Two files name the package's versions; they may not differ."""
    locked = pinned(ROOT / "packaging/locks/unit.txt")
    for line in (ROOT / "packaging/constraints.txt").read_text().splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)(.*)", line)
        if match and 'python_version < "3.11"' not in match.group(3):
            key = match.group(1).lower().replace("_", "-").replace(".", "-")
            assert locked.get(key, match.group(2)) == match.group(2), line


def test_the_image_s_packages_are_locked_with_their_digests() -> None:
    lines = (ROOT / "packaging/image/packages-amd64.lock").read_text().splitlines()
    assert len(lines) > 100
    assert all(re.fullmatch(r"\S+ \S+ [0-9a-f]{64}", line) for line in lines)
    names = {line.split()[0] for line in lines}
    assert {"systemd", "rauc", "python3.11"} <= names and "openssh-server" not in names


def test_licences_are_judged_by_the_list() -> None:
    part = sbom.Part
    assert sbom.refused([part("a", "1", "pypi", "MIT"), part("hnswlib", "1", "pypi", "")]) == []
    assert sbom.refused([part("a", "1", "pypi", "GPL-3.0-only")]) != []
    assert sbom.refused([part("a", "1", "pypi", "")]) != [], "a library that names none is not let through"
    assert "GPL" in sbom.refused([part("libx264", "165", "bundled", files=("av.libs/libx264-1.so",))])[0]


def test_the_unit_s_libraries_here_have_accepted_licences() -> None:
    """Of what is installed here, every library that the unit's package holds."""
    import importlib.metadata

    locked, found = pinned(ROOT / "packaging/locks/unit.txt"), []
    for one in importlib.metadata.distributions():
        if str(one.metadata["Name"]).lower().replace("_", "-").replace(".", "-") in locked:
            found.append(sbom.Part(one.metadata["Name"], one.version, "pypi", sbom.licence_of(one.metadata)))
    assert len(found) > 20
    assert sbom.refused(found) == []


def test_the_package_brings_no_gpl_encoder() -> None:
    """PyAV, whose wheel bundles x264 and x265, is never part of the package."""
    assert "av" not in pinned(ROOT / "packaging/locks/unit.txt")
    assert "av" in pinned(ROOT / "packaging/locks/development.txt")


def test_a_bill_of_materials_is_the_same_twice_and_names_every_part() -> None:
    parts = [sbom.Part("b", "1", "pypi", "MIT"), sbom.Part("a", "2", "deb", sha256="0" * 64)]
    made = json.dumps(sbom.document("x", "1", parts))
    assert made == json.dumps(sbom.document("x", "1", parts[::-1]))
    assert {c["purl"] for c in json.loads(made)["components"]} == {"pkg:pypi/b@1", "pkg:deb/debian/a@2"}
    assert json.loads(made)["bomFormat"] == "CycloneDX"


def test_an_audit_that_could_not_ask_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_: object) -> list[dict[str, object]]:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(sbom, "_ask", away)
    assert sbom.audit([sbom.Part("a", "1", "pypi")]) == 3
    said = capsys.readouterr()
    assert "NOT AUDITED" in said.err and "0 known faults" not in said.out


def test_an_audit_tells_what_it_found_and_what_it_did_not_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sbom, "_ask", lambda queries: [{"vulns": [{"id": "CVE-1"}]} for _ in queries])
    assert sbom.audit([sbom.Part("a", "1", "pypi"), sbom.Part("libpng16", "1", "bundled", files=("x",))]) == 1
    said = capsys.readouterr().out
    assert "a 1: CVE-1" in said and "1 bundled libraries were not asked" in said


@pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("objdump") is None, reason="needs a C compiler and binutils"
)
def test_opencv_works_without_the_openssl_of_its_wheel(tmp_path: Path) -> None:
    """The stand-in loads, pictures and clips are read, an https address is refused; no text of OpenSSL is left."""
    import cv2

    site = Path(cv2.__file__).resolve().parents[1]
    for name in ("cv2", "opencv_python_headless.libs"):
        if not (site / name).exists():
            pytest.skip("OpenCV is not from its wheel here")
        shutil.copytree(site / name, tmp_path / name)
    replaced = openssl_stand_in.replace(tmp_path)
    if not replaced:
        pytest.skip("this wheel brings no OpenSSL 1.1")
    assert all(openssl_stand_in.is_stand_in(path) for path in replaced)
    clip = ROOT / "demo/assets/street.mp4"
    code = (
        f"import cv2, numpy; assert cv2.__file__.startswith({str(tmp_path)!r}), cv2.__file__\n"
        f"assert cv2.VideoCapture({str(clip)!r}).read()[0]\n"
        "assert cv2.imdecode(cv2.imencode('.jpg', numpy.zeros((9, 9, 3), numpy.uint8))[1], 1).shape == (9, 9, 3)\n"
        "assert not cv2.VideoCapture('https://127.0.0.1:1/a.mp4').isOpened()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": f"{tmp_path}"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
