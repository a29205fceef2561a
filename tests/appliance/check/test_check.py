"""`check` tells what was found or what to do, a line each: the order and its window, the machine, the picture."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.capture import light as scene
from appliance.check import cli as check_cli
from appliance.check import machine as check_machine
from appliance.check import order as check_order
from appliance.check.line import Line
from appliance.config import BeaconPart, CameraPart, UnitConfig, UnitPart
from appliance.courier.outbox import Outbox
from appliance.courier.server import run_courier
from appliance.courier.settings import CourierSettings
from appliance.deployment import files as deployment
from appliance.deployment.site import Site
from appliance.formats import order
from appliance.limits import LIMITS
from appliance.records import CameraHealth, Health, Image, StageTimes
from appliance.sockets.running import ask_courier
from appliance.transport.mqtt import BrokerAddress
from appliance.trust import keys, seal
from demo.run import ASSETS
from provisioning.orders import ordering
from tests.support import workbench
from tests.support.machines import AlertMaker, eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    bench.ordered()
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


@pytest.fixture(scope="module")
def street() -> Image:
    """A frame of the demo's street."""
    return np.asarray(cv2.VideoCapture(str(ASSETS / "street.mp4")).read()[1], np.uint8)


def config_of(site: Site, camera: str = "/dev/video0", ordered: bool = True, position: str | None = None) -> UnitConfig:
    """A unit's configuration for the workbench's files."""
    part = UnitPart(
        keys=site.key_folder, watchlist=site.watchlist, order=site.order if ordered else None, state=site.state,
        position=position,
    )  # fmt: skip
    return UnitConfig(unit=part, camera=(CameraPart(name="gate", source=camera),))


def health() -> Health:
    """What vision tells of itself."""
    return Health(
        unit="van-1", deployment="D-1", time=time.time(), uptime=1.0, state="armed", cameras=(), faces=0, tracks=0,
        probes=0, alerts=0, queued=0, stages=StageTimes(), resident_bytes=1, watchlist_entries=1, watchlist_recall=1.0,
    )  # fmt: skip


def about(bench: workbench.Workbench, config: UnitConfig) -> dict[str, Line]:
    """The lines about the order, by name."""
    content = deployment.open_list(config.unit.watchlist, bench.folder, bench.models, time.time())
    return {line.name: line for line in check_order.lines(config, bench.folder, bench.packs, content)}


def test_a_unit_with_everything_in_order_is_told_to_arm(bench: workbench.Workbench) -> None:
    lines = about(bench, config_of(bench.site(bench.root / "van-D-1")))
    assert list(lines) == ["order", "window", "place", "clock", "armed"]
    assert all(line.good for line in lines.values())
    assert "D-1, signed by base, officer" in lines["order"].text
    assert re.search(r"open for another (2 h 0|1 h 59) min", lines["window"].text)
    assert "see for yourself" in lines["place"].text
    assert lines["armed"].look
    assert "next: bluelamp-unit arm (5 signs" in lines["armed"].text


def test_an_armed_unit_says_so_and_how_to_end_it(bench: workbench.Workbench) -> None:
    site = bench.site(bench.root / "van-D-1")
    deployment.arm(site, bench.folder, bench.packs, workbench.confirmed(), "PC 1234")
    line = about(bench, config_of(site))["armed"]
    assert line.good
    assert not line.look
    assert re.search(r"for D-1 since .*, by PC 1234; to end it: bluelamp-unit disarm", line.text)


def test_an_order_signed_by_one_of_two_stops(bench: workbench.Workbench) -> None:
    site = bench.ordered(signers=[bench.base.folder], deployment="D-2")
    assert not about(bench, config_of(site))["order"].good


def test_a_step_that_fails_is_named_with_what_to_do(bench: workbench.Workbench) -> None:
    """Bring the missing file; until then there is nothing to arm."""
    site = bench.site(bench.root / "van-D-1")
    (site.order.parent / "preflight.json").unlink()
    lines = about(bench, config_of(site))
    assert "step 12" in lines["order"].text
    assert "preflight.json is missing beside the order; bring it" in lines["order"].text
    assert "first put right what stands above" in lines["armed"].text


def test_an_order_from_the_future_makes_the_clock_unbelievable(bench: workbench.Workbench) -> None:
    """K1: something was signed after what the clock says."""
    site = bench.site(bench.root / "van-D-1")
    looked, figures = (site.order.parent / name for name in ("preflight.json", "report.json"))
    late = ordering.draft(bench.base, "D-1", bench.details(), looked.read_bytes(), figures.read_bytes(),
                          bench.now + 3600)  # fmt: skip
    for signer in (bench.base.folder, bench.officer):
        late = ordering.sign(late, keys.signer_of(signer))
    site.order.write_bytes(late)
    line = about(bench, config_of(site))["clock"]
    assert not line.good
    assert "set the clock" in line.text


