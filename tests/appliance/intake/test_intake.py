"""What comes by stick or upload folder: only what is right is taken, and each file has its line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.cli import app
from appliance.deployment import files as deployment
from appliance.deployment.site import Site
from appliance.errors import BluelampError
from appliance.intake import folder as intake_folder
from appliance.intake import take_in
from appliance.intake.folder import IntakeError, read_folder
from appliance.intake.take_in import Desk, Verdict
from appliance.keeper.finish import finish
from appliance.limits import LIMITS
from appliance.trust import audit, keys
from provisioning.authority import authority
from provisioning.base import open_base
from tests.support import workbench

FILES = {"list.watchlist", "order.json", "preflight.json", "report.json"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    """An order for D-1 that allows two later versions of its list."""
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    bench.ordered(later_versions=2)
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


@pytest.fixture
def stick(bench: workbench.Workbench) -> Path:
    """The four files of D-1, as the base wrote them."""
    return bench.root / "van-D-1"


@pytest.fixture
def site(bench: workbench.Workbench) -> Site:
    """A unit to which nothing was brought yet."""
    home = bench.root / "deployment"
    home.mkdir()
    return Site(bench.unit, home / "watchlist.blw", home / "order.json", bench.root / "state")


def desk(bench: workbench.Workbench, site: Site, now: float | None = None) -> Desk:
    return Desk(site, bench.folder, bench.models, time.time() if now is None else now)


def bring(bench: workbench.Workbench, site: Site, stick: Path, now: float | None = None) -> dict[str, Verdict]:
    """Put a stick in; what was said of each file."""
    return {v.name: v for v in take_in.take(read_folder(stick), desk(bench, site, now))}


def outcomes(said: dict[str, Verdict]) -> dict[str, str]:
    return {name: verdict.outcome for name, verdict in said.items()}


def content(site: Site) -> dict[str, bytes]:
    """Everything that lies where arming looks."""
    return {p.name: p.read_bytes() for p in sorted(site.order.parent.iterdir())}


def arm(bench: workbench.Workbench, site: Site) -> None:
    deployment.arm(site, bench.folder, bench.packs, workbench.confirmed(), "PC 1234")


def test_a_whole_delivery_is_taken_and_arms(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    assert outcomes(bring(bench, site, stick)) == dict.fromkeys(FILES, "taken")
    arm(bench, site)
    acts = [e.act for e in audit.verify(site.state / "audit.log", [bench.folder.signer.public_key])]
    assert acts == ["order", "collection", "arming"]


def test_the_same_stick_again_changes_nothing_and_says_so(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    bring(bench, site, stick)
    before = content(site)
    assert outcomes(bring(bench, site, stick)) == dict.fromkeys(FILES, "here")
    assert content(site) == before


def test_a_list_for_a_window_that_is_yet_to_begin_is_taken_at_noon(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    """Arming, not the intake, waits for the window."""
    assert outcomes(bring(bench, site, stick, bench.now - 6 * 3600)) == dict.fromkeys(FILES, "taken")


def test_files_may_lie_one_folder_deep_and_no_deeper(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    deep = bench.root / "stick"
    shutil.copytree(stick, deep / "HIGH-ST" / "more")
    shutil.copytree(stick, deep / "issued")
    assert outcomes(bring(bench, site, deep)) == {f"issued/{name}": "taken" for name in FILES}


def test_what_is_for_another_unit_is_said_and_left(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    """One stick for two vans is nobody's mistake: no failure, and nothing is taken."""
    identity = bench.root / "unit-2"
    workbench.join(open_base(bench.root / "base"), identity, "unit", "van-2")
    said = bring(replace(bench, unit=identity), replace(site, key_folder=identity), stick)
    assert (said["list.watchlist"].outcome, said["order.json"].outcome) == ("other", "other")
    assert said["list.watchlist"].text == "for van-1, this is van-2"
    assert content(site) == {}


