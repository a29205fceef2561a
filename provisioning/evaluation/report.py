"""Write the report: report.json, report.html beside it, and who vouches for both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field

from appliance.recognition.calibration import Digest
from appliance.records import Models, Record
from appliance.trust import envelope
from provisioning.evaluation import page

KIND = "accuracy-report"


class SignedReport(Record):
    """What a signature covers: the digests of both files, and whose figures they are."""

    report: str = Field(pattern=Digest)  # SHA-256 of report.json
    page: str = Field(pattern=Digest)  # SHA-256 of report.html
    models: Models
    made: float


def write(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into `folder`; the same figures give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "report.json", folder / "report.html"
    for path, text in zip(written, (json.dumps(report, indent=1) + "\n", page.render(report)), strict=True):
        part = path.with_suffix(path.suffix + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return written


def sign(folder: Path, base: Path) -> Path:
    """Sign a written report with the base's authority: report.dsse.json in `folder`, a DSSE envelope."""
    from provisioning.base import open_base

    blob, html = ((folder / name).read_bytes() for name in ("report.json", "report.html"))
    figures = json.loads(blob)
    signed = SignedReport(
        report=hashlib.sha256(blob).hexdigest(),
        page=hashlib.sha256(html).hexdigest(),
        models=Models(**figures["models"]),
        made=figures["made"],
    )
    path = folder / "report.dsse.json"
    path.write_bytes(envelope.sign(signed, KIND, open_base(base).keys.signer))
    return path
