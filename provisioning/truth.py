"""Ground truth of a clip: which identity passes when and where, and which reference shows the same identity."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1


@dataclass(frozen=True)
class Box:
    """A face's box in one frame, in pixels of the clip."""

    frame: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Pass:
    """One walk past the camera; frames count from 0, `last_frame` is the last one in which the face stands."""

    pass_id: str
    identity: str
    reference_identifier: str | None
    first_frame: int
    last_frame: int
    boxes: tuple[Box, ...]

    @property
    def mated(self) -> bool:
        """Whether a reference of the same identity is on the watchlist."""
        return self.reference_identifier is not None

    def at(self, frame: int) -> Box | None:
        """Where the face stands in a frame, between the boxes given; None before the first and after the last."""
        if not self.first_frame <= frame <= self.last_frame:
            return None
        after = next(box for box in self.boxes if box.frame >= frame)
        before = [box for box in self.boxes if box.frame <= frame][-1]
        share = (frame - before.frame) / max(after.frame - before.frame, 1)
        x, y, width, height = (
            (1 - share) * getattr(before, side) + share * getattr(after, side) for side in ("x", "y", "width", "height")
        )
        return Box(frame, x, y, width, height)


@dataclass(frozen=True)
class Truth:
    """Everything known about a clip: its name, size (pixels), rate (frames a second), frames and passes."""

    clip: str
    width: int
    height: int
    rate: float
    frames: int
    passes: tuple[Pass, ...]


def write_truth(truth: Truth, path: Path) -> None:
    """Write `truth` as JSON, one line a pass; a box is [frame, x, y, width, height] rounded to 0.1 pixel."""
    lines = [json.dumps(_row(entry), separators=(", ", ": ")) for entry in truth.passes]
    head = {name: getattr(truth, name) for name in ("clip", "width", "height", "rate", "frames")}
    opening = json.dumps({"format": FORMAT, **head})[:-1]
    path.write_text(opening + ', "passes": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def read_truth(path: Path) -> Truth:
    """Read what `write_truth` wrote; raises ValueError where the format is another."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise ValueError(f"{path}: truth of format {data.get('format')}, need {FORMAT}: make it again")
    passes = tuple(_entry(row) for row in data["passes"])
    return Truth(data["clip"], data["width"], data["height"], data["rate"], data["frames"], passes)


def _row(entry: Pass) -> dict[str, object]:
    boxes = [[b.frame, round(b.x, 1), round(b.y, 1), round(b.width, 1), round(b.height, 1)] for b in entry.boxes]
    return {
        "pass_id": entry.pass_id,
        "identity": entry.identity,
        "reference_identifier": entry.reference_identifier,
        "first_frame": entry.first_frame,
        "last_frame": entry.last_frame,
        "boxes": boxes,
    }


def _entry(row: dict[str, object]) -> Pass:
    boxes = row["boxes"]
    reference = row["reference_identifier"]
    if not isinstance(boxes, list):
        raise ValueError(f"pass {row['pass_id']}: boxes must be a list")
    return Pass(
        str(row["pass_id"]),
        str(row["identity"]),
        None if reference is None else str(reference),
        int(str(row["first_frame"])),
        int(str(row["last_frame"])),
        tuple(Box(int(b[0]), *(float(v) for v in b[1:5])) for b in boxes),
    )
