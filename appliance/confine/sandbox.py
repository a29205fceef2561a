"""What the vision process gives up at start, by itself, wherever it runs: a service, a container, a laptop.

 no-new-privs  no program it could start would gain rights (also what landlock and seccomp ask for)
 no-dump       no core file, and no process of the same user may attach to it or read its memory
 limits        core files of size 0; no file can be made longer than 0 bytes
 memory-lock   what it holds in memory is never written to swap
 landlock      the kernel refuses to open any file for writing, make, rename or remove one, but named devices
 seccomp       no network sockets, no other program or process, no tracing, no module, mount or kernel interface

In two steps: `files` before the first thread of ours (landlock holds for the calling thread and those it starts), and
`calls` once the models' runtimes are open (finding out whether an Edge TPU's library works takes a child process),
before watchlist, camera or socket. The seccomp filter is put on all threads at once. What cannot be had is said; what
the configuration requires and cannot be had stops the start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from appliance.errors import BluelampError, ConfigError

Restriction = Literal["no-new-privs", "limits", "no-dump", "memory-lock", "landlock", "seccomp"]
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14
_CLONE_THREAD = 0x00010000
_AF_UNIX = 1
_INTERNET = (2, 10, 16)  # AF_INET, AF_INET6, and AF_NETLINK, which resolving a name asks
DEVICES = (  # accelerators and decoders are opened for writing; none of them keeps anything
    "null", "zero", "nvidia*", "nvhost*", "nvmap", "nvgpu", "dri", "dma_heap", "apex_*",
)  # fmt: skip
_EDGE_TPU = ("1a6e", "18d1")  # the stick's USB vendor, before and after it got its firmware: it comes back anew
_ONE = "OPENBLAS_NUM_THREADS"
ALONE = {_ONE: "1"}  # what keeps libraries from starting threads when they are loaded
CAMERA_DEVICES = ("video*", "media*", "v4l-subdev*")
FORBIDDEN = (
    # other programs, other processes' memory
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp",
    # memory that outlives or leaves the process
    "shmget", "msgget", "semget", "mq_open", "userfaultfd",
    # ways past this very filter, and what the kernel is extended or configured with
    "io_uring_setup", "bpf", "perf_event_open", "seccomp", "keyctl", "add_key", "request_key", "init_module",
    "finit_module", "delete_module", "kexec_load", "kexec_file_load", "mount", "umount2", "move_mount", "fsopen",
    "fsmount", "open_tree", "pivot_root", "chroot", "setns", "unshare", "swapon", "swapoff", "reboot", "quotactl",
    "acct", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "iopl", "ioperm", "open_by_handle_at",
    "personality", "setrlimit", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups",
    "capset",
)  # fmt: skip


class SandboxError(BluelampError):
    """A restriction that the configuration requires cannot be had here."""

    exit_code = ConfigError.exit_code  # it does not mend itself: no service manager should try again


class _MissingError(Exception):
    """Why a restriction cannot be had."""


@dataclass
class Sandbox:
    """What one process gave up. `got` is in words, for the operator and for every health report."""

    say: Callable[[str], None]
    require: Sequence[Restriction] = ()
    got: tuple[str, ...] = ()
    missing: dict[Restriction, str] = field(default_factory=dict)

    def files(self, writable: Sequence[Path] = ()) -> None:
        """No file but `writable` and devices is written from here on. Raises SandboxError."""
        available()  # loads the libraries now: finding libseccomp takes a child process, which is about to be denied
        self._try("no-new-privs", _no_new_privileges)
        self._try("no-dump", _undumpable)
        self._try("limits", _no_files)
        self._try("memory-lock", _locked_memory)
        self._try("landlock", lambda: _landlock(writable))

    def calls(self, network_for: str = "") -> None:
        """No network and no other process from here on. Raises SandboxError.

        `network_for` names what needs the network all the same: an RTSP camera. Then internet sockets stay, and it is
        said.
        """
        self._try("seccomp", lambda: _seccomp(network_for))
        for name, why in self.missing.items():
            self.say(f"sandbox: no {name}: {why}")
        self.say(f"sandbox: {'; '.join(self.got) or 'nothing'}")

    def _try(self, name: Restriction, act: Callable[[], str]) -> None:
        try:
            self.got += (act(),)
        except (_MissingError, OSError, ValueError) as error:
            if name in self.require:
                raise SandboxError(
                    f"the sandbox's {name} is required and cannot be had: {error}; mend that, or take it out of "
                    "'require' under [sandbox]"
                ) from error
            self.missing[name] = str(error)


def available() -> dict[Restriction, str]:
    """What can be had here, without taking it: each restriction, and why not (empty: it can)."""
    found: dict[Restriction, str] = dict.fromkeys(("no-new-privs", "no-dump", "limits"), "")
    checks: tuple[tuple[Restriction, Callable[[], object]], ...] = (
        ("memory-lock", _may_lock), ("landlock", _ruleset), ("seccomp", _filter)
    )  # fmt: skip
    for name, check in checks:
        try:
            check()
            found[name] = ""
        except (_MissingError, OSError, ValueError) as error:
            found[name] = str(error)
    return found


def threads() -> int:
    """Threads of this process."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def start_alone() -> None:
    """Start this program anew where a library's threads run already, which landlock would not hold. May not return."""
    if threads() > 1 and _ONE not in os.environ:
        arguments = [sys.executable, "-m", "appliance.cli", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **ALONE})


