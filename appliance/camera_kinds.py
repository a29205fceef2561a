"""Tells from a camera's source which kind it is. It opens nothing and loads no decoder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

Kind = Literal["video", "folder", "rtsp", "v4l2", "gstreamer"]


def kind_of(source: str) -> Kind:
    """What a source string means: an existing path, an address, a device or its number, a pipeline, else a video.

    A device under whatever name, such as a link to /dev/v4l/by-id, is a camera: it looks at a real place.
    A name that begins at the root is never a pipeline, also where its file is gone.
    """
    if source.lower().startswith(("rtsp://", "rtsps://")):
        return "rtsp"
    path = Path(source).expanduser()
    if _is_device(path):
        return "v4l2"
    if exists(path):
        return "folder" if path.is_dir() else "video"
    if "!" in source and not path.is_absolute():
        return "gstreamer"
    return "v4l2" if source.isascii() and source.isdigit() else "video"


def exists(path: Path) -> bool:
    """True where the path is there; False also for a text that no file system takes as a name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def shown(source: str) -> str:
    """A source as it may be printed: of an address scheme, host and port, of a pipeline its first element, else all.

    User, password, path and query stay out. Where the host cannot be told from a password, the scheme stands alone.
    """
    if kind_of(source) == "gstreamer":
        element = re.match(r"\s*([A-Za-z0-9_-]+)(?=[\s!])", source)
        return f"the GStreamer pipeline ({element[1]})" if element else "the GStreamer pipeline"
    scheme, mark, rest = source.partition("://")
    return f"{scheme}://{_host(rest)}" if mark and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) else source


def _host(rest: str) -> str:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    if "@" in after:  # a password with a slash: "user:pass" before it is no host and port
        is_user = re.fullmatch(r"[^@:]*:(?!\d*$).*", authority) is not None and "@" not in authority
        authority = re.split(r"[/?#]", after.rpartition("@")[2], maxsplit=1)[0] if is_user else ""
    host = authority.rpartition("@")[2]
    return host if re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d*)?", host) else "..."


def _is_device(path: Path) -> bool:
    """Also one that is unplugged: a name under /dev that is no file or folder of a memory disk."""
    named = Path("/dev") in Path(os.path.normpath(path)).parents and not (path.is_file() or path.is_dir())
    return named or path.is_char_device()
