#!/usr/bin/python3 -I
"""Put the new slot's kernel on the EFI partition, with three tries: asked by the updater when the root is written.

The boot loader takes the newest version that has tries left, and takes a try away at each start. A start that
`bluelamp-healthy` finds fit gives the file its plain name, without tries.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

KERNELS = Path("/efi/EFI/Linux")
TRIES = 3


def main() -> None:
    """Copy, flush, rename: a power cut leaves either no new kernel or a whole one."""
    target = os.environ["RAUC_TARGET_SLOTS"].split()[0]
    slot = os.environ[f"RAUC_SLOT_BOOTNAME_{target}"]
    source = Path(os.environ["RAUC_BUNDLE_MOUNT_POINT"]) / f"kernel-{slot}.efi"
    part = KERNELS / f"bluelamp-{slot}.part"
    with source.open("rb") as read, part.open("wb") as write:
        shutil.copyfileobj(read, write)
        write.flush()
        os.fsync(write.fileno())
    for old in KERNELS.glob(f"bluelamp-{slot}*.efi"):
        old.unlink()
    part.rename(KERNELS / f"bluelamp-{slot}+{TRIES}.efi")
    os.sync()


if __name__ == "__main__":
    main()
