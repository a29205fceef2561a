"""Ten thousand rows of which 137 are bad (slow; $BLUELAMP_ROWS makes the list shorter)."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from provisioning.authority import authority
from provisioning.enrolment.enrolment import enrol_images
from tests.support import workbench
from tests.support.tables import row, write_list

ROWS, BAD = int(os.environ.get("BLUELAMP_ROWS", "10000")), 137


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_ten_thousand_rows_exactly_the_bad_ones_are_refused(tmp_path: Path) -> None:
    """137 bad rows of nine kinds, spread over the list: each is named with its line, the other 9,863 are enrolled,
    and a rerun does none of them again."""
    packs, faces = workbench.built_in(), workbench.portraits()
    portraits = [path.read_bytes() for path in faces]
    for i in range(ROWS):  # bytes after the picture's end make each file its own: no two references share a picture
        (tmp_path / f"{i}.jpg").write_bytes(portraits[i % len(faces)] + str(i).encode())
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((200, 200, 3), 90, np.uint8))
    kinds: list[dict[str, str]] = [
        {"category": "intelligence only"}, {"lawful_basis": ""}, {"image_date": "yesterday"}, {"expiry": "2001-01-01"},
        {"rationale": "=1+1"}, {"under_18": "yes"}, {"image": "empty.jpg"}, {"image": "text.jpg"},
        {"image": "plain.png"},
    ]  # fmt: skip
    bad_lines = {2 + i * (ROWS // BAD): kinds[i % len(kinds)] for i in range(BAD)}
    listed = []
    for i in range(ROWS):
        change = bad_lines.get(i + 2, {})
        listed.append({**row(f"R-{i:05d}", f"{i}.jpg"), **change})
    path = write_list(tmp_path / "list.csv", listed)
    base = authority.init(tmp_path / "base")
    done = enrol_images(base, path, packs.detector, packs.embedder)
    assert {o.line for o in done.refused} == set(bad_lines)
    assert all(o.reasons for o in done.refused)
    assert (done.accepted, done.references) == (ROWS - BAD, ROWS - BAD)
    again = enrol_images(base, path, packs.detector, packs.embedder)
    quick = [k for k in bad_lines.values() if k.get("image", "empty.jpg") == "empty.jpg"]  # judged anew, not resumed
    assert again.resumed == ROWS - len(quick)
    assert {o.line for o in again.refused} == set(bad_lines)
    assert again.seconds < done.seconds / 5