@pytest.mark.parametrize(
    ("away", "words", "good"),
    [(0.0, "inside High Street", True), (0.02, "m outside High Street", False), (None, "no position yet", False)],
)
def test_the_place_is_asked_of_the_receiver(
    bench: workbench.Workbench, away: float | None, words: str, good: bool
) -> None:
    path = bench.root / "position.json"
    if away is not None:
        path.write_text(json.dumps({"latitude": 51.5002 + away, "longitude": -0.141}))
    line = about(bench, config_of(bench.site(bench.root / "van-D-1"), position=str(path)))["place"]
    assert words in line.text
    assert line.good is good


def test_a_window_to_come_is_waited_for_and_one_that_is_over_stops(bench: workbench.Workbench) -> None:
    site = bench.site(bench.root / "van-D-1")
    current = order.read(site.order.read_bytes(), bench.folder.roster.authority_keys(), 2)
    before = check_order.window(current, current.not_before - 720)
    assert (before.good, before.look) == (True, True)
    assert before.text.endswith("begins in 12 min; wait")
    over = check_order.window(current, current.not_after + 3 * 3600 + 65)
    assert not over.good
    assert over.text.endswith("over since 3 h 1 min; ask for a new order")


def test_a_real_camera_without_an_order_stops_and_a_clip_may_be_rehearsed(bench: workbench.Workbench) -> None:
    site = bench.site(bench.root / "van-D-1")
    line = about(bench, config_of(site, ordered=False))["order"]
    assert not line.good
    assert "bring order.json from the base" in line.text
    assert about(bench, config_of(site, str(ASSETS / "street.mp4"), ordered=False))["order"].good


def test_the_scene_of_the_demo_is_in_focus_and_well_lit(street: Image) -> None:
    assert scene.faults(scene.look(street), 40) == ()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image: cv2.GaussianBlur(image, (0, 0), 4), "out of focus: its sharpest edges are blurred by 4"),
        (lambda image: image // 5, "too dark"),
        (lambda image: np.clip(image.astype(int) + 150, 0, 255).astype(np.uint8), "too bright"),
        (lambda image: np.zeros_like(image), "the picture is black: take the cap off"),
        (lambda image: np.full_like(image, 128), "all one grey"),
    ],
)
def test_what_is_wrong_with_a_picture_is_said_in_words(
    street: Image, spoil: Callable[[Image], Image], words: str
) -> None:
    line = check_machine.light("scene gate", scene.look(spoil(street)), 40)
    assert line.good, "a picture is a reason to look, never to stop"
    assert line.look
    assert words in line.text


@pytest.mark.parametrize("blur", [1.5, 2.5, 4.0])
def test_focus_is_measured_whatever_the_light_and_the_noise(street: Image, blur: float) -> None:
    """The blur of the lens adds to the picture's own as blurs do: in squares. Within a fifth, at night too."""
    own = scene.look(street).blur
    assert own is not None
    soft = cv2.GaussianBlur(street, (0, 0), blur).astype(np.float32)
    noisy = np.clip(soft * 0.3 + np.random.default_rng(1).normal(0, 2, soft.shape), 0, 255).astype(np.uint8)
    for image in (soft.astype(np.uint8), noisy):
        assert scene.look(image).blur == pytest.approx(float(np.hypot(own, blur)), rel=0.2)


def test_a_camera_that_is_away_stops(tmp_path: Path) -> None:
    part = UnitPart(keys=tmp_path, watchlist=tmp_path / "w", state=tmp_path / "state")
    config = UnitConfig(unit=part, camera=(CameraPart(name="gate", source="/dev/video98"),))
    (line,) = check_machine.cameras(config, None, None)
    assert not line.good
    assert "is it plugged in" in line.text


def bare(folder: Path, **beacon: object) -> UnitConfig:
    """A unit with a camera and perhaps a beacon."""
    part = UnitPart(keys=folder, watchlist=folder / "w", state=folder / "state")
    return UnitConfig(unit=part, camera=(CameraPart(name="gate", source="0"),),
                      beacon=BeaconPart.model_validate(beacon))  # fmt: skip


def test_a_beacon_burns_for_a_second_and_goes_out(tmp_path: Path) -> None:
    """An LED as sysfs shows one: whoever stands by the van sees it."""
    (tmp_path / "brightness").write_text("0\n")
    thread = threading.Thread(target=lambda: eventually(lambda: (tmp_path / "brightness").read_text()[:1] == "1"))
    thread.start()
    line = check_machine.beacon(bare(tmp_path, led=tmp_path), None)
    thread.join()
    assert line == Line("beacon", True, "it burnt for a second: did you see it?")
    assert int((tmp_path / "brightness").read_text()) == 0


