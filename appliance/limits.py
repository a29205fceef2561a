"""Every bound on untrusted input, in one place, so that a reviewer reads them together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Byte, pixel and count limits. Inputs beyond one are refused before they are parsed."""

    frame_side: int = 8192  # pixels; a 100 megapixel frame is an attack or a fault, not a camera
    frame_least: int = 16  # pixels a side; nothing smaller can hold a face
    frame_pixels: int = 34_000_000  # 8K video and no more
    faces_per_frame: int = 200
    tracks: int = 400
    chip_side: int = 200  # pixels; the design's bound on what an alert may show
    chip_bytes: int = 20_000
    header_bytes: int = 16_384
    signatures_bytes: int = 16_384
    envelope_bytes: int = 65_536  # one sealed alert, receipt or health message
    mqtt_packet_bytes: int = 73_728  # an envelope and its MQTT properties; mosquitto.conf says the same
    quarantine_messages: int = 2_000  # of units that no roster names yet
    quarantine_bytes: int = 32_000_000
    watchlist_bytes: int = 256_000_000  # 100,000 entries of 512 numbers in half precision
    watchlist_entries: int = 100_000  # ceiling of the format; policy lowers it to 10,000
    reference_identifier: int = 64  # characters
    category: int = 64  # characters
    template_length: int = 2048
    manifest_bytes: int = 65_536
    model_bytes: int = 512_000_000
    outbox_rows: int = 100_000
    latest_time: float = 4_102_444_800.0  # UTC seconds in a container's header: the year 2100
    sequence: int = 2**53 - 1  # the greatest that every reader of JSON holds exactly
    config_bytes: int = 1_000_000
    calibration_bytes: int = 1_000_000
    image_bytes: int = 50_000_000
    image_pixels: int = 50_000_000
    dossier_bytes: int = 420_000_000  # as many pictures of the greatest size as a dossier may have, and a little
    dossier_references: int = 10_000
    dossier_decoys: int = 200  # pairs
    intake_names: int = 100  # files and folders on a stick or in the upload folder
    intake_bytes: int = 600_000_000  # of all files that are read from there: two of the longest lists, and the rest
    dossier_picture_side: int = 400  # pixels
    dossier_picture_bytes: int = 40_000


LIMITS = Limits()