def test_a_thousand_files_are_one_line(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    for number in range(1000):
        (stick / f"{number}.jpg").touch()
    with pytest.raises(IntakeError, match=f"more than {LIMITS.intake_names} files: this is no delivery"):
        bring(bench, site, stick)
    assert content(site) == {}


def test_links_are_not_followed_wherever_they_lead(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    """A link to the very files, by file and by folder, out of the stick and within it: none is read."""
    linked = bench.root / "linked"
    linked.mkdir()
    (linked / "order.json").symlink_to(stick / "order.json")
    (linked / "issued").symlink_to(stick)
    (linked / "preflight.json").symlink_to("order.json")
    said = bring(bench, site, linked)
    assert outcomes(said) == dict.fromkeys(("order.json", "issued", "preflight.json"), "refused")
    assert {v.text for v in said.values()} == {"a link, which is not followed; copy the file itself"}
    assert content(site) == {}


def test_what_is_not_a_file_does_not_hold_up_the_unit(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    (stick / "roster.json").unlink(missing_ok=True)
    os.mkfifo(stick / "roster.json")
    said = bring(bench, site, stick)
    assert said["roster.json"].text == "not a file; copy the file itself"
    assert said["order.json"].outcome == "taken"


def test_a_stick_pulled_out_in_the_middle_leaves_everything_as_it_was(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    """Wherever reading fails, from the first read to the last."""
    bring(bench, site, stick)
    before, reads = content(site), 0
    bench.issue("D-1", stick / "list.watchlist")  # version 2, which would be taken

    def pulled(after: int) -> intake_folder.Read:
        left = [after]

        def read(descriptor: int, most: int) -> bytes:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return os.read(descriptor, most)

        return read

    while True:
        try:
            read_folder(stick, pulled(reads))
            break
        except IntakeError as error:
            assert "pulled out, or damaged; nothing was taken" in str(error)
        assert content(site) == before
        reads += 1
    assert reads == 8  # a read and an end for each of four files
    assert bring(bench, site, stick)["list.watchlist"].outcome == "taken"


def test_a_file_whose_device_ends_early_is_no_file(tmp_path: Path) -> None:
    """A real device with a real file system on it, cut off behind the second file's first half."""
    image, folder = tmp_path / "stick.img", tmp_path / "stick"
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("making a file system and mounting it needs root and mkfs.ext4")
    folder.mkdir()
    source = tmp_path / "files"
    source.mkdir()
    (source / "a.watchlist").write_bytes(os.urandom(3_000_000))
    subprocess.run(["mkfs.ext4", "-q", "-d", source, image, "6M"], check=True, capture_output=True)
    end = image.read_bytes().rfind((source / "a.watchlist").read_bytes()[-4096:])
    if end < 0 or subprocess.run(["mount", "-o", "loop,ro", image, folder], capture_output=True).returncode:
        pytest.skip("mounting an image needs loop devices")
    try:
        os.truncate(image, end - 1_000_000)
        with pytest.raises(IntakeError, match="Input/output error: pulled out, or damaged; nothing was taken"):
            read_folder(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_file_that_is_still_being_written_is_left_until_it_is_whole(tmp_path: Path) -> None:
    """It grows between look and read, or is cut in between: neither is believed."""
    (tmp_path / "order.json").write_bytes(b"x" * 100)

    def growing(descriptor: int, most: int) -> bytes:
        with (tmp_path / "order.json").open("ab") as file:
            file.write(b"y")
        return os.read(descriptor, most)

    (left,) = read_folder(tmp_path, growing).left
    assert left.why == "cut short, or still being written; it is tried again when it is whole"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_damaged_file_is_refused_and_the_old_one_stays(
    bench: workbench.Workbench, site: Site, stick: Path, name: str
) -> None:
    bring(bench, site, stick)
    before = content(site)
    for damage in (lambda b: b[: len(b) // 2], lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:], lambda b: b + b" "):
        whole = (stick / name).read_bytes()
        (stick / name).write_bytes(damage(whole))
        said = bring(bench, site, stick)
        (stick / name).write_bytes(whole)
        assert said[name].outcome == "refused", said[name]
        assert "\n" not in said[name].text
        assert content(site) == before


def test_a_file_larger_than_its_kind_may_be_is_not_read(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    with (stick / "order.json").open("r+b") as file:
        file.truncate(LIMITS.config_bytes + 1)
    said = bring(bench, site, stick)
    assert said["order.json"].text == "1000001 bytes are too many for this kind of file (order); choose the right one"
    assert content(site) == {}  # and what only an order vouches for is not taken either


def test_a_list_without_its_order_waits_for_it(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    order = stick / "order.json"
    order.rename(bench.root / "later.json")
    said = bring(bench, site, stick)
    assert {v.text for v in said.values()} == {"no order here names it; bring it together with its order"}
    (bench.root / "later.json").rename(order)
    assert outcomes(bring(bench, site, stick)) == dict.fromkeys(FILES, "taken")


def test_an_order_with_too_few_signatures_is_refused(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    single = bench.ordered([bench.officer], deployment="D-2")
    said = bring(bench, site, single.order.parent)
    assert "1 of the 2 signatures it needs" in said["order.json"].text
    assert content(site) == {}


def test_an_order_whose_window_is_over_is_refused(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    said = bring(bench, site, stick, bench.now + 3 * 3600)
    assert "its window ended at" in said["order.json"].text
    assert content(site) == {}


def test_a_deployment_that_ended_here_does_not_come_back(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    bring(bench, site, stick)
    arm(bench, site)
    finish(site, bench.folder, "disarmed")
    site.order.unlink()
    said = bring(bench, site, stick)
    assert "D-1 was used and ended here" in said["order.json"].text
    assert not site.watchlist.exists()


def test_an_older_version_of_the_list_never_replaces_a_newer(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    old = (stick / "list.watchlist").read_bytes()
    bring(bench, site, stick)
    bench.issue("D-1", stick / "list.watchlist")
    assert "version 2" in bring(bench, site, stick)["list.watchlist"].text
    newer = content(site)
    (stick / "list.watchlist").write_bytes(old)
    assert "version 1, and version 2 is here" in bring(bench, site, stick)["list.watchlist"].text
    assert content(site) == newer


def test_of_several_versions_the_highest_is_taken(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    bench.issue("D-1", stick / "v2.watchlist")
    bench.issue("D-1", stick / "v3.watchlist")
    bench.issue("D-1", stick / "v4.watchlist")  # one more than the order allows
    said = bring(bench, site, stick)
    assert said["v3.watchlist"].outcome == "taken"
    assert "nor a later one it allows" in said["v4.watchlist"].text
    assert said["v2.watchlist"].text == "version 2, older than version 3 beside it"


def test_while_armed_only_a_later_version_of_the_list_is_taken(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    bring(bench, site, stick)
    arm(bench, site)
    before = content(site)
    other = bench.ordered(deployment="D-2").order.parent
    said = bring(bench, site, other)
    assert said["order.json"].text == "D-1 is armed and obeys its own order; disarm first"
    assert said["list.watchlist"].outcome == said["preflight.json"].outcome == "refused"
    assert content(site) == before
    bench.issue("D-1", stick / "v2.watchlist")
    assert bring(bench, site, stick)["v2.watchlist"].text == "watchlist of D-1, version 2"
    assert {**content(site), "watchlist.blw": b""} == {**before, "watchlist.blw": b""}


def test_while_armed_a_version_with_lower_thresholds_is_refused(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    """The same rule as for a file put in place by hand (refresh.py)."""
    bring(bench, site, stick)
    arm(bench, site)
    bench.issue("D-1", stick / "v2.watchlist", **{"R-00001": workbench.THRESHOLD - 0.1})
    assert "under the order's" in bring(bench, site, stick)["v2.watchlist"].text


def test_two_orders_on_one_stick_come_one_after_the_other(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    shutil.copy(bench.ordered(deployment="D-2").order, stick / "second-order.json")
    said = bring(bench, site, stick)
    assert sorted((said["order.json"].outcome, said["second-order.json"].outcome)) == ["refused", "taken"]


def test_a_newer_roster_is_taken_and_an_older_is_not(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    old = (bench.root / "base" / "roster.json").read_bytes()
    workbench.join(open_base(bench.root / "base"), bench.root / "unit-9", "unit", "van-9")
    shutil.copy(bench.root / "base" / "roster.json", stick)
    said = bring(bench, site, stick)
    assert said["roster.json"].outcome == "taken"
    assert outcomes(said)["list.watchlist"] == "taken"
    (stick / "roster.json").write_bytes(old)
    assert "older than version" in bring(bench, site, stick)["roster.json"].text
    (stick / "roster.json").write_bytes(old.replace(b"sig", b"gis", 1))
    assert "altered" in bring(bench, site, stick)["roster.json"].text


def test_a_roster_that_would_void_the_armed_order_waits_for_its_end(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    bring(bench, site, stick)
    arm(bench, site)
    before = keys.load_roster(bench.unit).version
    authority.revoke(open_base(bench.root / "base"), "officer")
    shutil.copy(bench.root / "base" / "roster.json", stick)
    said = bring(bench, site, stick)["roster.json"]
    assert "under it D-1, which is armed, would not stand" in said.text
    assert keys.load_roster(bench.unit).version == before


def test_a_read_only_root_is_one_line_and_changes_nothing(bench: workbench.Workbench, site: Site, stick: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    home = str(site.order.parent)
    subprocess.run(["mount", "--bind", home, home], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", home], check=True)
        with pytest.raises(IntakeError, match="Read-only file system; nothing more was taken"):
            bring(bench, site, stick)
        assert content(site) == {}
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IntakeError, match="No such file or directory; put the stick in again"):
        read_folder(tmp_path / "stick")


def test_the_command_says_a_line_for_each_file_and_its_exit_code_tells(
    bench: workbench.Workbench, site: Site, stick: Path
) -> None:
    """Exit 0 where everything was right or for others; 5 where a file was refused; --json for a screen."""
    text = "\n".join([
        "[unit]", f'keys = "{bench.unit}"', f'watchlist = "{site.watchlist}"', f'order = "{site.order}"',
        f'state = "{site.state}"', "[models]", f'detector = "{bench.packs.detector.folder}"',
        f'embedder = "{bench.packs.embedder.folder}"', "[[camera]]", 'name = "gate"', 'source = "/dev/video0"',
    ])  # fmt: skip
    (bench.root / "unit.toml").write_text(text)
    command = ["intake", str(stick), "--config", str(bench.root / "unit.toml")]
    first = CliRunner().invoke(app, command)
    assert (first.exit_code, sorted(first.output.splitlines())[0][:29]) == (0, "taken  list.watchlist: watchl")
    assert len(first.output.splitlines()) == 4
    (stick / "order.json").write_bytes(b"{}")
    second = CliRunner().invoke(app, [*command, "--json"])
    assert second.exit_code == 5
    assert {f["name"]: f["outcome"] for f in json.loads(second.output)["files"]}["order.json"] == "refused"
    third = CliRunner().invoke(app, ["intake", str(bench.root / "gone"), *command[2:]])
    assert isinstance(third.exception, BluelampError)
