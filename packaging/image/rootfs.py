"""The root file system: Debian's packages, the project's own, the image's settings, and nothing that is not needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kernel import run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SUITE = "bookworm"
MIRRORS = (
    "deb {mirror}/debian bookworm main",
    "deb {mirror}/debian bookworm-updates main",
    "deb {mirror}/debian-security bookworm-security main",
)
KERNEL = {"amd64": "linux-image-amd64", "arm64": "linux-image-arm64"}
EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/share/zsh/*",
)
# Packages whose files leave the field image again: shells, package managers, and what only they call.
REMOVED = (
    "apt",
    "dpkg",
    "bash",
    "dash",
    "perl-base",
    "login",
    "passwd",
    "debconf",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "sed",
    "tar",
    "mawk",
    "hostname",
    "ncurses-bin",
    "sysvinit-utils",
    "init-system-helpers",
    "debianutils",
    "gpgv",
    "bsdutils",
    "adduser",
    "dbus-session-bus-common",
    "sudo",
)
# triggerhappy's own: its service does not run, the unit's button service does.
RULES_REMOVED = ("60-triggerhappy.rules", "80-triggerhappy.rules")
# What a shell hides behind.
SHELLS = ("usr/bin/sh", "usr/bin/bash", "usr/bin/dash", "usr/bin/rbash")
# Programs of packages that stay, of which a unit needs none.
PROGRAMS_KEPT = {
    "coreutils": {"chgrp", "chmod", "true", "false", "env"},
    "util-linux": {"setpriv", "nsenter", "findmnt", "partx", "wipefs", "lsblk", "blkid", "fsck", "agetty"},
}
# Drivers that a unit must not have: virtual cameras, which would let recorded pictures pass for a live camera.
DRIVERS_REMOVED = ("vivid", "vim2m", "vimc", "visl", "v4l2loopback")
# Run by mmdebstrap at its end, in a shell of the building machine, with the new root as $1. The kernel's package is
# unpacked and not installed, since it would ask for tools that make another initial RAM disk. What apt knows of each
# package is kept, for the lock file and the bill of materials.
HOOK = r"""
set -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir -p "$1/usr/share/bluelamp"
kernel=$(apt-cache depends {kernel} | sed -n 's/.*Depends: //p' | head -1)
cd "$1/tmp"
apt-get download -q "$kernel"
dpkg-deb --fsys-tarfile linux-image-*.deb | tar --extract --keep-directory-symlink --directory "$1"
rm -- *.deb
chroot "$1" dpkg-query -W -f '${{Package}}=${{Version}}\n' > packages
echo "$kernel=$(apt-cache policy "$kernel" | sed -n 's/.*Candidate: //p')" >> packages
apt-cache show $(cat packages) > "$1/usr/share/bluelamp/packages.txt"
rm packages
"""
DEBUG_PACKAGES = ("bash", "openssh-server", "procps", "iproute2", "strace", "less")
UNITS_MASKED = (
    "getty@.service",
    "serial-getty@.service",
    "console-getty.service",
    "getty.target",
    "debug-shell.service",
    "rescue.service",
    "systemd-hibernate.service",
    "systemd-suspend.service",
    "systemd-firstboot.service",
    "systemd-homed.service",
    "ctrl-alt-del.target",
    "systemd-repart.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "triggerhappy.service",
    "triggerhappy.socket",
    "rauc-mark-good.service",
    "systemd-boot-update.service",
    "systemd-boot-system-token.service",
    "systemd-networkd-wait-online.service",
    "systemd-rfkill.service",
    "systemd-rfkill.socket",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-pstore.service",
    "systemd-udev-settle.service",
    "systemd-random-seed.service",
    "systemd-machine-id-commit.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "gpsd.socket",
    "systemd-journal-flush.service",
    "keyboard-setup.service",
    "console-setup.service",
)
UNITS_ENABLED = {
    "multi-user.target": (
        "bluelamp.target",
        "systemd-networkd.service",
        "bluelamp-site.service",
        "bluelamp-console@tty1.service",
        "bluelamp-console@ttyS0.service",
        "bluelamp-healthy.service",
    ),
    "sysinit.target": ("systemd-timesyncd.service", "systemd-resolved.service"),
    "sockets.target": ("systemd-networkd.socket",),
    "local-fs.target": ("bluelamp-state.service",),
    "boot-complete.target": ("bluelamp-healthy.service",),
}
# Without these the target fails, and with it the start: nothing may run on a state that is only in memory.
REQUIRED = ("local-fs.target", "boot-complete.target")
DEBUG_UNITS = ("bluelamp-debug-shell.service",)


def install(tree: Path, architecture: str, package: Path, version: str, when: int, debug: bool) -> str:
    """Install everything into the empty folder `tree`; returns the kernel's release. Needs root."""
    base = _base(architecture, when, debug)
    tree.mkdir()
    run(["tar", "--extract", "--numeric-owner", "--xattrs", "--file", str(base), "--directory", str(tree)])
    shutil.copyfile(package, tree / package.name)
    inside(tree, ["dpkg", "--install", f"/{package.name}"])
    (tree / package.name).unlink()
    _lay_over(tree, HERE / "root")
    if debug:
        _lay_over(tree, HERE / "debug")
    _identify(tree, version, when, debug)
    inside(tree, ["systemd-sysusers"])
    inside(
        tree,
        [
            "python3",
            "-m",
            "compileall",
            "-q",
            "-f",
            "--invalidation-mode",
            "unchecked-hash",
            "/usr/lib/python3",
            "/usr/lib/python3.11",
            "/opt/bluelamp",
        ],
    )
    release = next((tree / "usr/lib/modules").iterdir()).name
    if not debug:
        _remove_drivers(tree)
    inside(tree, ["depmod", release])
    _enable(tree, debug)
    return release


