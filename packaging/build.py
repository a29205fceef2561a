"""Build `dist/bluelamp-unit_VERSION_ARCHITECTURE.deb` from this tree: python packaging/build.py

For the machine it runs on: its architecture, and the minor version of the Python it runs with, which the target's
python3 must have too. The unit's part alone goes in: `appliance`, the model packs, and the libraries they need.

The same tree gives the same bytes: versions are pinned in constraints.txt, times come from $SOURCE_DATE_EPOCH or the
last commit, and what pip notes about this machine is removed. It needs pip, dpkg-deb, and for hnswlib a C++ compiler,
Python's headers and strip. Installed libraries are kept in .cache/package and used again while their versions stay.
"""

from __future__ import annotations

import argparse
import email.utils
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openssl_stand_in

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NAME = "bluelamp-unit"
LIBRARY = Path("opt/bluelamp/lib")
# Beside the unit's own dependencies: the aiming view.
EXTRAS = ("view",)
# Where the files of this tree go.
PLACES: tuple[tuple[str, str, int], ...] = (
    ("packaging/bluelamp-unit", "usr/bin/bluelamp-unit", 0o755),
    ("packaging/main.py", "opt/bluelamp/bin/main.py", 0o644),
    ("packaging/unit.toml", "etc/bluelamp/unit.toml", 0o644),
    ("packaging/debian/sudoers", "etc/sudoers.d/bluelamp", 0o440),
    ("packaging/debian/lintian-overrides", f"usr/share/lintian/overrides/{NAME}", 0o644),
    ("systemd/button.conf", "etc/bluelamp/button.conf", 0o644),
    ("systemd/units", "lib/systemd/system", 0o644),
    ("systemd/sysusers.d", "usr/lib/sysusers.d", 0o644),
    ("systemd/tmpfiles.d", "usr/lib/tmpfiles.d", 0o644),
    ("systemd/coredump.conf.d", "usr/lib/systemd/coredump.conf.d", 0o644),
    ("systemd/udev", "lib/udev/rules.d", 0o644),
    ("systemd/drop-ins", f"usr/share/doc/{NAME}/drop-ins", 0o644),
    ("systemd/README.md", f"usr/share/doc/{NAME}/README.md", 0o644),
    ("LICENSE", f"usr/share/doc/{NAME}/LICENSE", 0o644),
)
# Not on a unit: the recipe that made the packs, and what is only for building or testing a library.
LEFT_OUT = ("__pycache__", "training", "tests", "include", "bin")
# The one library that comes as source.
COMPILED = "hnswlib"
MACHINE = {"HNSWLIB_NO_NATIVE": "1", "LDFLAGS": "-Wl,-z,relro"}
# Drivers of other makers' accelerators and tools of the runtime's own build, a fifth of the whole.
UNUSED = ("ai_edge_litert/libLiteRtWebGpuAccelerator.so", "ai_edge_litert/tools", "ai_edge_litert/vendors")
# What pip notes about where and how it installed, which differs from machine to machine; and what was left behind.
NOTES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", ".gitignore")


def build(out: Path, without: Sequence[str] = (), extras: Sequence[str] = EXTRAS) -> Path:
    """Build the package into folder `out` and return its path. `without` names libraries that the system brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    when = moment()
    with tempfile.TemporaryDirectory(prefix="bluelamp-build-") as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(libraries(requirements(project, extras, without)), tree / LIBRARY)
        copy_packages(tree / LIBRARY, project)
        for source, target, mode in PLACES:
            copy(ROOT / source, tree / target, mode)
        documents(tree, project["version"], when)
        control(tree, project["version"])
        settle(tree, when)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{NAME}_{project['version']}_{architecture()}.deb"
        pack = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--threads-max=1", "--build", str(tree), str(path)]
        run(pack, SOURCE_DATE_EPOCH=str(when))
    return path


def requirements(project: dict[str, Any], extras: Sequence[str], without: Sequence[str]) -> list[str]:
    """The unit's libraries, as pyproject.toml names them."""
    wanted = [*project["dependencies"], *(r for extra in extras for r in project["optional-dependencies"][extra])]
    names = {name.lower() for name in without}
    return [r for r in wanted if re.split(r"[^A-Za-z0-9._-]", r)[0].lower() not in names]


def libraries(wanted: Sequence[str]) -> Path:
    """The folder of installed libraries: an earlier build's where nothing that decides its content has changed."""
    pinned = (HERE / "constraints.txt").read_text()
    decides = [
        sys.version,
        architecture(),
        *wanted,
        pinned,
        repr((UNUSED, NOTES, LEFT_OUT, MACHINE)),
        Path(openssl_stand_in.__file__).read_text(),
    ]
    folder = ROOT / ".cache" / "package" / hashlib.sha256("\n".join(decides).encode()).hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            install_libraries(Path(scratch) / "lib", wanted)
            (Path(scratch) / "lib").rename(folder)
    return folder