def test_the_beacon_of_an_armed_unit_is_left_alone(tmp_path: Path) -> None:
    """Vision may be lighting it this moment, and a check must never put it out."""
    (tmp_path / "brightness").write_text("1\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "armed.json").write_text("{}")
    assert "left to vision" in check_machine.beacon(bare(tmp_path, led=tmp_path), None).text
    assert (tmp_path / "brightness").read_text() == "1\n"


def test_a_beacon_that_is_not_there_stops_and_none_is_a_reason_to_look(tmp_path: Path) -> None:
    line = check_machine.beacon(bare(tmp_path, led=tmp_path / "gone"), None)
    assert not line.good
    assert "check its name and its rights" in line.text
    none = check_machine.beacon(bare(tmp_path), None)
    assert (none.good, none.look) == (True, True)


def test_while_vision_scans_its_cameras_and_beacon_are_left_to_it(tmp_path: Path) -> None:
    """A camera cannot be opened twice, and the lamp must not go out: vision's own report is told."""
    camera = CameraHealth(name="gate", state="running", frames=9, dropped=0, fps=14.8)
    running = health().model_copy(update={"cameras": (camera,), "beacon": "lit", "sandbox": ("no network",)})
    (line,) = check_machine.cameras(bare(tmp_path), None, running)
    assert line == Line("camera gate", True, "running, 14.8 frames a second")
    assert check_machine.beacon(bare(tmp_path, led=tmp_path), running) == Line("beacon", True, "lit")
    assert check_machine.confinement(bare(tmp_path), running).text == "no network"


def test_heat_and_memory_are_reasons_to_look() -> None:
    assert not check_machine.temperature(None).look
    assert not check_machine.temperature(79.9).look
    assert "shade and air" in check_machine.temperature(80.0).text
    assert not check_machine.memory(600_000_000, False).look
    assert "end other programs" in check_machine.memory(400_000_000, False).text
    assert "swapoff" in check_machine.memory(600_000_000, True).text


@pytest.fixture
def courier(settings: Callable[..., CourierSettings], maker: AlertMaker) -> Iterator[CourierSettings]:
    """A courier with one alert on disk and a broker that is away."""
    made, stop = settings(BrokerAddress(host="127.0.0.1", port=9), flush_seconds=0.0), threading.Event()
    outbox, container = Outbox(made.outbox), maker.alert()
    outbox.put(container, seal.take_apart(container, LIMITS.envelope_bytes).header)
    outbox.close()
    thread = threading.Thread(target=run_courier, args=(made,), kwargs={"stop": stop, "say": lambda line: None})
    thread.start()
    yield made
    stop.set()
    thread.join()


def test_a_courier_is_asked_what_waits_with_it(courier: CourierSettings, tmp_path: Path) -> None:
    assert ask_courier(tmp_path / "nobody.sock") is None
    eventually(lambda: ask_courier(courier.socket) is not None)
    greeting = ask_courier(courier.socket)
    assert greeting is not None
    assert (greeting.queued, greeting.broker) == (1, False)


def test_a_line_is_told_apart_by_word_and_shape() -> None:
    """Not by colour alone: green, amber and red are one grey to some eyes, and under a red lamp."""
    lines = [Line("a", True, "there"), Line("b", True, "hot", look=True), Line("c", False, "broken")]
    assert [check_cli.shown(line).plain.split()[0] for line in lines] == ["ok✔", "look▲", "STOP✘"]


def test_a_broker_that_is_down_does_not_stop_the_unit(
    settings: Callable[..., CourierSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = settings(BrokerAddress(host="127.0.0.1", port=9))
    monkeypatch.setattr(check_machine, "courier_settings", lambda config: made)
    part = UnitPart(keys=tmp_path, watchlist=tmp_path, state=tmp_path)
    line = check_machine.broker(UnitConfig(unit=part, camera=(CameraPart(name="gate", source="0"),)))
    assert (line.good, line.look) == (True, True)
    assert "alerts will wait" in line.text


def test_the_last_line_says_what_to_do_now() -> None:
    good, hot, broken = Line("a", True, ""), Line("temperature", True, "", look=True), Line("broker", False, "")
    assert check_cli.verdict([good]) == "Ready."
    assert check_cli.verdict([good, hot]) == "Ready, with 1 to look at: temperature."
    assert check_cli.verdict([good, hot, broken]) == "Not ready. Put right, from the top: broker."
    to_arm = Line("armed", True, "", look=True)
    assert check_cli.verdict([hot, to_arm]) == (
        "Nothing stands in the way. Next: bluelamp-unit arm. Look at: temperature."
    )
