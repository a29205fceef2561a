"""Firmware variables in which the image's own Secure Boot keys are enrolled: made once for each builder's keys, then
kept.

A stick with the image's boot loader, told to enrol what lies beside it, is started once on firmware in setup mode.
That is what a technician does once with a new box.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from machine import OVMF, VanError

ROOT = Path(__file__).resolve().parents[2]
ESP_OFFSET = 1 << 20


def enrolled(image: Path, seconds: float = 180) -> Path:
    """The file of variables for this image's keys. Raises VanError."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        esp = f"{image}@@{ESP_OFFSET}"
        for name in ("PK", "KEK", "db"):
            _run("mcopy", "-i", esp, f"::/loader/keys/auto/{name}.auth", str(folder / f"{name}.auth"))
        out = ROOT / ".cache/van" / f"variables-{hashlib.sha256((folder / 'db.auth').read_bytes()).hexdigest()[:16]}.fd"
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            _enrol(esp, folder, out, seconds)
    return out


def _enrol(esp: str, folder: Path, out: Path, seconds: float) -> None:
    disk, variables = folder / "enrol.img", folder / "variables.fd"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    _run("mkfs.vfat", str(disk))
    _run("mcopy", "-i", esp, "::/EFI/BOOT/BOOTX64.EFI", str(folder / "BOOTX64.EFI"))
    (folder / "loader.conf").write_text("timeout 0\nsecure-boot-enroll force\n")
    for path in ("EFI", "EFI/BOOT", "loader", "loader/keys", "loader/keys/auto"):
        _run("mmd", "-i", str(disk), f"::/{path}")
    for name, target in (
        ("BOOTX64.EFI", "EFI/BOOT/"),
        ("loader.conf", "loader/"),
        ("PK.auth", "loader/keys/auto/"),
        ("KEK.auth", "loader/keys/auto/"),
        ("db.auth", "loader/keys/auto/"),
    ):
        _run("mcopy", "-i", str(disk), str(folder / name), f"::/{target}")
    shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", variables)
    command = [
        "qemu-system-x86_64",
        "-machine",
        "q35,accel=tcg,smm=on",
        "-cpu",
        "max",
        "-m",
        "512",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-global",
        "driver=cfi.pflash01,property=secure,value=on",
        "-drive",
        f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF / 'OVMF_CODE_4M.secboot.fd'}",
        "-drive",
        f"if=pflash,unit=1,format=raw,file={variables}",
        "-drive",
        f"if=none,id=d,format=raw,file={disk}",
        "-device",
        "virtio-blk-pci,drive=d",
        "-serial",
        f"file:{folder / 'log'}",
    ]
    # The loader counts down, enrols and restarts; -no-reboot then ends the machine.
    started = time.monotonic()
    try:
        subprocess.run(command, check=True, timeout=seconds, stdin=subprocess.DEVNULL, capture_output=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        log = (folder / "log").read_text(errors="replace")[-800:] if (folder / "log").exists() else ""
        raise VanError(f"the keys were not enrolled in {time.monotonic() - started:.0f} s: {error}\n{log}") from error
    shutil.copyfile(variables, out)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
