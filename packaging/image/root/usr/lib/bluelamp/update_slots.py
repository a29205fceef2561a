#!/usr/bin/python3 -I
"""What the updater wants to know and to set about the two slots. The files on the EFI partition are the only record
of it.

bluelamp-a.efi is good, bluelamp-a+2-1.efi has two tries left and failed once, bluelamp-a+0-3.efi is bad.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

KERNELS = Path("/efi/EFI/Linux")
SLOTS = ("a", "b")


def kernel(slot: str) -> Path | None:
    """The slot's kernel, where there is one."""
    return next(iter(sorted(KERNELS.glob(f"bluelamp-{slot}*.efi"))), None)


def is_good(slot: str) -> bool:
    """Is there a kernel that the boot loader would still try."""
    path = kernel(slot)
    return path is not None and re.search(r"\+0(-\d+)?\.efi$", path.name) is None


def version(slot: str) -> tuple[int, ...]:
    """The version that the kernel's file names in its own os-release; empty without one."""
    path = kernel(slot)
    found = re.search(rb"IMAGE_VERSION=([0-9.]+)", path.read_bytes()) if path else None
    return tuple(int(n) for n in found.group(1).split(b".") if n) if found else ()


def primary() -> str:
    """The slot that the boot loader would take now."""
    return max(SLOTS, key=lambda slot: (is_good(slot), version(slot)))


def set_state(slot: str, state: str) -> None:
    """`bad` removes the kernel, so that a slot that is being written is never started; `good` takes the tries off
    its name.
    """
    path = kernel(slot)
    if path is None:
        return
    if state == "bad":
        path.unlink()
    else:
        path.rename(KERNELS / f"bluelamp-{slot}.efi")


def main(arguments: list[str]) -> int:
    """get-primary, set-primary SLOT, get-state SLOT, set-state SLOT good|bad."""
    match arguments:
        case ["get-primary"]:
            print(primary())
        case ["set-primary", slot] if slot in SLOTS:
            pass  # the newest version with tries left is started: update_kernel.py has put it there
        case ["get-state", slot] if slot in SLOTS:
            print("good" if is_good(slot) else "bad")
        case ["set-state", slot, ("good" | "bad") as state] if slot in SLOTS:
            set_state(slot, state)
        case _:
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