def install_libraries(folder: Path, wanted: Sequence[str]) -> None:
    """Install with pip, pinned; without byte code, notes and tests."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(folder),
           "--constraint", str(HERE / "constraints.txt")]  # fmt: skip
    run([*pip, *(r for r in wanted if not r.startswith(COMPILED))])
    # Compiled here, for any machine of this architecture: an older build in pip's cache may be for one processor.
    run([*pip, "--upgrade", "--no-deps", "--no-binary", COMPILED, "--no-cache-dir", COMPILED], **MACHINE)
    for library in folder.glob(f"{COMPILED}*.so"):
        run(["strip", "--strip-all", "--remove-section=.note.gnu.build-id", "--remove-section=.comment", str(library)])
    openssl_stand_in.replace(folder)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and (path.name in LEFT_OUT or str(path.relative_to(folder)) in UNUSED):
            shutil.rmtree(path)
        elif path.name in NOTES or str(path.relative_to(folder)) in UNUSED:
            path.unlink()


def copy_packages(folder: Path, project: dict[str, Any]) -> None:
    """`appliance` and the packs, and enough of a record that the version is known."""
    for package in ("appliance", "models"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    about = folder / f"bluelamp-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bluelamp\nVersion: {project['version']}\n")


def copy(source: Path, target: Path, mode: int) -> None:
    """A file, or the files of a folder and below."""
    for path in [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]:
        place = target if path == source else target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        place.chmod(mode)


def documents(tree: Path, version: str, when: int) -> None:
    """Debian's changelog and copyright file."""
    folder = tree / f"usr/share/doc/{NAME}"
    date = email.utils.formatdate(when)
    by = "Bluelamp maintainers <maintainers@bluelamp.example>"
    entry = f"{NAME} ({version}) unstable; urgency=medium\n\n  * Built from the project's tree.\n\n -- {by}  {date}\n"
    (folder / "changelog.gz").write_bytes(gzip.compress(entry.encode(), 9, mtime=0))
    (folder / "copyright").write_text(
        "Bluelamp's code is under the Apache License 2.0 (/usr/share/common-licenses/Apache-2.0, LICENSE beside this\n"
        "file). The model packs are under the terms that the card.md of each names. Each library in /opt/bluelamp/lib\n"
        "keeps its own licence in its .dist-info folder.\n\nCopyright 2026 the Bluelamp maintainers\n"
    )


def control(tree: Path, version: str) -> None:
    """The package's own records."""
    folder = tree / "DEBIAN"
    folder.mkdir()
    for script in ("postinst", "prerm", "postrm"):
        copy(HERE / "debian" / script, folder / script, 0o755)
    files = sorted(p for p in tree.rglob("*") if p.is_file() and folder not in p.parents)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    depends = [
        f"python3 (>= {minor}~)", f"python3 (<< {sys.version_info[0]}.{sys.version_info[1] + 1}~)",
        f"libc6 (>= 2.{newest_libc(files)})", "libgcc-s1", "libstdc++6", "libseccomp2", "systemd (>= 250)", "udev",
    ]  # fmt: skip
    (folder / "control").write_text(
        (HERE / "debian" / "control").read_text().format(
            version=version, architecture=architecture(), depends=", ".join(depends), python=minor,
            kilobytes=sum(-(-p.stat().st_size // 1024) for p in files),
        )
    )  # fmt: skip
    settings = [p for p in files if (tree / "etc") in p.parents]
    (folder / "conffiles").write_text("".join(f"/{p.relative_to(tree)}\n" for p in settings))
    sums = (f"{hashlib.md5(p.read_bytes()).hexdigest()}  {p.relative_to(tree)}\n" for p in files if p not in settings)
    (folder / "md5sums").write_text("".join(sums))  # dpkg's own form; it finds damage, it is no protection


def newest_libc(files: Sequence[Path]) -> int:
    """The newest minor version of glibc whose symbols the libraries ask for."""
    wanted = (int(n) for p in files if ".so" in p.name for n in re.findall(rb"GLIBC_2\.(\d+)", p.read_bytes()))
    return max(wanted)


def settle(tree: Path, when: int) -> None:
    """The same modes and times wherever it was built."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        elif LIBRARY in path.relative_to(tree).parents:
            path.chmod(0o644)
        os.utime(path, (when, when))


def moment() -> int:
    """$SOURCE_DATE_EPOCH, else the time of the last commit. UTC seconds."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(log, check=True, capture_output=True, text=True).stdout)


def version() -> str:
    """The project's version, as pyproject.toml names it."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def architecture() -> str:
    """Debian's name of this machine's architecture: amd64, arm64."""
    asked = ["dpkg", "--print-architecture"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def run(command: Sequence[str], **environment: str) -> None:
    """Run a command, its output on ours. Raises CalledProcessError."""
    subprocess.run(command, check=True, env={**os.environ, **environment})


def arguments() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "--out", {"type": Path, "default": ROOT / "dist", "help": "folder of the package (dist)"}
    yield "--without", {"action": "append", "default": [], "metavar": "LIBRARY",
                        "help": "leave a library to the system: opencv-python-headless on a Jetson"}  # fmt: skip
    yield "--extra", {"action": "append", "default": [], "metavar": "NAME", "help": "an extra of pyproject.toml: onnx"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, settings in arguments():
        parser.add_argument(flag, **settings)
    chosen = parser.parse_args()
    print(build(chosen.out, chosen.without, [*EXTRAS, *chosen.extra]))
