"""The keeper: an ended deployment is erased whoever is dead, at whatever moment it dies, and leaves one receipt."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import config
from appliance.config import BrokerPart, CameraPart, UnitConfig, UnitPart
from appliance.courier.outbox import Outbox
from appliance.courier.server import run_courier
from appliance.courier.settings import courier_settings
from appliance.deployment import files as deployment
from appliance.deployment import layout
from appliance.deployment.site import Site, due, read_armed
from appliance.errors import CourierError, KeyFileError
from appliance.formats.receipt import read
from appliance.keeper import keeper
from appliance.keeper.keeper import Desk, Keeper
from appliance.sockets.ending import KeeperError, Over, ask
from appliance.sockets.listen import Gate
from appliance.trust import audit, keys
from tests.support import workbench
from tests.support.machines import eventually

PUBLISHING = {"os.remove", "os.rename", "os.mkdir", "os.truncate"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    site = bench.ordered()
    deployment.arm(site, bench.folder, bench.packs, workbench.confirmed(), "PC 1234")
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    """An armed unit of this test's own."""
    return shared.copy(tmp_path / "b")


def settings_of(bench: workbench.Workbench) -> UnitConfig:
    van = bench.root / "van-D-1"
    part = UnitPart(keys=bench.unit, watchlist=van / "list.watchlist", order=van / "order.json", state=bench.root / "s")
    (bench.root / "state").rename(part.state)
    camera = CameraPart(name="front", source="0")
    return UnitConfig(unit=part, camera=(camera,), broker=BrokerPart(host="127.0.0.1", port=9))


@pytest.fixture
def settings(bench: workbench.Workbench) -> UnitConfig:
    return settings_of(bench)


@pytest.fixture
def keeping(settings: UnitConfig) -> Keeper:
    return keeper.keeper_of(settings, lambda line: None)


@pytest.fixture
def sealing_key(keeping: Keeper, bench: workbench.Workbench) -> str:
    """The key that has to go."""
    return read_armed(keeping.site, bench.folder).sealing_key


def end_window(site: Site, folder: keys.KeyFolder) -> None:
    """As if the window had ended a minute ago."""
    from appliance.deployment import arming
    from appliance.trust import envelope

    record = read_armed(site, folder)
    over = record.model_copy(update={"not_after": time.time() - 60})
    site.armed.write_bytes(envelope.sign(over, arming.KIND, folder.signer))


def is_gone(site: Site, folder: keys.KeyFolder, key: str) -> bool:
    return not (site.watchlist.exists() or site.armed.exists() or (folder.folder / "sealing" / f"{key}.pem").exists())


def erasures(site: Site, folder: keys.KeyFolder) -> int:
    entries = audit.verify(site.state / "audit.log", [folder.signer.public_key])
    return sum(1 for e in entries if e.act == "erasure")


