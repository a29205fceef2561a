"""The initial RAM disk: systemd, udev and what opens the verified root. It has no shell and no other program.

It is made by hand from the files of the root that was just installed, so it holds exactly what is listed here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

PROGRAMS = (
    "usr/lib/systemd/systemd",
    "usr/lib/systemd/systemd-journald",
    "usr/lib/systemd/systemd-udevd",
    "usr/lib/systemd/systemd-veritysetup",
    "usr/lib/systemd/systemd-modules-load",
    "usr/lib/systemd/systemd-shutdown",
    "usr/lib/systemd/systemd-sysctl",
    "usr/lib/systemd/systemd-fsck",
    "usr/lib/systemd/system-generators/systemd-veritysetup-generator",
    "usr/lib/systemd/system-generators/systemd-fstab-generator",
    "usr/bin/systemctl",
    "usr/bin/udevadm",
    "usr/bin/kmod",
    "usr/bin/mount",
    "usr/bin/umount",
    "usr/sbin/dmsetup",
    "usr/bin/systemd-tmpfiles",
)
SERVICES = (
    "initrd-cleanup.service",
    "initrd-parse-etc.service",
    "initrd-switch-root.service",
    "initrd-udevadm-cleanup-db.service",
    "systemd-fsck-root.service",
    "systemd-fsck@.service",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-poweroff.service",
    "systemd-reboot.service",
    "systemd-tmpfiles-setup-dev.service",
    "kmod-static-nodes.service",
)
WANTED = {
    "sysinit.target": (
        "systemd-journald.service",
        "systemd-modules-load.service",
        "systemd-udevd.service",
        "systemd-udev-trigger.service",
        "kmod-static-nodes.service",
        "systemd-tmpfiles-setup-dev.service",
        "veritysetup.target",
    ),
    "sockets.target": (
        "systemd-journald.socket",
        "systemd-journald-dev-log.socket",
        "systemd-udevd-control.socket",
        "systemd-udevd-kernel.socket",
    ),
    "initrd-switch-root.target": (
        "initrd-switch-root.service",
        "initrd-cleanup.service",
        "initrd-udevadm-cleanup-db.service",
    ),
    "initrd.target": ("initrd-parse-etc.service",),
}
RULES = (
    "50-udev-default.rules",
    "55-dm.rules",
    "60-block.rules",
    "60-persistent-storage.rules",
    "60-persistent-storage-dm.rules",
    "80-drivers.rules",
    "95-dm-notify.rules",
    "99-systemd.rules",
)
# Disks of PC-class boxes, and the virtual ones; then what opens the root.
DRIVERS = (
    "nvme",
    "ahci",
    "ata_piix",
    "sd_mod",
    "usb_storage",
    "uas",
    "xhci_pci",
    "ehci_pci",
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    "virtio_blk",
    "virtio_pci",
    "virtio_scsi",
    "virtio_mmio",
    "autofs4",
    "dm_verity",
    "dm_mod",
    "squashfs",
    "crc32c_generic",
)
# On arm64 the C library's loader has another name.
LOADERS = ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-aarch64.so.1")
# A start that fails must not stop at a prompt: the firmware counts the try, and after three takes the other slot.
RESTART = """\
[Unit]
Description=The verified root did not open: restart
DefaultDependencies=no

