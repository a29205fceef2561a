"""Image files of any make to upright 8-bit BGR: bounded, and never trusted further than Pillow's parsers.

The content decides, not the extension. A file is bounded in bytes before it is read and in pixels before it is decoded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from appliance.errors import EnrolmentError
from appliance.limits import LIMITS
from appliance.records import Image

# Pillow's own guard warns from 89 megapixels on and refuses from 179; ours below is lower and always refuses.
PIL.Image.MAX_IMAGE_PIXELS = None
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".ppm"})
_SUFFIX_OF = {"JPEG": {".jpg", ".jpeg"}, "MPO": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}, "JPEG2000": {".jp2"}}
_GREY16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_bytes(path: Path) -> bytes:
    """A file's bytes within the limit. Raises EnrolmentError."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise EnrolmentError(f"{path.name}: not a file")
        if size == 0:
            raise EnrolmentError(f"{path.name}: 0 bytes; export the image again")
        if size > LIMITS.image_bytes:
            raise EnrolmentError(
                f"{path.name}: {size // 1_000_000} MB, more than {LIMITS.image_bytes // 1_000_000}; shrink it"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise EnrolmentError(f"{path.name}: cannot be read ({reason}); check the path in the list") from error


def decode(blob: bytes, name: str) -> tuple[Image, list[str]]:
    """(height, width, 3) uint8 BGR, upright, and warnings. Raises EnrolmentError with what to do."""
    try:
        with PIL.Image.open(io.BytesIO(blob), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > LIMITS.image_pixels:
                raise EnrolmentError(f"{name}: {width} x {height} pixels, more than "
                                     f"{LIMITS.image_pixels // 1_000_000} megapixels; shrink it")  # fmt: skip
            if min(width, height) < LIMITS.frame_least:
                raise EnrolmentError(f"{name}: {width} x {height} pixels are too few to hold a face")
            picture.load()
            warnings = _warnings(picture, name)
            PIL.ImageOps.exif_transpose(picture, in_place=True)
            return _bgr(picture), warnings
    except PIL.UnidentifiedImageError as error:
        raise EnrolmentError(f"{name}: not an image of a known kind ({', '.join(FORMATS[:6])}); convert it") from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        MemoryError,
        OverflowError,
    ) as error:
        raise EnrolmentError(f"{name}: damaged or cut short ({str(error)[:100]}); export it again") from error


def thumbnail(image: Image, side: int = 112) -> bytes:
    """A small JPEG for the report that stays at base."""
    scale = min(1.0, side / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    done, blob = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return blob.tobytes() if done else b""


def _warnings(picture: PIL.Image.Image, name: str) -> list[str]:
    kind, suffix = str(picture.format), Path(name).suffix.lower()
    right = _SUFFIX_OF.get(kind, {f".{kind.lower()}"})
    found = [] if not suffix or suffix in right else [f"is a {kind} in spite of its name"]
    if getattr(picture, "n_frames", 1) > 1 and kind not in ("MPO", "JPEG"):
        found.append("has several pictures; the first was used")
    return found


def _bgr(picture: PIL.Image.Image) -> Image:
    if picture.mode in _GREY16:
        return _from_grey(_to_8_bits(np.asarray(picture).astype(np.float64)))
    if picture.mode == "F":
        return _from_grey(_stretched(np.asarray(picture, np.float64)))
    if picture.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        grey = PIL.Image.new("RGBA", layered.size, (128, 128, 128, 255))  # what is transparent must not be an edge
        picture = PIL.Image.alpha_composite(grey, layered)
    rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"), np.uint8)
    return cast(Image, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def _to_8_bits(grey: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image:
    """16-bit greys by their full range; darker scans (10 or 12 bits in 16) by the bits they use."""
    most = float(grey.max(initial=0))
    full = next((f for f in (255.0, 1023.0, 4095.0, 16383.0, 65535.0) if most <= f), max(most, 1.0))
    return np.clip(grey * (255.0 / full), 0, 255).astype(np.uint8)


def _stretched(grey: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image:
    if not np.isfinite(grey).all():
        raise EnrolmentError("holds values that are no numbers; export it again as an 8-bit image")
    low, high = float(grey.min()), float(grey.max())
    return np.clip((grey - low) * (255.0 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)


def _from_grey(grey: Image) -> Image:
    return cast(Image, cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_GRAY2BGR))
