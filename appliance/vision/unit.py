"""A unit, put together from its configuration: one visible list, opened in order and closed in reverse.

Authority first: keys, then models, then the watchlist, then cameras. Nothing is captured before all of it stands.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import cv2
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from appliance.camera_kinds import kind_of
from appliance.capture.camera import Camera
from appliance.capture.mailbox import Bell
from appliance.config import BeaconPart, UnitConfig
from appliance.confine.beacon import Beacon
from appliance.confine.watchdog import Watchdog
from appliance.deployment import files as deployment
from appliance.deployment.arming import Permit
from appliance.deployment.blue_list import BlueList, PressLog, monitor
from appliance.deployment.files import Recognisers
from appliance.deployment.layout import site_of, socket_path
from appliance.deployment.next_list import ListWatch
from appliance.deployment.site import Site
from appliance.errors import ConfigError
from appliance.formats import watchlist
from appliance.formats.order import OrderError
from appliance.formats.watchlist import Watchlist
from appliance.recognition import golden, packs
from appliance.recognition.decide import Decider, DecideRules
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.extract import Extractor, ExtractRules
from appliance.recognition.identify import Identifier
from appliance.recognition.track import Tracker, TrackRules
from appliance.records import Health, Models
from appliance.sockets.ending import Over
from appliance.sockets.link import CourierLink
from appliance.times import utc
from appliance.trust import keys
from appliance.vision.loop import Allowed, Lane, Summary, Vision
from appliance.vision.sealer import ChainState, Sealer, Sender

GREETING_SECONDS = 5.0  # how long to wait for the courier to say where the chain of alerts stands
DELIVERY_SECONDS = 15.0  # how long to wait at the end until the courier has stored everything
_LIST_SECONDS = 2.0  # how often a newer version of the list is looked for
Say = Callable[[str], None]


@dataclass(frozen=True)
class Networks:
    """The two networks, opened and checked against their golden records, and the packs they came from."""

    detector: Detector
    embedder: Embedder
    packs: Recognisers

    @property
    def models(self) -> Models:
        """Digests of the packs."""
        return self.packs.models


@dataclass(frozen=True)
class Gear:
    """What lasts while stretches of scanning come and go. `show` takes the newest figures."""

    folder: keys.KeyFolder
    networks: Networks
    beacon: Beacon
    watchdog: Watchdog
    show: Callable[[Health], None]
    given_up: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """An assembled unit, ready to scan. `permit` is None in a rehearsal on recorded material."""

    vision: Vision
    link: CourierLink
    permit: Permit | None
    closing: ExitStack

    def over(self, summary: Summary) -> Over | None:
        """What the keeper is told where the deployment is over for good."""
        if self.permit is None or self.permit.ending is None:
            return None
        counts = {"tracks": summary.tracks, "alerts": summary.alerts}
        return Over(deployment=self.vision.deployment, reason=self.permit.ending, counts=counts)

    def close(self) -> int:
        """Deliver what is left and close in reverse order; returns how many alerts could not be handed over."""
        left = self.link.close(DELIVERY_SECONDS)
        self.closing.close()
        return left


def open_networks(config: UnitConfig) -> Networks:
    """Load and check both packs. Raises PackError."""
    cv2.setNumThreads(config.models.threads)
    # One thread until here, so that what was given up holds for all (sandbox.py); a search over 10,000 wants more.
    threadpool_limits(config.models.threads, user_api="blas")
    detector_pack, embedder_pack = packs.load(config.models.detector), packs.load(config.models.embedder)
    detector = Detector(detector_pack, config.detect.smallest_face, config.detect.score, threads=config.models.threads)
    embedder = Embedder(embedder_pack, threads=config.models.threads)
    golden.check_detector(detector_pack, Detector(detector_pack, threads=config.models.threads))
    golden.check_embedder(embedder_pack, embedder)
    return Networks(detector, embedder, Recognisers(detector_pack, embedder_pack))


def window_permit(content: Watchlist) -> Allowed:
    """Scanning is allowed inside the watchlist's window and while the clock runs evenly.

    The wall clock must not leave the steady one by more than the slack: who sets the clock back to stay inside the
    window stops the unit instead.
    """
    manifest = content.manifest
    offset = time.time() - time.monotonic()

    def permit(now: float, steady: float) -> str | None:
        if now >= manifest.not_after or steady + offset >= manifest.not_after:
            return f"the watchlist's window ended at {utc(manifest.not_after)}"
        if now - (steady + offset) < -watchlist.CLOCK_SLACK:
            return "the clock was set back while scanning; set it right and start again"
        if now < manifest.not_before - watchlist.CLOCK_SLACK:
            return f"the watchlist's window begins at {utc(manifest.not_before)}"
        return None

    return permit


def open_keys(config: UnitConfig) -> keys.KeyFolder:
    """This unit's keys. Raises KeyFileError, or ConfigError where they are another machine's."""
    folder = keys.load(config.unit.keys)
    if folder.identity.role != "unit":
        raise ConfigError(f"{config.unit.keys}: holds the keys of a {folder.identity.role}, not of a unit")
    return folder


def assemble(config: UnitConfig, gear: Gear, say: Say) -> Unit:
    """Open everything in order: watchlist, permit, courier, cameras, loop. Raises BluelampError."""
    folder, networks = gear.folder, gear.networks
    with ExitStack() as stack:
        content = deployment.open_list(config.unit.watchlist, folder, networks.models, time.time())
        site = site_of(config)
        permit = _permit(config, site, folder, networks, content, say)
        identifier = Identifier(content)
        _say_list(content, identifier, say)
        bell = Bell()
        lanes = [_lane(config, index, bell, networks.embedder, say) for index in range(len(config.camera))]
        link = CourierLink(socket_path(config), content.manifest.deployment, say=say)
        chips = config.alert.chip and (permit is None or permit.order.chips)
        vision = Vision(
            unit=folder.identity.name, deployment=content.manifest.deployment, lanes=lanes, bell=bell,
            detector=networks.detector, identifier=identifier, decider=Decider(_decide_rules(config)),
            sealer=_sealer(folder, content, networks.models, link, chips), outlet=link,
            permit=permit or window_permit(content), health_seconds=config.health.seconds, beacon=gear.beacon,
            sandbox=gear.given_up, on_turn=lambda: gear.watchdog.turned([lane.camera for lane in lanes]),
        )  # fmt: skip
        stack.callback(lambda: vision.identifier.watchlist.erase())
        vision.each_second.append(lambda: gear.show(vision.health()))
        if site is not None and permit is not None:
            _watch_rate(site, permit, vision, say)
            stack.callback(_follow_list(config, site, folder, networks.models, permit, vision, say))
        return Unit(vision, link, permit, stack.pop_all())


def _permit(
    config: UnitConfig, site: Site | None, folder: keys.KeyFolder, networks: Networks, content: Watchlist, say: Say
) -> Permit | None:
    """No signed order, no scanning: only recorded material may be rehearsed without one (requirement 8)."""
    live = [c.name for c in config.camera if kind_of(c.source) not in ("video", "folder")]
    if live and config.beacon == BeaconPart():
        say("no beacon is configured: nothing but the signs shows that this unit scans")
    if site is not None:
        return deployment.open_permit(site, folder, networks.packs, content)
    if live:
        raise OrderError(
            f"camera {', '.join(live)} looks at a real place, and no deployment order is configured: set 'order' under "
            "[unit] and run: bluelamp-unit arm"
        )
    say("rehearsal: no deployment order, recorded material only")
    return None


def _watch_rate(site: Site, permit: Permit, vision: Vision, say: Say) -> None:
    """Live figures of the blue list: the permit asks for the alarm, and whether it ends the deployment."""
    order = permit.order
    blue = BlueList(order.blue_list, order.greatest_fpir)
    alarm = monitor(blue, PressLog(site.state / "passes.jsonl"), lambda: vision.compared)
    said: list[str] = []

    def watched() -> str | None:
        reason = alarm()
        if reason is not None and not said:
            said.append(reason)
            say(f"ALARM: {reason}")
        return reason

    permit.rate_alarm = watched
    vision.blue = blue
    vision.on_alert = lambda probe, candidate: blue.alerted(probe.time, candidate.category)
    if not order.fpir_disarms:
        vision.each_second.append(watched)


def _follow_list(
    config: UnitConfig, site: Site, folder: keys.KeyFolder, models: Models, permit: Permit, vision: Vision, say: Say
) -> Callable[[], None]:
    """Take up newer versions of the list while scanning; returns what stops it."""

    def opened(least: int) -> Watchlist:
        return deployment.open_list(site.watchlist, folder, models, time.time(), least)

    watch = ListWatch(config.unit.watchlist, permit.order, folder.identity.name, opened, say)
    ended = threading.Event()

    def follow() -> None:
        current = vision.identifier.watchlist
        while not ended.wait(_LIST_SECONDS):
            newer = watch.poll(current)
            if newer is not None:
                current = newer
                vision.use(Identifier(newer))

    thread = threading.Thread(target=follow, name="list-watch", daemon=True)
    thread.start()

    def stop() -> None:
        ended.set()
        thread.join(5.0)

    return stop


def _say_list(content: Watchlist, identifier: Identifier, say: Say) -> None:
    manifest, recall = content.manifest, identifier.recall
    search = "brute force" if recall.exact else "HNSW"
    say(
        f"watchlist {manifest.deployment} version {manifest.version}: {len(manifest.entries)} templates, open until "
        f"{utc(manifest.not_after)}; recall@1 of the graph {recall.share:.4f} over {recall.checked} probes: {search}"
    )


def _lane(config: UnitConfig, index: int, bell: Bell, embedder: Embedder, say: Say) -> Lane:
    part = config.camera[index]
    camera = Camera(part.name, part.source, bell, pace=part.pace, fps=part.fps, report=say)
    rules = ExtractRules(
        keep=config.extract.keep, least_interocular=config.extract.least_interocular,
        least_quality=config.extract.least_quality, greatest_yaw=config.extract.greatest_yaw,
        spacing=config.extract.spacing,
    )  # fmt: skip
    tracker = Tracker(TrackRules(confirm_after=config.track.confirm_after, lost_seconds=config.track.lost_seconds))
    return Lane(camera, tracker, Extractor(part.name, embedder, rules))


def _decide_rules(config: UnitConfig) -> DecideRules:
    part = config.decide
    return DecideRules(
        least_templates=part.least_templates, agreement=part.agreement, repeat_seconds=part.repeat_seconds
    )


def _sealer(folder: keys.KeyFolder, content: Watchlist, models: Models, link: CourierLink, chips: bool) -> Sealer:
    key, _ = folder.control()
    sender = Sender(folder.identity.name, content.manifest.deployment, folder.signer, key.public(), key.id)
    greeting = link.wait_greeting(GREETING_SECONDS)
    chain = ChainState(greeting.chain, greeting.sequence, greeting.previous) if greeting and greeting.chain else None
    return Sealer(sender, models, content.digest, chips=chips, chain=chain)