def devices(cameras: bool) -> list[Path]:
    """Device files that may be opened for writing; `cameras`: those of V4L2 too."""
    vendors = {path.read_text().strip() for path in Path("/sys/bus/usb/devices").glob("*/idVendor")}
    stick = ("bus/usb",) if vendors.intersection(_EDGE_TPU) else ()  # else no way to a memory stick either
    patterns = DEVICES + stick + (CAMERA_DEVICES if cameras else ())
    return [path for pattern in patterns for path in sorted(Path("/dev").glob(pattern))]


def _no_new_privileges() -> str:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return "no new privileges"


def _undumpable() -> str:
    _prctl(_PR_SET_DUMPABLE, 0)
    return "memory not dumpable, not readable by others"


def _no_files() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.dont_write_bytecode = True
    for descriptor in (1, 2):
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _MissingError("its own output goes to a file, which could then not grow; let it go to a pipe")
        except OSError:
            continue  # closed
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return "core size 0, file size 0"


def _may_lock() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    if hard == resource.RLIM_INFINITY or effective >> _CAP_IPC_LOCK & 1:
        return
    # A limit that is reached later makes an allocation fail in the middle of a shift: all or nothing.
    raise _MissingError(f"this user may lock {hard // 1024} KiB only; raise LimitMEMLOCK, or run without swap")


def _locked_memory() -> str:
    _may_lock()
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    # On fault: pages are locked as they are touched, so that untouched stacks and libraries take no memory.
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "memory locked, never swapped"


def _ruleset() -> object:
    """A ruleset that forbids every kind of writing. Raises _MissingError."""
    try:
        import landlock
        from landlock import FSAccess
    except ImportError as error:
        raise _MissingError("the package landlock is not installed") from error
    ctypes.set_errno(0)  # the package takes a stale number for a failure
    try:
        kept = FSAccess.READ_FILE | FSAccess.READ_DIR | FSAccess.EXECUTE | FSAccess.IOCTL_DEV
        return landlock.Ruleset(FSAccess.all() & ~kept)
    except OSError as error:
        raise _MissingError(f"this kernel has no landlock ({error.strerror})") from error


def _landlock(writable: Sequence[Path]) -> str:
    from landlock import FSAccess, Ruleset

    ruleset = _ruleset()
    assert isinstance(ruleset, Ruleset)
    if threads() > 1:
        raise _MissingError(f"{threads()} threads run already and would not be held; start with OPENBLAS_NUM_THREADS=1")
    present = [path for path in writable if path.exists()]
    rights = FSAccess.WRITE_FILE | (FSAccess.TRUNCATE & ruleset.restrict_rules)
    for path in present:
        ctypes.set_errno(0)
        ruleset.allow(path, rules=rights)
    ctypes.set_errno(0)
    ruleset.apply()
    named = [str(path) for path in present if not str(path).startswith("/dev/")]
    return f"landlock: writes no file{' but ' + ', '.join(named) if named else ''}"


def _filter() -> object:
    """An empty filter that allows. Raises _MissingError."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise _MissingError(f"pyseccomp with libseccomp2 is not installed ({error})") from error
    return pyseccomp.SyscallFilter(pyseccomp.ALLOW)


def _seccomp(network_for: str) -> str:
    import pyseccomp
    from pyseccomp import EQ, ERRNO, MASKED_EQ, NE, Arg

    made = _filter()
    assert isinstance(made, pyseccomp.SyscallFilter)
    denied = ERRNO(errno.EPERM)
    for name in FORBIDDEN:
        try:
            made.add_rule(denied, name)
        except OSError:
            continue  # a call this machine does not have
    made.add_rule(denied, "clone", Arg(0, MASKED_EQ, _CLONE_THREAD, 0))  # threads, no processes
    made.add_rule(ERRNO(errno.ENOSYS), "clone3")  # its flags lie in memory; the C library then takes clone
    made.add_rule(denied, "prlimit64", Arg(2, NE, 0))  # asking for a limit is no harm, setting one is
    made.add_rule(denied, "prctl", Arg(0, EQ, _PR_SET_DUMPABLE))
    for family in range(64) if network_for else ():
        if family not in (_AF_UNIX, *_INTERNET):
            made.add_rule(denied, "socket", Arg(0, EQ, family))
    if not network_for:
        made.add_rule(denied, "socket", Arg(0, NE, _AF_UNIX))
    made.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    made.load()
    network = f"network for {network_for} only" if network_for else "no network"
    return f"seccomp: {network}, no other process, no tracing"


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