[Service]
Type=oneshot
ExecStart=/usr/bin/systemctl --force --force reboot
"""


def build(root: Path, release: str, scratch: Path, out: Path, when: int) -> None:
    """Write the compressed archive `out` from the installed `root` with kernel `release`. `when`: UTC seconds."""
    tree = scratch / "initrd"
    for folder in (
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "sysroot",
        "etc",
        "var",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
    ):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (tree / link).symlink_to(f"usr/{link}")
    for program in PROGRAMS:
        _copy_program(root, tree, program)
    for name in ("modprobe", "insmod"):
        (tree / "usr/sbin" / name).symlink_to("../bin/kmod")
    _copy_units(root, tree)
    for rule in RULES:
        _copy(root, tree, f"usr/lib/udev/rules.d/{rule}")
    _copy_drivers(root, tree, release)
    _write_settings(root, tree)
    (tree / "init").symlink_to("usr/lib/systemd/systemd")
    _pack(tree, out, when)


def needed(root: Path, program: Path) -> set[str]:
    """The libraries that an ELF file asks for, and those that they ask for, as names."""
    found: set[str] = set()
    waiting = [program]
    while waiting:
        text = subprocess.run(
            ["objdump", "-p", str(_resolved(root, waiting.pop()))], check=True, capture_output=True, text=True
        ).stdout
        for name in re.findall(r"NEEDED\s+(\S+)", text):
            if name not in found:
                found.add(name)
                waiting.append(_library(root, name))
    return found


def _library(root: Path, name: str) -> Path:
    places = [
        *root.glob(f"usr/lib/*-linux-gnu/{name}"),
        root / "usr/lib/systemd" / name,
        *(p for p in root.glob(f"usr/lib/*-linux-gnu/systemd/{name}")),
        root / "usr/lib64" / name,
        root / "usr/lib" / name,
    ]
    return next(p for p in places if p.exists())


def _copy_program(root: Path, tree: Path, program: str) -> None:
    _copy(root, tree, program)
    for name in needed(root, _resolved(root, root / program)):
        library = _library(root, name)
        _copy(root, tree, str(library.relative_to(root)))
    for loader in LOADERS:
        if (root / loader).exists():
            _copy(root, tree, loader)


def _copy(root: Path, tree: Path, name: str) -> None:
    """A file, and where it is a link, what it points to under the name of the link."""
    target = tree / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_resolved(root, root / name), target)


def _resolved(root: Path, path: Path) -> Path:
    while path.is_symlink():
        goal = str(path.readlink())
        path = root / goal.lstrip("/") if goal.startswith("/") else path.parent / goal
    return path


def _copy_units(root: Path, tree: Path) -> None:
    source, target = root / "usr/lib/systemd/system", tree / "usr/lib/systemd/system"
    target.mkdir(parents=True)
    for unit in [*source.glob("*.target"), *source.glob("*.slice"), *(source / name for name in SERVICES)]:
        if unit.name not in ("default.target", "ctrl-alt-del.target") and not unit.is_symlink() and unit.exists():
            shutil.copy(unit, target / unit.name)
    for goal, wanted in WANTED.items():
        folder = target / f"{goal}.wants"
        folder.mkdir()
        for name in wanted:
            (folder / name).symlink_to(f"../{name}")
    (target / "default.target").symlink_to("initrd.target")
    (target / "emergency.service").write_text(RESTART)
    (target / "rescue.service").write_text(RESTART)


def _copy_drivers(root: Path, tree: Path, release: str) -> None:
    folder = f"usr/lib/modules/{release}"
    known = {}
    for line in (root / folder / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        known[Path(path).name.split(".")[0].replace("-", "_")] = (path, others.split())
    for name in _with_dependencies(known, DRIVERS):
        _copy(root, tree, f"{folder}/{name}")
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        _copy(root, tree, f"{folder}/{name}")
    subprocess.run(["depmod", "-b", str(tree), release], check=True)


def _with_dependencies(known: dict[str, tuple[str, list[str]]], names: Iterable[str]) -> list[str]:
    paths: dict[str, None] = {}
    for name in names:
        if name in known:  # else built into the kernel
            path, others = known[name]
            paths.update(dict.fromkeys([path, *others]))
    return sorted(paths)


def _write_settings(root: Path, tree: Path) -> None:
    etc = tree / "etc"
    shutil.copy(_resolved(root, root / "etc/os-release"), etc / "initrd-release")
    for name in ("passwd", "group"):
        shutil.copy(root / "etc" / name, etc / name)
    (etc / "modules-load.d").mkdir()
    (etc / "modules-load.d/root.conf").write_text("dm_verity\nsquashfs\nvirtio_blk\n")
    (etc / "fstab").write_text("")
    (etc / "machine-id").write_text("")


def _pack(tree: Path, out: Path, when: int) -> None:
    paths = sorted([tree, *tree.rglob("*")])
    for path in paths:
        os.utime(path, (when, when), follow_symlinks=False)
    names = "\0".join(str(p.relative_to(tree)) for p in paths).encode()
    archive = subprocess.run(
        ["cpio", "--null", "--create", "--format=newc", "--reproducible", "--quiet", "--owner=0:0"],
        cwd=tree,
        input=names,
        check=True,
        capture_output=True,
    ).stdout
    _compress(archive, out)


def _compress(archive: bytes, out: Path) -> None:
    command: Sequence[str] = ["zstd", "-q", "-19", "-T1", "-f", "-o", str(out), "-"]
    subprocess.run(command, input=archive, check=True)
