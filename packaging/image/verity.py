"""The root file system as one read-only file, and the tree of its digests in another (dm-verity)."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096


@dataclass(frozen=True)
class Verity:
    """`digest`: hexadecimal root digest, which vouches for every block of the file."""

    digest: str


def pack(root: Path, out: Path, tree: Path, when: int, name: str) -> Verity:
    """Write `root` as a squashfs into `out`, its digests into `tree`. `name` decides salt and identifier. `when`:
    UTC seconds.
    """
    out.unlink(missing_ok=True)
    tree.unlink(missing_ok=True)
    squash = [
        "mksquashfs",
        str(root),
        str(out),
        "-noappend",
        "-quiet",
        "-no-progress",
        "-comp",
        "zstd",
        "-Xcompression-level",
        os.environ.get("BLUELAMP_SQUASH_LEVEL", "12"),
        "-b",
        "256K",
        "-no-xattrs",
        "-all-time",
        str(when),
        "-mkfs-time",
        str(when),
    ]
    subprocess.run(squash, check=True, stdout=subprocess.DEVNULL)
    with out.open("r+b") as file:
        file.truncate(-(-out.stat().st_size // BLOCK) * BLOCK)
    salt = hashlib.sha256(f"bluelamp {name}".encode()).hexdigest()
    made = subprocess.run(
        [
            "veritysetup",
            "format",
            str(out),
            str(tree),
            f"--salt={salt}",
            f"--uuid={uuid.uuid5(uuid.NAMESPACE_OID, name)}",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", made)
    if found is None:
        raise SystemExit(f"veritysetup gave no root digest:\n{made}")
    return Verity(found.group(1))
