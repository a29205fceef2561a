"""Reads and writes small files: bounded, whole or not at all, as JSON or as a record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from appliance.errors import KeyFileError
from appliance.limits import LIMITS

RecordType = TypeVar("RecordType", bound=BaseModel)


def read_bounded(path: Path, limit: int) -> bytes:
    """A file's bytes, at most `limit` of them. Raises KeyFileError."""
    try:
        if path.stat().st_size > limit:
            raise KeyFileError(f"{path}: larger than {limit} bytes; this is not the file it should be")
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; make or restore it first") from error


def read_json(path: Path, advice: str) -> Any:
    """Parsed JSON of a small file. Raises KeyFileError with the advice."""
    if not path.exists():
        raise KeyFileError(f"{path}: missing; {advice}")
    try:
        return json.loads(read_bounded(path, LIMITS.config_bytes))
    except (ValueError, RecursionError) as error:
        raise KeyFileError(f"{path}: not JSON ({error}); {advice}") from error


def read_record(path: Path, kind: type[RecordType]) -> RecordType:
    """A record of a small JSON file. Raises KeyFileError."""
    try:
        return kind.model_validate_json(read_bounded(path, LIMITS.config_bytes))
    except ValidationError as error:
        where = ".".join(str(p) for p in error.errors()[0]["loc"])
        raise KeyFileError(f"{path}: {where}: {error.errors()[0]['msg']}; restore it from its source") from error


def write_private(path: Path, blob: bytes) -> None:
    """Write a file only its owner can read, whole or not at all."""
    _write(path, blob, 0o600)


def write_public(path: Path, blob: bytes) -> None:
    """Write a file whole or not at all."""
    _write(path, blob, 0o644)


def _write(path: Path, blob: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