def _base(architecture: str, when: int, debug: bool) -> Path:
    """Debian's part as a tar file, kept while nothing that decides it changes."""
    listed = [line.split("#")[0].strip() for line in (HERE / "packages.txt").read_text().splitlines()]
    wanted = [name for name in listed if name] + (list(DEBUG_PACKAGES) if debug else [])
    decides = "\n".join([architecture, SUITE, *MIRRORS, *EXCLUDED, *wanted, KERNEL[architecture]])
    out = ROOT / ".cache/image" / f"base-{hashlib.sha256(decides.encode()).hexdigest()[:16]}.tar"
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part.tar")
    mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org")
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        f"--architectures={architecture}",
        f"--include={','.join(wanted)}",
        "--aptopt=Apt::Install-Recommends false",
        "--aptopt=Acquire::Languages none",
        "--aptopt=Acquire::Retries 5",
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--customize-hook={HOOK.format(kernel=KERNEL[architecture], architecture=architecture)}",
        SUITE,
        str(part),
        *(m.format(mirror=mirror) for m in MIRRORS),
    ]
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(when)})
    part.rename(out)
    return out


def locked_text(architecture: str) -> str:
    """The lock file of the image: a line a package with version and SHA-256; empty before the first."""
    path = HERE / f"packages-{architecture}.lock"
    return path.read_text() if path.exists() else ""


def installed(tree: Path) -> list[str]:
    """The packages of a root: lines "name version SHA-256 of the package file", sorted."""
    lines = set()
    for paragraph in (tree / "usr/share/bluelamp/packages.txt").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields:
            lines.add(f"{fields['Package']} {fields['Version']} {fields['SHA256']}")
    return sorted(lines)


