"""Update bundles that a unit must refuse or survive, made from a good one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging/image"))

import builder_keys  # noqa: E402  # the image's own build modules


def version_of(bundle: Path) -> str:
    """The version that a bundle's manifest names."""
    manifest = _unpacked(bundle, bundle.parent / f".{bundle.name}.manifest", "manifest.raucm") / "manifest.raucm"
    found = re.search(r"^version=(\S+)$", manifest.read_text(), re.MULTILINE)
    shutil.rmtree(manifest.parent)
    return found.group(1) if found else ""


def renamed(bundle: Path, version: str, out: Path) -> Path:
    """The same content under another version, signed by the builder: a downgrade."""
    folder = _unpacked(bundle, out.with_suffix(".folder"))
    _set_version(folder, version)
    return _pack(folder, out, *_builder())


def foreign(bundle: Path, out: Path) -> Path:
    """The same content, signed by somebody else."""
    folder = _unpacked(bundle, out.with_suffix(".folder"))
    key, certificate = out.with_suffix(".key"), out.with_suffix(".crt")
    _run("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=somebody else",
         "-keyout", str(key), "-out", str(certificate))  # fmt: skip
    return _pack(folder, out, key, certificate)


def broken(bundle: Path, version: str, out: Path) -> Path:
    """A newer version, rightly signed, whose root is not what its kernel vouches for: it cannot start."""
    folder = _unpacked(bundle, out.with_suffix(".folder"))
    old = _set_version(folder, version)
    (folder / "root.img").write_bytes(b"\0" * (1 << 20))
    keys = builder_keys.keys_in(builder_keys.default_folder())
    for slot in ("a", "b"):
        kernel, release = folder / f"kernel-{slot}.efi", folder / "release"
        _run("sbattach", "--remove", str(kernel))
        _run("objcopy", f"--dump-section=.osrel={release}", str(kernel), str(folder / "copy"))
        release.write_text(release.read_text().replace(f"IMAGE_VERSION={old}", f"IMAGE_VERSION={version}"))
        _run("objcopy", f"--update-section=.osrel={release}", str(kernel))
        _run(
            "sbsign",
            "--key",
            str(keys.key("db")),
            "--cert",
            str(keys.certificate("db")),
            "--output",
            str(kernel),
            str(kernel),
        )
        release.unlink()
        (folder / "copy").unlink()
    return _pack(folder, out, *_builder())


def _builder() -> tuple[Path, Path]:
    keys = builder_keys.keys_in(builder_keys.default_folder())
    return keys.key("update"), keys.certificate("update")


def _set_version(folder: Path, version: str) -> str:
    manifest = folder / "manifest.raucm"
    text = manifest.read_text()
    old = re.search(r"^version=(\S+)$", text, re.MULTILINE)
    kept = re.sub(r"^(sha256|size|verity-\w+)=.*\n", "", text, flags=re.MULTILINE)
    manifest.write_text(re.sub(r"^version=.*$", f"version={version}", kept, flags=re.MULTILINE))
    return old.group(1) if old else ""


def _unpacked(bundle: Path, folder: Path, *names: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    _run("unsquashfs", "-q", "-n", "-d", str(folder), str(bundle), *names)
    return folder


def _pack(folder: Path, out: Path, key: Path, certificate: Path) -> Path:
    out.unlink(missing_ok=True)
    _run("rauc", "bundle", f"--cert={certificate}", f"--key={key}", str(folder), str(out))
    shutil.rmtree(folder)
    return out


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
