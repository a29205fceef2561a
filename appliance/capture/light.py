"""Focus and light of a whole picture, in figures that do not depend on what stands in it.

Focus: the scene is blurred twice and the gradients at its strongest edges are compared. An ideal edge that a lens has
blurred by s falls off by sqrt((s^2 + COARSE^2) / (s^2 + FINE^2)), which gives s back (Zhuo and Sim, "Defocus map
estimation from a single image", 2011). Noise and darkness hardly change it, because both gradients are blurred ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from appliance.records import Floats, Image

_FINE, _COARSE = 1.0, 2.5  # pixels, standard deviations of the two blurs
_EDGES = 0.99  # the strongest hundredth of all gradients counts as edges
_LEAST_EDGE, _LEAST_EDGES = 1.0, 50  # grey levels a pixel, and pixels: with less there is nothing to focus on
_WORST = 10.0  # pixels; beyond it two blurs of this size cannot tell any more
_DARK, _BRIGHT = 50.0, 205.0  # mean grey levels, as for faces (quality.py)
_BURNT, _BURNT_SHARE = 250, 0.15  # grey level at which nothing is left to see, and the share of it that is too much
_FLAT = 4.0  # standard deviation of grey levels: a covered lens
# Blur as a share of the smallest face's width. Measured on the demo's portraits with the built-in pair: the cosine of a
# template with its own sharp one is 0.95 at 1/40, 0.92 at 1/30 and 0.87 at 1/20, which is under the usual threshold.
_SOFT = 1 / 30


@dataclass(frozen=True)
class Scene:
    """One picture's figures: size in pixels, `level` and `contrast` (mean and deviation) in grey levels, `burnt` the
    share without any detail left, `blur` the standard deviation of its sharpest edges in pixels (None: no edges)."""

    width: int
    height: int
    level: float
    contrast: float
    burnt: float
    blur: float | None


def look(image: Image) -> Scene:
    """The figures of one picture (height, width, 3) uint8 BGR."""
    grey = cast(Image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    height, width = grey.shape[:2]
    return Scene(
        width, height, float(grey.mean()), float(grey.std()), float((grey >= _BURNT).mean()),
        _blur(grey.astype(np.float32)),
    )  # fmt: skip


def softest(smallest_face: float) -> float:
    """The blur in pixels that a scene with faces of this width may have at most."""
    return max(smallest_face * _SOFT, 1.5)  # a sensor's own colour filter blurs by about one pixel already


def faults(scene: Scene, smallest_face: float) -> tuple[str, ...]:
    """What is wrong with the picture and what to do, worst first; empty where nothing is."""
    if scene.contrast < _FLAT:
        state = "black" if scene.level < _DARK else "all one grey"
        return (f"the picture is {state}: take the cap off, wipe the lens, or give it light",)
    found = []
    if scene.level < _DARK:
        found.append("the scene is too dark: add light, open the iris, or expose longer")
    if scene.level > _BRIGHT or scene.burnt > _BURNT_SHARE:
        found.append("the scene is too bright: turn the camera out of the light, or expose less")
    if scene.blur is None:
        found.append("nothing in the picture has an edge: wipe the lens, or focus it")
    elif scene.blur > softest(smallest_face):
        most = softest(smallest_face)
        found.append(f"out of focus: its sharpest edges are blurred by {scene.blur:.1f} px, {most:.1f} may be: focus")
    return tuple(found)


def words(scene: Scene) -> str:
    """The figures in a few words, for a line that is otherwise green."""
    blur = "no edges" if scene.blur is None else f"edges blurred by {scene.blur:.1f} px"
    return f"in focus ({blur}), light {scene.level:.0f} of 255"


def _blur(grey: Floats) -> float | None:
    fine, coarse = _gradient(grey, _FINE), _gradient(grey, _COARSE)
    edges = fine >= max(float(np.quantile(fine, _EDGES)), _LEAST_EDGE)
    if int(edges.sum()) < _LEAST_EDGES:
        return None
    ratio = float(np.median(fine[edges] / np.maximum(coarse[edges], 1e-6))) ** 2
    if ratio <= 1.0:
        return _WORST
    return min(float(np.sqrt(max(_COARSE**2 - ratio * _FINE**2, 0.0) / (ratio - 1.0))), _WORST)


def _gradient(grey: Floats, blur: float) -> Floats:
    smooth = cv2.GaussianBlur(grey, (0, 0), blur)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *axes, scale=1 / 8) for axes in ((1, 0), (0, 1)))
    return cast(Floats, cv2.magnitude(across, down))
