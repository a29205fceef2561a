"""Replace the OpenSSL that OpenCV's wheel brings by an empty stand-in.

The wheel bundles OpenSSL 1.1.1k, which its makers no longer maintain, and loads it with every `import cv2`, because the
wheel's FFmpeg can open https and rtsps addresses. A unit never does: its cameras are devices, and vision has no
network. The stand-in has the same names, so FFmpeg loads; each function returns 0, which OpenSSL's callers take for
"failed". No line of OpenSSL is left. TLS of the unit itself is Python's `ssl` and `cryptography`, which Debian and
their makers maintain.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

NAMES = re.compile(r"lib(ssl|crypto)-[0-9a-f]+\.so\.1\.1")
"""The wheel's two files, as auditwheel renames them."""


def replace(folder: Path) -> list[Path]:
    """Replace every bundled OpenSSL below `folder` (an installed library folder). Returns the stand-ins' paths."""
    done = []
    for path in sorted(p for p in folder.glob("*.libs/*.so*") if NAMES.match(p.name)):
        users = [p for p in path.parent.iterdir() if p != path and path.name in _dynamic(p)]
        _build(path, _wanted(users, path))
        done.append(path)
    return done


def is_stand_in(path: Path) -> bool:
    """Is a bundled OpenSSL one of ours: no text of OpenSSL's own, and a hundredth of its size."""
    return bool(NAMES.match(path.name)) and path.stat().st_size < 65536 and b"OpenSSL 1." not in path.read_bytes()


def _wanted(users: Iterable[Path], library: Path) -> dict[str, list[str]]:
    """Names that the users import from this library, by version tag. What others of OpenSSL import does not matter."""
    offered = set(_symbols(library, defined=True))
    found: dict[str, set[str]] = defaultdict(set)
    for user in users:
        if not NAMES.match(user.name):
            for name, version in _symbols(user, defined=False):
                if (name, version) in offered:
                    found[version].add(name)
    return {version: sorted(names) for version, names in sorted(found.items())}


def _symbols(path: Path, defined: bool) -> Iterable[tuple[str, str]]:
    """(name, version) of the dynamic symbols that a library defines, or asks others for."""
    table = subprocess.run(["objdump", "-T", str(path)], check=True, capture_output=True, text=True).stdout
    for line in table.splitlines():
        match = re.search(r"^[0-9a-f]+ .{7} (\S+)\t[0-9a-f]+ +\(?(OPENSSL_[0-9_a-z]+)\)? +(\S+)$", line)
        if match and (match.group(1) == "*UND*") != defined:
            yield match.group(3), match.group(2)


def _dynamic(path: Path) -> str:
    """What a library says of itself and of those it needs; empty for what is no library."""
    return subprocess.run(["objdump", "-p", str(path)], capture_output=True, text=True).stdout


def _build(path: Path, names: dict[str, list[str]]) -> None:
    """Compile the stand-in over `path`: the same soname and version tags, functions that return 0."""
    with tempfile.TemporaryDirectory() as temporary:
        source, script = Path(temporary) / "stand_in.c", Path(temporary) / "stand_in.map"
        flat = [name for group in names.values() for name in group]
        source.write_text("".join(f"long {name}(void) {{ return 0; }}\n" for name in flat))
        groups, before = [], ""
        for version, members in names.items():
            offered = " ".join(f"{member};" for member in members)
            groups.append(f"{version} {{ global: {offered} {'' if before else 'local: *;'} }}{before};\n")
            before = f" {version}"
        script.write_text("".join(groups) or "{ local: *; };\n")
        command = [
            "cc",
            "-shared",
            "-fPIC",
            "-O1",
            "-nostdlib",
            "-w",
            f"-Wl,-soname,{path.name}",
            "-Wl,-z,relro",
            "-Wl,-z,noexecstack",
            f"-Wl,--version-script={script}",
            "-Wl,--build-id=none",
            "-o",
            str(path),
            str(source),
        ]
        subprocess.run(command, check=True)
        subprocess.run(["strip", "--strip-all", "--remove-section=.comment", str(path)], check=True)
