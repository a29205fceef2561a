"""The disk: one EFI partition, two slots for the root, and room behind them for the state, which is made at first
boot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from builder_keys import SIGNATURES, BuilderKeys
from kernel import run

MIB = 1 << 20
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
# One loader, and a kernel of each slot at twice today's size.
ESP_BYTES = 256 * MIB
SLOT_BYTES = 768 * MIB
# The tree of digests is a little under one part in a hundred.
TREE_BYTES = 16 * MIB
# The least disk: the state is at least this large, and takes whatever a larger disk has.
STATE_BYTES = 512 * MIB
TRIES = 3
LOADER = """\
timeout 0
editor no
auto-firmware no
secure-boot-enroll manual
"""


@dataclass(frozen=True)
class Partition:
    """A partition of the image. `source`: the file that fills it from its start, or nothing."""

    name: str
    kind: str
    size: int
    source: Path | None = None


def esp(kernel: Path, loader: Path, efi_name: str, keys: BuilderKeys, scratch: Path, when: int) -> Path:
    """The EFI partition as a FAT file system: loader, kernel of slot a, and the certificates to enrol. Returns its
    file.
    """
    tree = scratch / "esp"
    places = {f"EFI/BOOT/{efi_name}": loader, f"EFI/Linux/bluelamp-a+{TRIES}.efi": kernel}
    places |= {f"loader/keys/auto/{name}.auth": keys.enrolment(name) for name in SIGNATURES}
    for name, source in places.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tree / name)
    (tree / "loader/loader.conf").write_text(LOADER)
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (when, when))
    image = scratch / "esp.img"
    with image.open("wb") as file:
        file.truncate(ESP_BYTES)
    run(
        ["mkfs.vfat", "-F", "32", "--invariant", "-n", "BLUELAMP", "-i", "b1ae1a3b", str(image)],
        SOURCE_DATE_EPOCH=str(when),
    )
    run(
        ["mcopy", "-s", "-m", "-Q", "-i", str(image), *sorted(str(p) for p in tree.iterdir()), "::/"],
        SOURCE_DATE_EPOCH=str(when),
    )
    return image


def write(out: Path, name: str, esp_image: Path, root: Path, tree: Path) -> None:
    """Write the whole disk. Its identifiers follow from `name`."""
    if root.stat().st_size > SLOT_BYTES:
        raise SystemExit(
            f"the root has {root.stat().st_size >> 20} MiB, a slot holds {SLOT_BYTES >> 20}: leave packages out"
        )
    partitions = (
        Partition("bluelamp-esp", ESP, ESP_BYTES, esp_image),
        Partition("bluelamp-root-a", LINUX, SLOT_BYTES, root),
        Partition("bluelamp-verity-a", LINUX, TREE_BYTES, tree),
        Partition("bluelamp-root-b", LINUX, SLOT_BYTES),
        Partition("bluelamp-verity-b", LINUX, TREE_BYTES),
    )
    out.unlink(missing_ok=True)
    with out.open("wb") as file:
        file.truncate(MIB + sum(p.size for p in partitions) + STATE_BYTES + MIB)
    lines = [f"label: gpt\nlabel-id: {_identifier(name)}"]
    start = MIB
    for partition in partitions:
        lines.append(
            f"start={start // 512}, size={partition.size // 512}, type={partition.kind}, "
            f'uuid={_identifier(name + partition.name)}, name="{partition.name}"'
        )
        start += partition.size
    subprocess.run(["sfdisk", "--quiet", str(out)], input="\n".join(lines), text=True, check=True)
    start = MIB
    for partition in partitions:
        if partition.source:
            run(["dd", f"if={partition.source}", f"of={out}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse"])
        start += partition.size


def _identifier(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"bluelamp image {name}")).upper()
