"""The first deployment of docs/provision.md works as it stands: the block is taken from the page and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from control.broker.broker import free_port
from provisioning.truth import read_truth
from tests.support.paths import ROOT, SHARED


def walkthrough() -> str:
    """The block after the marker."""
    text = (ROOT / "docs" / "provision.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- walkthrough -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def run(folder: Path, **settings: str) -> list[dict[str, object]]:
    """Run the block in a folder of its own; the alerts it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PORT": str(free_port()), **settings}
    command = ["bash", "-euo", "pipefail", "-c", walkthrough()]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = (folder / "site" / "alerts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_first_deployment_of_the_technicians_page(tmp_path: Path) -> None:
    assets = ROOT / "demo" / "assets"
    alerts = run(tmp_path, CLIP=str(assets / "street.mp4"), PORTRAITS=str(assets / "watchlist.csv"))
    truth = read_truth(assets / "truth.json")
    mated = {entry.reference_identifier for entry in truth.passes if entry.mated}
    assert {alert["reference_identifier"] for alert in alerts} == mated
    assert len(alerts) == len(mated)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_any_clip_and_any_folder_of_portraits(tmp_path: Path) -> None:
    """A real clip, and a portrait cut from one of its frames, through the same commands."""
    clip = SHARED / "data" / "clips" / "face-demographics-walking-and-pause.gif"
    if not clip.exists():
        pytest.skip("needs ../shared/data/clips (not part of the repository)")
    import cv2

    capture = cv2.VideoCapture(str(clip))
    for _ in range(31):
        frame = capture.read()[1]
    (tmp_path / "portraits").mkdir()
    cv2.imwrite(str(tmp_path / "portraits" / "REF-1.png"), frame[30:190, 10:150])
    alerts = run(tmp_path, CLIP=str(clip), PORTRAITS=str(tmp_path / "portraits"), SMALLEST="26")
    assert [alert["reference_identifier"] for alert in alerts] == ["REF-1"]
