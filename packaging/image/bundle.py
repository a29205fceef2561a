"""The update bundle: the root and the kernels of both slots, signed, in the updater's own format (RAUC, "verity")."""

from __future__ import annotations

import shutil
from pathlib import Path

from builder_keys import BuilderKeys
from kernel import run

COMPATIBLE = "bluelamp-unit-{architecture}"


def build(
    out: Path,
    root: Path,
    digests: Path,
    kernels: dict[str, Path],
    keys: BuilderKeys,
    version: str,
    architecture: str,
    scratch: Path,
    when: int,
) -> None:
    """Write the bundle `out`. It holds a kernel for each slot, because a kernel names the slot whose root it opens."""
    folder = scratch / "bundle"
    folder.mkdir()
    shutil.copyfile(root, folder / "root.img")
    shutil.copyfile(digests, folder / "verity.img")
    for slot, path in kernels.items():
        shutil.copyfile(path, folder / f"kernel-{slot}.efi")
    (folder / "manifest.raucm").write_text(
        f"[update]\ncompatible={COMPATIBLE.format(architecture=architecture)}\nversion={version}\n\n"
        "[bundle]\nformat=verity\n\n[image.root]\nfilename=root.img\n\n[image.verity]\nfilename=verity.img\n"
    )
    out.unlink(missing_ok=True)
    run(
        [
            "rauc",
            "bundle",
            f"--cert={keys.certificate('update')}",
            f"--key={keys.key('update')}",
            str(folder),
            str(out),
        ],
        SOURCE_DATE_EPOCH=str(when),
    )