@contextlib.contextmanager
def served(keeping: Keeper) -> Iterator[Path]:
    """A keeper that serves its socket in this process."""
    path = layout.keeper_path(keeping.config)
    desk = Desk(keeping, Gate(path))
    thread = threading.Thread(target=desk.serve)
    thread.start()
    try:
        yield path
    finally:
        desk.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_a_window_that_ended_is_erased_though_vision_is_dead(
    keeping: Keeper, bench: workbench.Workbench, sealing_key: str
) -> None:
    """The timer's command, as a process: nobody asked for it."""
    end_window(keeping.site, bench.folder)
    part = keeping.config.unit
    text = f'[unit]\nkeys = "{part.keys}"\nwatchlist = "{part.watchlist}"\norder = "{part.order}"\n'
    text += f'state = "{part.state}"\n[[camera]]\nname = "front"\nsource = "0"\n'
    (bench.root / "unit.toml").write_text(text)
    command = [sys.executable, "-m", "appliance.cli", "keeper", "--once", "--config", str(bench.root / "unit.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "D-1 is over (window-ended)" in done.stderr
    assert "no courier took the receipt" in done.stderr
    assert is_gone(keeping.site, bench.folder, sealing_key)
    assert erasures(keeping.site, bench.folder) == 1


def test_locked_keys_do_not_keep_the_key(
    keeping: Keeper, bench: workbench.Workbench, sealing_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their passphrase nothing is signed, but the key is destroyed; with it the receipt follows."""
    from typer.testing import CliRunner

    from appliance.cli import app

    secret = tmp_path / "secret"
    secret.write_text("four random words here")
    secret.chmod(0o600)
    monkeypatch.setenv("BLUELAMP_PASSPHRASE_FILE", str(secret))
    end_window(keeping.site, bench.folder)
    done = CliRunner().invoke(app, ["keys", "lock", str(bench.unit)])
    assert done.exit_code == 0, done.output
    monkeypatch.delenv("BLUELAMP_PASSPHRASE_FILE")
    with pytest.raises(KeyFileError, match="these keys are locked"):
        keeping.judge()
    assert not (bench.unit / "sealing" / f"{sealing_key}.pem").exists()
    assert keeping.site.armed.exists()
    monkeypatch.setenv("BLUELAMP_PASSPHRASE_FILE", str(secret))
    keeping.judge()
    assert is_gone(keeping.site, bench.folder, sealing_key)


def test_a_full_disk_does_not_keep_the_key(bench: workbench.Workbench, small_disk: Path) -> None:
    """The key goes without a byte to spare; log and receipt follow when there is room."""
    config_ = settings_of(bench)
    shutil.copytree(config_.unit.state, small_disk / "s")
    part = config_.unit.model_copy(update={"state": small_disk / "s"})
    keeping = keeper.keeper_of(config_.model_copy(update={"unit": part}), lambda line: None)
    key = read_armed(keeping.site, bench.folder).sealing_key
    end_window(keeping.site, bench.folder)
    (small_disk / "s" / "ending.lock").touch()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(4 << 20))
    with pytest.raises(KeeperError, match=r"No space left.*make room or mend the disk: the next keeper goes on"):
        keeping.judge()
    assert not (bench.unit / "sealing" / f"{key}.pem").exists()
    filler.unlink()
    keeping.judge()
    assert is_gone(keeping.site, bench.folder, key)
    assert 1 <= erasures(keeping.site, bench.folder) <= 2, "the log of the first attempt may have found room"


def test_a_user_that_this_machine_does_not_know_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert layout.uids(["root", "no-such-user"]) == [0]
    assert "no user no-such-user on this machine" in caplog.text


def test_a_clock_set_back_does_not_keep_a_window_open(keeping: Keeper, bench: workbench.Workbench) -> None:
    """In the boot of the arming the steady clock tells; here the arming's own clock stood an hour later than ours."""
    from appliance.deployment import arming, clock
    from appliance.trust import envelope

    record, now = read_armed(keeping.site, bench.folder), clock.read_point()
    point = now.model_copy(update={"wall": now.wall + 3600})
    later = record.model_copy(update={"not_after": now.wall + 3599, "point": point})
    keeping.site.armed.write_bytes(envelope.sign(later, arming.KIND, bench.folder.signer))
    assert due(keeping.site, bench.folder) == "window-ended"


def test_an_armed_deployment_that_is_not_over_is_left_alone(keeping: Keeper, bench: workbench.Workbench) -> None:
    keeping.judge()
    assert keeping.site.armed.exists()
    assert keeping.site.watchlist.exists()


def test_vision_has_a_moment_to_end_it_itself(keeping: Keeper, bench: workbench.Workbench, sealing_key: str) -> None:
    """It knows the counts. When the moment is over, or is not given, the file on the van is enough."""
    keeping.site.disarm.touch()
    keeping.judge()
    assert keeping.site.armed.exists()
    keeping.judge(0.0)
    assert is_gone(keeping.site, bench.folder, sealing_key)
    assert not keeping.site.disarm.exists()


def test_a_recall_is_judged_without_vision(keeping: Keeper, bench: workbench.Workbench, sealing_key: str) -> None:
    from provisioning.orders.ordering import recall_of

    keeping.site.recall.write_bytes(b"no authority signed this")
    keeping.judge(0.0)
    assert keeping.site.armed.exists()
    keeping.site.recall.write_bytes(recall_of(bench.base, "van-1", "D-1", "new information"))
    keeping.judge(0.0)
    assert is_gone(keeping.site, bench.folder, sealing_key)


def test_vision_has_it_ended_through_the_socket(keeping: Keeper, bench: workbench.Workbench, sealing_key: str) -> None:
    """One connection, one record, one answer: when it comes, the key is gone and the receipt names the counts."""
    with served(keeping) as path:
        ask(path, Over(deployment="D-1", reason="fpir", counts={"tracks": 812, "alerts": 3}))
        assert is_gone(keeping.site, bench.folder, sealing_key)
        ask(path, Over(deployment="D-1", reason="fpir"))  # ended already is as good
    blob = (keeping.site.state / "receipts" / "D-1.json").read_bytes()
    receipt = read(blob, [bench.folder.signer.public_key])
    assert (receipt.reason, receipt.counts) == ("fpir", {"tracks": 812, "alerts": 3})
    assert erasures(keeping.site, bench.folder) == 1


def test_another_deployment_is_not_ended(keeping: Keeper, bench: workbench.Workbench) -> None:
    with served(keeping) as path, pytest.raises(KeeperError, match="D-1 is armed here, not D-7"):
        ask(path, Over(deployment="D-7", reason="disarmed"))
    assert keeping.site.armed.exists()


@pytest.mark.parametrize("blob", [b"", b"\x00\x00\x00\x02{}", b"\xff" * 64, b"\x00\x00\x00\x05hello"])
def test_nothing_but_the_record_is_understood(keeping: Keeper, blob: bytes) -> None:
    """Whatever else arrives ends nothing, and the next one is served."""
    with served(keeping) as path:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(path))
            stream.sendall(blob)
            stream.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert stream.recv(100) == b""
        assert keeping.site.armed.exists()
        ask(path, Over(reason="disarmed"))
    assert not keeping.site.armed.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_ends_nothing(keeping: Keeper, tmp_path: Path) -> None:
    """The kernel says who asks."""
    with served(keeping) as path:
        for folder in (path.parent, *path.parents):
            if folder == Path("/tmp"):
                break
            folder.chmod(0o755)
        path.chmod(0o666)
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            try:
                ask(path, Over(reason="disarmed"))
            except CourierError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert keeping.site.armed.exists()


def test_no_keeper_is_told_with_what_to_do(settings: UnitConfig) -> None:
    with pytest.raises(KeeperError, match=r"no keeper answers .* run: bluelamp-unit keeper --once"):
        ask(layout.keeper_path(settings), Over(reason="disarmed"))


def killed_at(keeping: Keeper, number: int) -> bool:
    """A keeper in a process of its own, killed just before its `number`th change of a file; False if it finished."""
    pid = os.fork()
    if pid == 0:
        left = number

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in PUBLISHING or writes:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        keeping.judge(0.0)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_a_keeper_killed_at_any_moment_is_finished_by_the_next(shared: workbench.Workbench, tmp_path: Path) -> None:
    """At every change of a file in turn: less is left each time, never more, and in the end one receipt."""
    number, killed = 0, True
    while killed:
        number += 1
        bench = shared.copy(tmp_path / str(number))
        keeping = keeper.keeper_of(settings_of(bench), lambda line: None)
        folder = bench.folder
        key = read_armed(keeping.site, folder).sealing_key
        end_window(keeping.site, folder)
        killed = killed_at(keeping, number)
        keeping.judge(0.0)
        assert is_gone(keeping.site, folder, key), f"killed before change {number}"
        receipts = list((keeping.site.state / "receipts").glob("*.json"))
        assert [read(r.read_bytes(), [folder.signer.public_key]).keys for r in receipts] == [(key,)]
        assert erasures(keeping.site, folder) >= 1
    assert number > 8


def test_two_endings_at_once_make_one_receipt(keeping: Keeper, bench: workbench.Workbench) -> None:
    """A timer's keeper and the socket's, in the same moment: one erases, the other finds nothing armed."""
    end_window(keeping.site, bench.folder)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            keeping.judge(0.0)
            os._exit(0)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert erasures(keeping.site, bench.folder) == 1
    assert len(list((keeping.site.state / "receipts").glob("*.json"))) == 1


def test_a_receipt_no_courier_took_is_sent_later(keeping: Keeper, bench: workbench.Workbench) -> None:
    """It lies sealed beside its signed form until a courier has it on its disk."""
    keeping.site.disarm.touch()
    keeping.judge(0.0)
    sealed = keeping.site.state / "receipts" / "D-1.sealed"
    assert sealed.exists()
    stop = threading.Event()
    chosen = courier_settings(keeping.config).model_copy(update={"flush_seconds": 0.0})
    courier = threading.Thread(target=run_courier, args=(chosen,), kwargs={"stop": stop, "say": lambda line: None})
    courier.start()
    eventually(chosen.socket.exists)
    assert keeping.hand_over()
    stop.set()
    courier.join(30)
    assert not sealed.exists()
    assert sealed.with_suffix(".json").exists()
    outbox = Outbox(chosen.outbox)
    assert [row.header.kind for row in outbox.rows(0, 10)] == ["receipt"]
    outbox.close()


def test_a_config_without_an_order_has_no_keeper(settings: UnitConfig) -> None:
    part = settings.unit.model_copy(update={"order": None})
    with pytest.raises(config.ConfigError, match="without one nothing is armed"):
        keeper.keeper_of(settings.model_copy(update={"unit": part}), print)
