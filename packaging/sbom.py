"""Bill of materials in CycloneDX 1.5, licences, and a check against known faults: python packaging/sbom.py --help

Three lists, each from what is really there: the Python libraries of the unit's package (from their own records), the
Debian packages of the image (from apt's records), and the libraries that a wheel bundles, by file name.
"""

from __future__ import annotations

import argparse
import email.parser
import hashlib
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openssl_stand_in
import tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SERVICE = "https://api.osv.dev/v1/querybatch"
BUNDLED = re.compile(r"(lib[A-Za-z0-9_+-]+?)-[0-9a-f]{8,}(?:\.|-)")
"""How auditwheel names what it bundles: libpng16-529cb57a.so.16.58.0."""


@dataclass(frozen=True)
class Part:
    """Something that is shipped. `kind`: pypi, deb or bundled; `licence` as its maker names it; `sha256` where
    known.
    """

    name: str
    version: str
    kind: str
    licence: str = ""
    sha256: str = ""
    files: tuple[str, ...] = field(default=())

    @property
    def purl(self) -> str:
        where = {"pypi": "pkg:pypi/", "deb": "pkg:deb/debian/", "bundled": "pkg:generic/"}[self.kind]
        return f"{where}{self.name.lower() if self.kind == 'pypi' else self.name}@{self.version}"


def libraries(folder: Path) -> Iterator[Part]:
    """The Python libraries installed in a folder, and what their wheels bundle."""
    for record in sorted(folder.glob("*.dist-info/METADATA")):
        about = email.parser.HeaderParser().parsestr(record.read_text(errors="replace"))
        yield Part(str(about["Name"]), str(about["Version"]), "pypi", licence_of(about))
    for path in sorted(folder.glob("*.libs/*.so*")):
        if match := BUNDLED.match(path.name):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            name, version = match.group(1), path.name.partition(".so.")[2] or "unknown"
            if openssl_stand_in.is_stand_in(path):
                name, version = f"stand-in-for-{name}", "1"
            yield Part(name, version, "bundled", sha256=digest, files=(f"{path.parent.name}/{path.name}",))


def licence_of(about: Any) -> str:
    """What a library says of its licence: its expression, else its classifiers, else its text's first line."""
    if about["License-Expression"]:
        return str(about["License-Expression"])
    named = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [n for n in named if n != "OSI Approved"]
    first = str(about["License"] or "").strip().splitlines()[:1]
    return " AND ".join(named) or (first[0] if first else "")


def debian(lock: Path) -> Iterator[Part]:
    """The packages of a lock file: name, version, SHA-256."""
    for line in lock.read_text().splitlines():
        name, version, digest = line.split()
        yield Part(name, version, "deb", sha256=digest)


def document(name: str, version: str, parts: Sequence[Part]) -> dict[str, Any]:
    """A CycloneDX 1.5 document. It holds no time and no random number, so the same parts give the same bytes."""
    components = []
    for part in sorted(parts, key=lambda p: (p.kind, p.name.lower(), p.version, p.files)):
        reference = part.purl + (f"#{part.files[0]}" if part.files else "")
        entry: dict[str, Any] = {
            "type": "library",
            "bom-ref": reference,
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
        }
        if part.licence:
            entry["licenses"] = [{"license": {"name": part.licence}}]
        if part.sha256:
            entry["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
        components.append(entry)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "firmware", "bom-ref": name, "name": name, "version": version}},
        "components": components,
    }


def refused(parts: Sequence[Part], rules: Path = HERE / "licences.toml") -> list[str]:
    """What may not be shipped: a licence that is not on the list, or a part that is named as refused. In words."""
    known = tomllib.loads(rules.read_text())
    found = []
    for part in parts:
        if part.kind == "pypi":
            licence = known["named"].get(part.name, part.licence)
            words = [w.strip() for w in re.split(r" AND | OR |;", licence)]
            if not words or not all(w in known["accepted"] for w in words):
                found.append(f"{part.name} {part.version}: licence {licence!r} is not on the list in {rules.name}")
        if part.kind == "bundled" and part.name in known["refused"]:
            found.append(f"{part.files[0]}: {known['refused'][part.name]}")
    return found


def audit(parts: Sequence[Part]) -> int:
    """Ask the OSV service about every part. Prints what it knows; 1 where faults are known, 3 where it was not
    asked.
    """
    asked = [p for p in parts if p.kind in ("pypi", "deb")]
    queries = [
        {"package": {"name": p.name, "ecosystem": {"pypi": "PyPI", "deb": "Debian:12"}[p.kind]}, "version": p.version}
        for p in asked
    ]
    try:
        results = _ask(queries)
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        print(f"NOT AUDITED: {SERVICE} cannot be reached or did not answer as expected ({error}).", file=sys.stderr)
        print(
            f"Nothing is known about any of the {len(asked)} parts. Run this again where the service can be reached.",
            file=sys.stderr,
        )
        return 3
    count = 0
    for part, result in zip(asked, results, strict=True):
        for fault in result.get("vulns", []):
            print(f"{part.kind} {part.name} {part.version}: {fault['id']}")
            count += 1
    bundled = sum(p.kind == "bundled" for p in parts)
    print(
        f"{len(asked)} parts asked, {count} known faults; "
        f"{bundled} bundled libraries were not asked: the service does not know them"
    )
    return 1 if count else 0


def _ask(queries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for start in range(0, len(queries), 500):
        body = json.dumps({"queries": queries[start : start + 500]}).encode()
        request = urllib.request.Request(SERVICE, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            results += json.load(answer)["results"]
    if len(results) != len(queries):
        raise ValueError(f"{len(results)} answers to {len(queries)} questions")
    return results


def package_folder(deb: Path, scratch: Path) -> Path:
    """Unpack a package; returns its library folder."""
    subprocess.run(["dpkg-deb", "-x", str(deb), str(scratch)], check=True)
    return scratch / "opt/bluelamp/lib"


def main() -> int:
    """Write the bills of materials, check licences, or audit."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "licences", "audit"))
    parser.add_argument("--deb", type=Path, help="the unit's package (the newest in dist/)")
    parser.add_argument("--lock", type=Path, default=HERE / "image/packages-amd64.lock", help="the image's lock file")
    options = parser.parse_args()
    deb = options.deb or max((ROOT / "dist").glob("bluelamp-unit_*.deb"), default=None)
    if deb is None:
        parser.error("no package in dist/: run `make package` first")
    with tempfile.TemporaryDirectory() as scratch:
        python = list(libraries(package_folder(deb, Path(scratch))))
    system = list(debian(options.lock)) if options.lock.exists() else []
    if options.what == "audit":
        return audit(python + system)
    if options.what == "licences":
        found = refused(python)
        print("\n".join(found) or f"{len(python)} parts of {deb.name}: every licence is on the list")
        return 1 if found else 0
    version = deb.name.split("_")[1]
    for name, parts in (
        (f"bluelamp-unit-{version}-package", python),
        (f"bluelamp-unit-{version}-image", python + system),
    ):
        path = deb.parent / f"{name}.cdx.json"
        path.write_text(json.dumps(document(name, version, parts), indent=1, sort_keys=True) + "\n")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
