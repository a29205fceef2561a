"""Tells from a camera's source which kind it is. It opens nothing and loads no decoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Kind = Literal["video", "folder", "rtsp", "v4l2", "gstreamer"]


def kind_of(source: str) -> Kind:
    """What a source string means: rtsp://..., a number or a device, a pipeline with `!`, a folder, else a video.

    A device under whatever name, such as a link to /dev/v4l/by-id, is a camera: it looks at a real place.
    """
    if source.startswith(("rtsp://", "rtsps://")):
        return "rtsp"
    if "!" in source:
        return "gstreamer"
    if (source.isascii() and source.isdigit()) or _is_device(Path(source)):
        return "v4l2"
    return "folder" if Path(source).expanduser().is_dir() else "video"


def _is_device(path: Path) -> bool:
    """Also one that is unplugged: a name under /dev that is no file or folder of a memory disk."""
    named = Path("/dev") in Path(os.path.normpath(path)).parents and not (path.is_file() or path.is_dir())
    return named or path.is_char_device()
