"""A measured calibration that waits to be installed: measuring alone never changes what later lists are issued by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from appliance.errors import ConfigError, PackError
from appliance.recognition import calibration
from appliance.recognition.calibration import Calibration
from appliance.recognition.packs import Pack
from appliance.storage.files import write_public

NAME = "calibration.candidate.json"


def write(record: Calibration, folder: Path) -> Path:
    """Write the candidate into `folder`; returns its path. Raises ConfigError where it cannot be written."""
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_public(path, (record.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); name another folder with --out") from error
    return path


def install(pack: Pack, source: Path) -> tuple[Path, Path | None]:
    """Make `source` the pack's calibration; returns its new path, and where the old one is kept (None: there was none).

    Raises PackError where `source` is no calibration of this pack, or the pack names no calibration; ConfigError where
    the pack's folder cannot be written.
    """
    record = calibration.read(source, pack)
    calibration.load_cohort(pack, record)
    if pack.manifest.calibration is None:
        raise PackError(f'{pack.folder}/pack.toml: names none; add calibration = "calibration.json"')
    path, kept = pack.folder / pack.manifest.calibration, None
    try:
        if path.is_file():
            old = path.read_bytes()
            kept = path.with_name(f"{path.stem}.{hashlib.sha256(old).hexdigest()[:12]}.old.json")
            write_public(kept, old)
        write_public(path, source.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); check its folder's permissions") from error
    return path, kept
