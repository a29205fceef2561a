#!/usr/bin/python3 -I
"""Open the unit's state: a LUKS2 partition behind the slots, sealed to the TPM where there is one, else a passphrase.

 1  find the disk that the verified root is on
 2  no partition there yet: make one, called bluelamp-new
 3  bluelamp-new: encrypt it, make its file system, then call it bluelamp-state; a power cut before that starts over
 4  open bluelamp-state, check its file system, mount it

The name is given last, so a partition that is called bluelamp-state is complete, and is never formatted.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

NEW, READY = "bluelamp-new", "bluelamp-state"
MAPPED = Path("/dev/mapper") / READY
PLACE = Path("/var/lib/bluelamp")
BINDS = {"configuration": Path("/etc/bluelamp"), "credentials": Path("/etc/credstore.encrypted")}
DEFINITIONS = "/usr/lib/bluelamp/repart.d"
TPM = Path("/dev/tpmrm0")
LEAST_PASSPHRASE = 12


def main() -> None:
    """Steps 1 to 4. Raises SystemExit with what to do."""
    disk = root_disk()
    if partition(disk, NEW) is None and partition(disk, READY) is None:
        say("first start: the rest of the disk becomes the encrypted state")
        run("/usr/bin/systemd-repart", f"--definitions={DEFINITIONS}", "--dry-run=no", "--empty=refuse", disk)
        settle()
    if (number := partition(disk, NEW)) is not None:
        make(device(disk, number))
        run("/usr/sbin/sfdisk", "--no-reread", "--no-tell-kernel", "--part-label", disk, str(number), READY)
    if (number := partition(disk, READY)) is None:
        raise SystemExit(f"{disk}: has no partition for the state; the disk is too small, or is being changed")
    if not MAPPED.exists():
        unlock(device(disk, number))
    run("/usr/sbin/e2fsck", "-p", str(MAPPED), good=(0, 1))
    run("/usr/bin/mount", "-t", "ext4", "-o", "nodev,nosuid,noexec", str(MAPPED), str(made(PLACE)))
    for name, place in BINDS.items():
        run("/usr/bin/mount", "--bind", str(made(PLACE / name)), str(place))


def root_disk() -> str:
    """The disk under the verified root: /dev/vda."""
    mapped = Path("/dev/mapper/root").resolve().name
    slave = next(Path(f"/sys/class/block/{mapped}/slaves").iterdir()).resolve()
    return f"/dev/{slave.parent.name}"


def partition(disk: str, label: str) -> int | None:
    """The number of the partition with this name on `disk`."""
    table = json.loads(run("/usr/sbin/sfdisk", "--json", disk))["partitiontable"]
    for found in table["partitions"]:
        if found.get("name") == label:
            return int(found["node"].removeprefix(disk).removeprefix("p"))
    return None


def device(disk: str, number: int) -> str:
    """The device of a partition: /dev/vda4, /dev/nvme0n1p4."""
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def has_tpm() -> bool:
    """Is there a TPM 2.0. Firmware that names one is given ten seconds to show it."""
    deadline = time.monotonic() + 10
    while Path("/sys/firmware/acpi/tables/TPM2").exists() and not TPM.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return TPM.exists()


def make(partition_device: str) -> None:
    """Encrypt and format a partition. With a TPM the first key is random, and is removed when the TPM holds its own."""
    if MAPPED.exists():
        run("/usr/sbin/cryptsetup", "close", READY)
    secret = secrets.token_hex(32) if has_tpm() else new_passphrase()
    key = Path("/run/bluelamp-new-key")
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secret)
    try:
        strong = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"] if has_tpm() else ["--pbkdf", "argon2id"]
        run(
            "/usr/sbin/cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *strong, partition_device, str(key)
        )
        if has_tpm():
            say("sealing the state to this machine's TPM and its Secure Boot keys (PCR 7)")
            run(
                "/usr/bin/systemd-cryptenroll",
                f"--unlock-key-file={key}",
                "--tpm2-device=auto",
                "--tpm2-pcrs=7",
                "--wipe-slot=0",
                partition_device,
                NEWPASSWORD="",
            )
            unlock(partition_device)
        else:
            run("/usr/sbin/cryptsetup", "open", "--key-file", str(key), partition_device, READY)
        settle()
        run("/usr/sbin/mkfs.ext4", "-q", "-F", "-L", READY, str(MAPPED))
        os.sync()
    finally:
        key.unlink()


def unlock(partition_device: str) -> None:
    """Open by the TPM, else ask for the passphrase until it is right."""
    token = json.loads(run("/usr/sbin/cryptsetup", "luksDump", "--dump-json-metadata", partition_device))["tokens"]
    sealed = any(t.get("type") == "systemd-tpm2" for t in token.values())
    options = "tpm2-device=auto,headless=true" if sealed else "tries=0"
    try:
        run("/usr/lib/systemd/systemd-cryptsetup", "attach", READY, partition_device, "-", options)
    except SystemExit as error:
        if not sealed:
            raise
        raise SystemExit(
            f"{error}\nThe TPM does not release the state's key: Secure Boot or its keys were changed, or the disk is "
            "in another machine. Put that back. If it is lost, write the image anew: the base admits the unit again."
        ) from error
    settle()


def new_passphrase() -> str:
    """A passphrase typed twice."""
    while True:
        first = ask(f"This machine has no TPM. New passphrase for its state, {LEAST_PASSPHRASE} characters or more:")
        if len(first) < LEAST_PASSPHRASE:
            say(f"too short: {LEAST_PASSPHRASE} characters at least")
        elif first == ask("The same again:"):
            return first
        else:
            say("they differ; once more")


def ask(text: str) -> str:
    return run("/usr/bin/systemd-ask-password", "--timeout=0", "-n", text)


def made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def settle() -> None:
    run("/usr/bin/udevadm", "settle", "--timeout=30")


def say(text: str) -> None:
    print(f"state: {text}", flush=True)


def run(*command: str, good: tuple[int, ...] = (0,), **environment: str) -> str:
    """Run a program and return what it printed. Raises SystemExit with its message."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode not in good:
        raise SystemExit(
            f"state: {' '.join(command[:2])} failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


if __name__ == "__main__":
    started = time.monotonic()
    main()
    say(f"open ({time.monotonic() - started:.1f} s)")
    sys.exit(0)
