"""Figures and names as words, for pages and scripts alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone

from control.records import ReferencePicture

VERDICTS = {"not-same": "Not the same", "possibly": "Possibly the same", "same": "The same: engage"}
OUTCOMES = {"confirmed": "Confirmed", "mistaken": "Mistaken", "not-found": "Not found"}
STATES = {
    "waiting": "Waits for an answer", "disputed": "For a supervisor", "engage": "Engage",
    "dismissed": "Not the same", "withdrawn": "Withdrawn: too old", "closed": "Closed",
}  # fmt: skip
_FEW_PIXELS, _SOME_PIXELS = 20.0, 32.0  # between the eyes
_POOR, _FAIR = 0.35, 0.6  # of a probe's quality
_OLD_YEARS = 5.0  # a face changes
_DAY = 86400.0


def plain(name: str) -> str:
    """`wanted-on-warrant` as people say it."""
    return first(name.replace("-", " ").replace("_", " ").strip())


def first(text: str) -> str:
    """A sentence's first letter is a capital."""
    return text[:1].upper() + text[1:]


def clock(seconds: float) -> str:
    """UTC time of day."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S")


def moment(seconds: float) -> str:
    """UTC date and time of day."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = max(0, round(seconds))
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name} {rest} {small_name}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def quality(value: float) -> str:
    """A probe's quality (0 to 1) in a word."""
    return "poor" if value < _POOR else "fair" if value < _FAIR else "good"


def image_age(image_date: str, now: float) -> str:
    """How old a reference's image is, or that nobody knows."""
    try:
        taken = date.fromisoformat(image_date)
    except ValueError:
        return "date not known"
    days = (datetime.fromtimestamp(now, timezone.utc).date() - taken).days
    if days < 60:
        return f"{max(days, 0)} days old"
    return f"{days // 30} months old" if days < 730 else f"{days / 365.25:.1f} years old"


def warnings(
    value: float, interocular: float, notes: Sequence[str], reference: ReferencePicture | None, now: float
) -> list[str]:
    """What should make an adjudicator careful. `value` is the probe's quality (0 to 1), `interocular` in pixels."""
    said = []
    if interocular < _FEW_PIXELS:
        said.append(f"Very small face: {interocular:.0f} pixels between the eyes")
    elif interocular < _SOME_PIXELS:
        said.append(f"Small face: {interocular:.0f} pixels between the eyes")
    if value < _POOR:
        said.append("Poor picture: blurred, turned or badly lit")
    if reference is None:
        said.append("The reference picture is not here; without it, answer from what you know")
    elif reference.image_date and _years(reference.image_date, now) > _OLD_YEARS:
        said.append(f"Old reference image: {image_age(reference.image_date, now)}")
    return [*said, *(first(text) for text in (*(reference.warnings if reference else ()), *notes))]


def _years(image_date: str, now: float) -> float:
    try:
        return (now - datetime.fromisoformat(image_date).replace(tzinfo=timezone.utc).timestamp()) / (365.25 * _DAY)
    except ValueError:
        return 0.0