def prune(tree: Path, debug: bool) -> None:
    """Take out what only builds or packages need, and in the field image every shell."""
    if not debug:
        for package in REMOVED:
            _remove_package(tree, package)
        for package, kept in PROGRAMS_KEPT.items():
            _remove_programs(tree, package, kept)
        for shell in SHELLS:
            (tree / shell).unlink(missing_ok=True)
        shutil.rmtree(tree / "var/lib/dpkg")
    for name in RULES_REMOVED:
        (tree / "usr/lib/udev/rules.d" / name).unlink(missing_ok=True)
    (tree / "efi").mkdir(exist_ok=True)
    for folder in ("var/cache", "var/lib/apt", "var/log", "var/backups", "boot", "tmp", "run", "root"):
        shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for name in ("etc/machine-id", "var/lib/dbus/machine-id", "etc/ssl/private/ssl-cert-snakeoil.key"):
        (tree / name).unlink(missing_ok=True)
    (tree / "etc/machine-id").write_text("")
    (tree / "tmp").chmod(0o1777)
    for name in ("etc/hostname", "etc/resolv.conf", "etc/hosts"):
        (tree / name).unlink(missing_ok=True)
    (tree / "etc/hostname").write_text("bluelamp\n")
    (tree / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    (tree / "etc/hosts").symlink_to("/run/bluelamp-network/hosts")
    for name in ("passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-", ".pwd.lock"):
        (tree / "etc" / name).unlink(missing_ok=True)


def inside(tree: Path, command: Sequence[str]) -> None:
    """Run a program of the new root, in it, with /proc and a process tree of its own."""
    enter = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={tree}/proc", "chroot", str(tree)]
    run(
        [*enter, *command],
        PYTHONHASHSEED="0",
        DEBIAN_FRONTEND="noninteractive",
        LC_ALL="C.UTF-8",
        PATH="/usr/sbin:/usr/bin:/sbin:/bin",
        PYTHONPATH="",
    )


def _lay_over(tree: Path, source: Path) -> None:
    for path in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        target = tree / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link in the new root would lead out of it
        shutil.copyfile(path, target)
        target.chmod(0o755 if path.read_bytes()[:2] == b"#!" else 0o644)


def _identify(tree: Path, version: str, when: int, debug: bool) -> None:
    about = tree / "usr/lib/os-release"
    kept = [line for line in about.read_text().splitlines() if not line.startswith(("PRETTY_NAME", "IMAGE_"))]
    variant = "debug" if debug else "field"
    kept += [
        f'PRETTY_NAME="Bluelamp unit {version} ({variant})"',
        "IMAGE_ID=bluelamp-unit",
        f"IMAGE_VERSION={version}",
        f"VARIANT_ID={variant}",
    ]
    about.write_text("\n".join(kept) + "\n")


def _enable(tree: Path, debug: bool) -> None:
    folder = tree / "etc/systemd/system"
    for name in UNITS_MASKED:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/dev/null")
    enabled = (
        {**UNITS_ENABLED, "sysinit.target": (*UNITS_ENABLED["sysinit.target"], *DEBUG_UNITS)}
        if debug
        else UNITS_ENABLED
    )
    for goal, wanted in enabled.items():
        for name in wanted:
            place = "/etc/systemd/system" if (folder / name).exists() else "/usr/lib/systemd/system"
            template = name.split("@")[0] + "@.service" if "@" in name else name
            link = folder / f"{goal}.{'requires' if goal in REQUIRED else 'wants'}" / name
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(f"{place}/{template}")
    (folder / "default.target").unlink(missing_ok=True)
    (folder / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")


def _remove_drivers(tree: Path) -> None:
    for name in DRIVERS_REMOVED:
        for path in (tree / "usr/lib/modules").rglob(f"{name}.ko*"):
            path.unlink()


def _files(tree: Path, package: str) -> list[Path]:
    for name in (package, f"{package}:amd64", f"{package}:arm64"):
        listed = tree / f"var/lib/dpkg/info/{name}.list"
        if listed.exists():
            return [tree / line.lstrip("/") for line in listed.read_text().splitlines()]
    return []


def _remove_package(tree: Path, package: str) -> None:
    for path in sorted(_files(tree, package), reverse=True):
        if _within(tree, path) and (path.is_symlink() or path.is_file()):
            path.unlink()


def _remove_programs(tree: Path, package: str, kept: set[str]) -> None:
    for path in _files(tree, package):
        if (
            path.parent.name in ("bin", "sbin")
            and path.name not in kept
            and _within(tree, path)
            and (path.is_file() or path.is_symlink())
        ):
            path.unlink()


def _within(tree: Path, path: Path) -> bool:
    """Is a path inside the new root, wherever its folders' links lead."""
    return tree.resolve() in path.parent.resolve().parents
