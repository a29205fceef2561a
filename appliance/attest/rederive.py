"""Make a kit's needles again on the unit: another kind of processor may compute other bytes than the base's."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2

from appliance.attest import needles as attest_needles
from appliance.attest.kit import OpenKit
from appliance.config import UnitConfig
from appliance.deployment import files as deployment
from appliance.recognition import packs
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.trust import keys


def rederived(kit: OpenKit, config: UnitConfig, folder: keys.KeyFolder) -> OpenKit:
    """The kit with needles of the faces as this machine computes them; those of the references stay.

    Raises WatchlistError where the kit's list does not open here, PackError and CaptureError.
    """
    settings, threads = kit.record.settings, config.models.threads
    cv2.setNumThreads(threads)
    pack = packs.load(config.models.embedder)
    detector = Detector(
        packs.load(config.models.detector), settings.detect.smallest_face, settings.detect.score, threads=threads
    )
    content = deployment.open_list(kit.watchlist, folder, kit.record.models, time.time())
    try:
        found = attest_needles.tracks(kit.clip, detector, pack, Embedder(pack, threads), content, settings)
    finally:
        content.erase()
    kept = tuple(c for c in kit.record.canaries if c.role == "reference")
    return replace(kit, record=kit.record.model_copy(update={"canaries": (*found, *kept)}))
