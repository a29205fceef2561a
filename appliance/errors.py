"""One error family for each boundary; every message says what is wrong and what to do next."""

from __future__ import annotations


class BluelampError(Exception):
    """An expected failure: `exit_code` is the process's status, the text is for the operator."""

    exit_code = 1


class ConfigError(BluelampError):
    """The configuration is missing, malformed or contradicts itself."""

    exit_code = 2


class CaptureError(BluelampError):
    """A camera, clip or folder cannot be opened or decoded."""

    exit_code = 3


class PackError(BluelampError):
    """A model pack is missing, altered, for another runtime, or fails its golden check."""

    exit_code = 4


class SealError(BluelampError):
    """A sealed or signed file does not verify, does not open, or breaks a limit."""

    exit_code = 5


class WatchlistError(SealError):
    """A watchlist is for another unit, model or time, rolled back, or malformed."""


class KeyFileError(BluelampError):
    """A key or certificate file is missing, unsafe or of the wrong kind."""

    exit_code = 6


class CourierError(BluelampError):
    """The courier cannot store or forward envelopes."""

    exit_code = 7


class EnrolmentError(BluelampError):
    """An image or list cannot be enrolled."""

    exit_code = 8
