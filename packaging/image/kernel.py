"""The unified kernel image: boot stub, kernel, initial RAM disk and command line in one file with one signature.

The command line holds the digest of the root file system. Firmware that accepts the builder's keys only therefore
starts no other kernel, no other root, and takes no other command line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from builder_keys import BuilderKeys
from verity import Verity

# Where each part lies in memory, as the boot stub of systemd 252 expects them: far enough apart for a large kernel.
PLACES = {".osrel": 0x20000, ".cmdline": 0x30000, ".linux": 0x2000000, ".initrd": 0x4000000}
FIXED = (
    "ro",
    "rootfstype=squashfs",
    "root=/dev/mapper/root",
    # Nothing from outside the signature may configure the system: firmware strings could write files otherwise.
    "systemd.import_credentials=no",
    "lockdown=integrity",
    "panic=10",
    "systemd.crash_reboot=1",
    "systemd.crash_shell=0",
    "systemd.swap=0",
    # The last one is where the service manager writes; both have the field console.
    "console=tty0",
    "console=ttyS0,115200",
    "loglevel=4",
    "systemd.show_status=1",
)


def command_line(slot: str, verity: Verity) -> str:
    """The kernel's command line for the image in slot `a` or `b`."""
    return " ".join(
        [
            *FIXED,
            f"roothash={verity.digest}",
            f"systemd.verity_root_data=PARTLABEL=bluelamp-root-{slot}",
            f"systemd.verity_root_hash=PARTLABEL=bluelamp-verity-{slot}",
            "systemd.verity_root_options=panic-on-corruption",
            f"rauc.slot={slot}",
        ]
    )


def build(parts: dict[str, Path], stub: Path, keys: BuilderKeys, out: Path, when: int) -> None:
    """Join `parts` (section name to file) to the stub and sign the result. `when`: UTC seconds."""
    bare = out.with_suffix(".unsigned")
    command = ["objcopy", "--enable-deterministic-archives"]
    for section, place in PLACES.items():
        command += ["--add-section", f"{section}={parts[section]}", "--change-section-vma", f"{section}={place:#x}"]
    run([*command, str(stub), str(bare)], SOURCE_DATE_EPOCH=str(when))
    sign(bare, keys, out, when)
    bare.unlink()


def sign(source: Path, keys: BuilderKeys, out: Path, when: int) -> None:
    """Sign an EFI program with the builder's db key. The signature's own time is `when`, so that it is the same
    twice.
    """
    run(
        [
            "faketime",
            "-f",
            f"@{_stamp(when)}",
            "sbsign",
            "--key",
            str(keys.key("db")),
            "--cert",
            str(keys.certificate("db")),
            "--output",
            str(out),
            str(source),
        ]
    )


def run(command: Sequence[str], **environment: str) -> None:
    """Run a command; its messages only when it fails. Raises SystemExit."""
    import os

    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment, "TZ": "UTC"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed ({done.returncode}):\n{done.stdout}{done.stderr}")


def _stamp(when: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(when, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
