"""What vision gives up is really gone: each forbidden thing is tried by a confined child, and refused by the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.confine import sandbox
from appliance.confine.sandbox import Sandbox, SandboxError
from tests.support.paths import ROOT

WANTED = ("no-new-privs", "no-dump", "limits", "landlock", "seccomp")
CONFINED = """
import ctypes, errno, json, os, resource, socket, subprocess, sys, threading
from pathlib import Path
from appliance.confine.sandbox import Sandbox
said = []
box = Sandbox(said.append)
libc = ctypes.CDLL(None, use_errno=True)
"""


def child(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A child with one thread, as vision is started."""
    environment = {**os.environ, **sandbox.ALONE, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CONFINED + code]
    return subprocess.run(command, text=True, timeout=60, env=environment, check=False, **options)  # type: ignore[call-overload, no-any-return]


def confined(work: str, *, before: str = "", network: str = "", writable: str = "") -> object:
    """Run `work` in a confined child; it leaves its answer in `answer`. `before` runs unconfined."""
    code = textwrap.dedent(before) + f"\nbox.files([{writable}])\nbox.calls({network!r})\n" + textwrap.dedent(work)
    done = child(code + "\nprint(json.dumps(answer))\n", capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """This machine has all that can be asked for; the tests of what is missing do not care."""
    missing = {n: why for n, why in sandbox.available().items() if why and n in WANTED}
    if missing:
        pytest.skip(f"this machine cannot confine: {missing}")


def test_what_was_got_is_said_in_words() -> None:
    words = confined("answer = [box.got, sorted(box.missing), said]")
    got, missing, said = words  # type: ignore[misc]
    assert "landlock: writes no file" in got
    assert "seccomp: no network, no other process, no tracing" in got
    assert set(missing) <= {"memory-lock"}
    assert said[-1].startswith("sandbox: no new privileges; memory not dumpable")


def test_no_file_is_written_anywhere(tmp_path: Path) -> None:
    """Nor renamed, removed, linked or made longer: not in its own folder, /tmp, /dev/shm or the working folder."""
    kept = tmp_path / "kept"
    kept.write_text("x")
    work = """
    answer = {}
    def tried(name, act):
        try:
            act()
            answer[name] = "done"
        except OSError as error:
            answer[name] = errno.errorcode[error.errno]
    for folder in (OWN, "/tmp", "/dev/shm", "/var/tmp", "."):
        tried(folder, lambda: Path(folder, "bluelamp-probe").write_bytes(b"frame"))
    kept = Path(OWN, "kept")
    tried("append", lambda: os.open(kept, os.O_WRONLY | os.O_APPEND))
    tried("truncate", lambda: os.truncate(kept, 0))
    tried("rename", lambda: kept.rename(kept.with_name("other")))
    tried("remove", kept.unlink)
    tried("link", lambda: os.link(kept, kept.with_name("link")))
    tried("fifo", lambda: os.mkfifo(kept.with_name("fifo")))
    tried("folder", lambda: kept.with_name("folder").mkdir())
    tried("socket", lambda: socket.socket(socket.AF_UNIX).bind(str(kept.with_name("s"))))
    tried("unnamed", lambda: os.open(OWN, os.O_TMPFILE | os.O_RDWR))
    """
    answers = confined(work, before=f"OWN = {str(tmp_path)!r}")
    assert isinstance(answers, dict)
    assert {name: code for name, code in answers.items() if code not in ("EACCES", "EPERM", "EXDEV")} == {}
    assert kept.read_text() == "x"
    assert not Path("/tmp/bluelamp-probe").exists()


def test_a_file_that_was_open_before_grows_no_more(tmp_path: Path) -> None:
    """Landlock judges the opening; the size limit holds for what was open already, and for memory files."""
    work = """
    answer = []
    for descriptor in (before, os.memfd_create("x")):
        try:
            answer.append(os.write(descriptor, b"frame"))
        except OSError as error:
            answer.append(errno.errorcode[error.errno])
    """
    path = tmp_path / "open"
    answer = confined(work, before=f"before = os.open({str(path)!r}, os.O_CREAT | os.O_RDWR)")
    assert answer == ["EFBIG", "EFBIG"]
    assert path.read_bytes() == b""


def test_a_named_device_file_may_still_be_written() -> None:
    """As the LED's brightness: a pseudo-terminal stands for the driver."""
    near, far = os.openpty()
    name = os.ttyname(far)
    work = f"answer = Path({name!r}).open('wb', buffering=0).write(b'1\\n')"
    answer = confined(work, writable=f"Path({name!r})")
    assert answer == 2
    assert os.read(near, 10).startswith(b"1")
    os.close(near), os.close(far)


CALLS = {
    "inet": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "inet6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "exec": "os.execv('/bin/true', ['true'])",
    "fork": "os.fork()",
    "child": "subprocess.run(['/bin/true'])",
    "trace me": "called(libc.ptrace(0, 0, 0, 0))",
    "trace parent": "called(libc.ptrace(16, os.getppid(), 0, 0))",
    "read parent": "called(libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0))",
    "shared memory": "called(libc.shmget(0, 4096, 0o1600))",
    "io_uring": "called(libc.syscall(425, 1, 0))",
    "namespace": "called(libc.unshare(0x10000000))",
    "dumpable": "called(libc.prctl(4, 1, 0, 0, 0))",
    "limit": "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (1000, 1000))",
}


def test_calls_out_of_the_process_are_refused() -> None:
    """Network, other programs, tracing, other processes' memory, and the ways back: each one, for real."""
    work = """
    answer = {}
    def called(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "refused")
    me = os.getpid()
    for name, text in CALLS.items():
        try:
            eval(text)
            answer[name] = "done"
        except (OSError, ValueError) as error:
            answer[name] = "refused"
        if os.getpid() != me:
            os._exit(0)
    """
    assert confined(work, before=f"CALLS = {CALLS!r}") == dict.fromkeys(CALLS, "refused")


def test_what_vision_needs_still_works(tmp_path: Path) -> None:
    """Threads, local sockets that others made, reading files."""
    (tmp_path / "read").write_text("list")
    work = """
    done = []
    thread = threading.Thread(target=lambda: done.append(1))
    thread.start(), thread.join()
    near, far = socket.socketpair(socket.AF_UNIX)
    near.sendall(b"sealed")
    answer = [len(done), far.recv(10).decode(), Path(OWN).read_text()]
    """
    assert confined(work, before=f"OWN = {str(tmp_path / 'read')!r}") == [1, "sealed", "list"]


def test_threads_that_run_already_are_held_too() -> None:
    """The filter is put on every thread, not only on the one that asks for it. Landlock holds only for that one: with
    two it is not taken, and that is said."""
    before = """
    def later():
        ask.wait()
        try:
            socket.socket(socket.AF_INET)
            answer.append("done")
        except OSError:
            answer.append("refused")
    ask, answer = threading.Event(), []
    waiting = threading.Thread(target=later)
    waiting.start()
    """
    work = """
    ask.set()
    waiting.join()
    answer.append(box.missing["landlock"])
    """
    answer = confined(work, before=before)
    assert answer == ["refused", "2 threads run already and would not be held; start with OPENBLAS_NUM_THREADS=1"]


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    """A real SIGSEGV, with the limit on cores raised as far as it goes beforehand."""
    code = """
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
box.files()
box.calls()
ctypes.string_at(0)
"""
    done = child(code, cwd=tmp_path, capture_output=True)
    assert done.returncode == -11
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_nobody_of_the_same_user_may_attach_or_read_its_memory() -> None:
    """As an ordinary user, whose processes may do so until then: root is refused nothing."""
    before = """
    import landlock, pyseccomp
    (r, w), (r2, w2) = os.pipe(), os.pipe()
    reader = os.fork()
    os.setgid(65534), os.setuid(65534)
    if reader == 0:
        os.close(w)
        while os.read(r, 1):
            try:
                open(f"/proc/{os.getppid()}/mem", "rb").close()
                os.write(w2, b"read")
            except OSError:
                os.write(w2, b"refused")
        os._exit(0)
    libc.prctl(4, 1, 0, 0, 0)
    os.write(w, b"x")
    answer = [os.read(r2, 20).decode()]
    """
    work = """
    os.write(w, b"x")
    answer.append(os.read(r2, 20).decode())
    """
    assert confined(work, before=before) == ["read", "refused"]


def test_an_rtsp_camera_keeps_the_internet_and_nothing_else() -> None:
    """The exception is said, and is as small as it can be."""
    work = """
    answer = [box.got[-1]]
    for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_PACKET, socket.SOCK_RAW), (31, 1), (40, 1)):
        try:
            socket.socket(family, kind).close()
            answer.append("done")
        except OSError as error:
            answer.append(errno.errorcode[error.errno])
    """
    answer = confined(work, network="camera gate")
    words = "seccomp: network for camera gate only, no other process, no tracing"
    assert answer == [words, "done", "EPERM", "EPERM", "EPERM"]


def failing(words: str) -> Callable[..., str]:
    def act(*_: object) -> str:
        raise OSError(95, words)

    return act


@pytest.mark.parametrize("name", ["landlock", "seccomp"])
def test_without_landlock_or_seccomp_it_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel or a system without: the others are taken, the missing one is said."""
    steps = {"landlock": "_landlock", "seccomp": "_seccomp"}
    for step in ("_no_new_privileges", "_undumpable", "_no_files", "_locked_memory", "_landlock", "_seccomp"):
        monkeypatch.setattr(sandbox, step, lambda *_, step=step: step)  # this very process stays as it is
    monkeypatch.setattr(sandbox, steps[name], failing("not here"))
    said: list[str] = []
    box = Sandbox(said.append)
    box.files()
    box.calls()
    assert f"sandbox: no {name}: [Errno 95] not here" in said
    assert len(box.got) == 5
    with pytest.raises(SandboxError, match=f"the sandbox's {name} is required and cannot be had: .*take it out of"):
        required = Sandbox(said.append, require=(name,))  # type: ignore[arg-type]
        required.files()
        required.calls()


def test_a_package_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "landlock", None)
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    missing = sandbox.available()
    assert missing["landlock"] == "the package landlock is not installed"
    assert missing["seccomp"].startswith("pyseccomp with libseccomp2 is not installed")
    assert missing["limits"] == ""


def test_output_to_a_file_keeps_the_size_limit_off_and_says_so(tmp_path: Path) -> None:
    """A log that could not grow would end the unit; the limit on cores stands, and landlock does."""
    with (tmp_path / "log").open("wb") as log:
        assert child("box.files()\nprint(json.dumps(box.missing))", stdout=log).returncode == 0
    assert "its own output goes to a file" in json.loads((tmp_path / "log").read_text())["limits"]
