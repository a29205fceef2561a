"""Build `dist/bluelamp-unit-VERSION-ARCHITECTURE.img`, a disk that boots by UEFI: python packaging/image/image.py

From Debian's packages and the project's own. It needs root (for mmdebstrap and chroot) and the programs that `make
image` installs. Beside the disk it writes an update bundle (`.raucb`), the digest of the root, and the list of
packages.

The same tree and the same keys are meant to give the same bytes (two builds were not compared yet): times come from
$SOURCE_DATE_EPOCH or the last commit, identifiers from the version, and packages are those of packages-
ARCHITECTURE.lock; where Debian has newer ones, the build stops and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import builder_keys
import bundle
import disk
import initrd
import kernel
import rootfs
import verity

sys.path.insert(0, str(rootfs.ROOT / "packaging"))
import build as package  # the package's own build script, one folder up

EFI_NAMES = {"amd64": ("BOOTX64.EFI", "x64"), "arm64": ("BOOTAA64.EFI", "aa64")}


def build(chosen: argparse.Namespace) -> Path:
    """Build disk and bundle; returns the disk's path."""
    when, architecture = package.moment(), package.architecture()
    version = chosen.version or package.version()
    keys = builder_keys.keys_in(chosen.keys)
    name = f"bluelamp-unit-{version}-{architecture}" + ("-debug" if chosen.debug else "")
    chosen.out.mkdir(parents=True, exist_ok=True)
    deb = chosen.package or package.build(chosen.out)
    with tempfile.TemporaryDirectory(prefix="bluelamp-image-", dir=chosen.scratch) as folder:
        scratch = Path(folder)
        tree = scratch / "root"
        say("root file system")
        release = rootfs.install(tree, architecture, deb, version, when, chosen.debug)
        shutil.copyfile(keys.certificate("update"), tree / "etc/rauc/keyring.pem")
        packages = rootfs.installed(tree)
        check_lock(tree, architecture, chosen.renew, chosen.debug)
        say("initial RAM disk")
        initrd.build(tree, release, scratch, scratch / "initrd.zst", when)
        shutil.copyfile(tree / f"boot/vmlinuz-{release}", scratch / "vmlinuz")
        efi_name, suffix = EFI_NAMES[architecture]
        for part in (f"linux{suffix}.efi.stub", f"systemd-boot{suffix}.efi"):
            shutil.copyfile(tree / "usr/lib/systemd/boot/efi" / part, scratch / part)
        rootfs.prune(tree, chosen.debug)
        say("verified root")
        root, digests = scratch / "root.squashfs", scratch / "root.verity"
        digest = verity.pack(tree, root, digests, when, name)
        kernels = {}
        for slot in ("a", "b"):
            kernels[slot] = scratch / f"kernel-{slot}.efi"
            (scratch / f"cmdline-{slot}").write_text(kernel.command_line(slot, digest))
            parts = {
                ".osrel": tree / "usr/lib/os-release",
                ".cmdline": scratch / f"cmdline-{slot}",
                ".linux": scratch / "vmlinuz",
                ".initrd": scratch / "initrd.zst",
            }
            kernel.build(parts, scratch / f"linux{suffix}.efi.stub", keys, kernels[slot], when)
        loader = scratch / "loader.efi"
        kernel.sign(scratch / f"systemd-boot{suffix}.efi", keys, loader, when)
        say("disk")
        out = chosen.out / f"{name}.img"
        disk.write(out, name, disk.esp(kernels["a"], loader, efi_name, keys, scratch, when), root, digests)
        say("update bundle")
        bundle.build(chosen.out / f"{name}.raucb", root, digests, kernels, keys, version, architecture, scratch, when)
        (chosen.out / f"{name}.packages").write_text("".join(f"{line}\n" for line in packages))
        about = {
            "version": version,
            "architecture": architecture,
            "roothash": digest.digest,
            "debug": chosen.debug,
            "source_date_epoch": when,
        }
        (chosen.out / f"{name}.json").write_text(json.dumps(about) + "\n")
    return out


def check_lock(tree: Path, architecture: str, renew: bool, debug: bool) -> None:
    """Compare what was installed with the lock file, which holds the field image's packages. Raises SystemExit."""
    found, path = rootfs.installed(tree), rootfs.HERE / f"packages-{architecture}.lock"
    known = rootfs.locked_text(architecture).splitlines()
    if debug:
        names = {line.split()[0] for line in known}
        found = [line for line in found if line.split()[0] in names]
    elif renew or not known:
        path.write_text("".join(f"{line}\n" for line in found))
        return
    if other := sorted(set(found) ^ set(known)):
        lines = "\n".join(f"{'installed' if line in found else 'locked   '}  {line}" for line in other)
        raise SystemExit(
            f"these packages are not the locked ones; look at them, then: make image ARGS=--renew\n{lines}"
        )


def say(what: str) -> None:
    """A line of progress, with the seconds since the start."""
    print(f"{time.monotonic() - START:6.0f} s  {what}", file=sys.stderr, flush=True)


START = time.monotonic()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=rootfs.ROOT / "dist", help="folder of the image (dist)")
    parser.add_argument("--keys", type=Path, default=builder_keys.default_folder(), help="folder of the builder's keys")
    parser.add_argument("--version", help="version of the image, where it is not the package's: 0.1.0+2")
    parser.add_argument("--package", type=Path, help="a .deb that was built before")
    parser.add_argument(
        "--debug",
        action="store_true",
        help="with a shell, ssh, a package manager and virtual cameras: never for the field",
    )
    parser.add_argument("--renew", action="store_true", help="write the lock file anew from what Debian has today")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files (the system's)")
    if os.geteuid() != 0:
        raise SystemExit("make image needs root: it installs Debian packages into a folder of their own")
    print(build(parser.parse_args()))
