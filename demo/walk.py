"""How each passer-by walks: in from one side, towards the camera, out past it; who hides whom for how long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.scene import Figure, Pose, face_box, placed
from demo.street import HEIGHT, WIDTH
from provisioning.truth import Box

RATE = 15.0
AT_ONCE = 6
_NEAREST = 1.62
_SMALLEST = 24.0
"""Truth counts a face from this width on (pixels)."""


@dataclass(frozen=True)
class Walk:
    """One walk's constants: metres, metres a second, seconds, radians; phases for bob, roll and turn."""

    start: float
    speed: float
    furthest: float
    enters: float
    middle: float
    leaves: float
    eyes: float
    phases: tuple[float, float, float, float]
    side_light: float
    blur: float
    gain: float

    @property
    def duration(self) -> float:
        """Seconds from the far end to the camera."""
        return (self.furthest - _NEAREST) / self.speed

    def pose(self, seconds: float) -> Pose | None:
        """The pose at a moment of the clip, or None before and after the walk."""
        since = seconds - self.start
        if not 0 <= since < self.duration:
            return None
        distance = self.furthest - self.speed * since
        early = _smooth((self.furthest - distance) / (self.furthest - 4.2))
        late = _smooth((3.0 - distance) / (3.0 - _NEAREST))
        across = self.enters + (self.middle - self.enters) * early + (self.leaves - self.middle) * late
        bob, roll, turn, shade = self.phases
        step = bob + 2 * np.pi * 0.9 * since
        heading = float(np.clip((self.middle - self.enters) * 0.03, -0.07, 0.07)) * (1 - early)
        shadow = 1 - 0.24 * _bump((distance - 4.0 - shade) / 1.1)
        warm = 0.02 * np.sin(shade * 5)
        light = self.gain * float(shadow)
        return Pose(
            float(across),
            float(distance),
            self.eyes + 0.018 * float(np.sin(2 * step)),
            0.035 * float(np.sin(step + roll)) + 0.015 * float(np.sin(roll)),
            heading + 0.07 * float(np.sin(turn + 1.1 * since)),
            float(step),
            (light * (1 - warm), light, light * (1 + warm)),
            self.side_light,
            self.blur + 0.35 * float(_bump((distance - 2.0) / 0.8)),
        )


def _smooth(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _bump(offset: float) -> float:
    return float(np.exp(-(offset**2)))


@dataclass(frozen=True)
class Route:
    """A walk with the boxes and distances of its face, frame by frame."""

    walk: Walk
    boxes: tuple[Box, ...]
    distances: dict[int, float]


def route(walk: Walk, shape: Figure, frames: int) -> Route:
    """Boxes of every frame in which the whole face is in the picture and large enough."""
    boxes, distances = [], {}
    for frame in range(max(int(walk.start * RATE), 0), min(int((walk.start + walk.duration) * RATE) + 2, frames)):
        pose = walk.pose(frame / RATE)
        if pose is None:
            continue
        x, y, width, height = face_box(shape, placed(pose))
        if width >= _SMALLEST and x > 0 and y > 0 and x + width < WIDTH and y + height < HEIGHT:
            boxes.append(Box(frame, x, y, width, height))
            distances[frame] = pose.distance
    return Route(walk, tuple(boxes), distances)


def plan(figures: list[Figure], seconds: float, rng: np.random.Generator, tries: int = 40) -> list[Route]:
    """A route for each figure: of `tries` random ones the one that hides faces for about half a second at most."""
    frames = int(seconds * RATE)
    # The walks are spread evenly, so that the street is never empty and never crowded.
    starts = np.linspace(-0.5, seconds - 6.0, len(figures))
    routes: list[Route] = []
    for shape, start in zip(figures, starts, strict=True):
        offers = [route(_random_walk(float(start), rng), shape, frames) for _ in range(tries)]
        routes.append(min(offers, key=lambda offer: _cost(offer, routes)))
    return routes


def _random_walk(start: float, rng: np.random.Generator) -> Walk:
    furthest = float(rng.uniform(7.6, 9.4))
    enters = float(rng.choice([-1, 1])) * (0.32 * furthest + 0.25)
    leaves = float(rng.choice([-1, 1]))
    middle = float(rng.uniform(-0.9, 0.9)) if rng.random() < 0.5 else leaves * float(rng.uniform(0.2, 0.9))
    phases = (float(rng.uniform(0, 6)), float(rng.uniform(0, 6)), float(rng.uniform(0, 6)), float(rng.uniform(-1, 2)))
    return Walk(
        start + float(rng.uniform(-0.5, 0.5)),
        float(rng.uniform(1.15, 1.45)),
        furthest,
        enters,
        middle,
        leaves * float(rng.uniform(0.85, 1.1)),
        float(rng.uniform(1.56, 1.72)),
        phases,
        float(rng.uniform(-0.22, 0.22)),
        float(rng.uniform(0.3, 1.0)),
        float(rng.uniform(0.82, 1.08)),
    )


def hidden(back: Route, front: Route) -> int:
    """In how many frames more than two fifths of the face of `back` lies behind the head and body of `front`."""
    nearer = {box.frame: box for box in front.boxes}
    return sum(
        box.frame in nearer
        and front.distances[box.frame] < back.distances[box.frame]
        and _covered(box, nearer[box.frame]) > 0.4
        for box in back.boxes
    )


def _covered(box: Box, nearer: Box) -> float:
    """Share of a box behind a nearer head with its hair, and the shoulders and coat below it."""
    w, h = nearer.width, nearer.height
    head = (nearer.x - 0.2 * w, nearer.y - 0.35 * h, nearer.x + 1.2 * w, nearer.y + 1.3 * h)
    body = (nearer.x - 1.1 * w, nearer.y + 1.3 * h, nearer.x + 2.1 * w, float(HEIGHT))
    area = 0.0
    for left, top, right, bottom in (head, body):
        wide = min(box.x + box.width, right) - max(box.x, left)
        tall = min(box.y + box.height, bottom) - max(box.y, top)
        area += max(wide, 0.0) * max(tall, 0.0)
    return area / (box.width * box.height)


def _cost(offer: Route, others: list[Route]) -> float:
    """Frames hidden beyond half a second (its own and others'), frames beyond the crowd limit, frames too few."""
    limit = int(0.5 * RATE)
    cost = 0.0
    for other in others:
        for back, front in ((offer, other), (other, offer)):
            frames = hidden(back, front)
            cost += max(frames - limit, 0) * 3 + frames * 0.2
            cost -= 1.2 if 4 <= frames <= limit else 0
    crowd = [sum(box.frame in other.distances for other in others) for box in offer.boxes]
    cost += 20 * sum(count >= AT_ONCE for count in crowd)
    largest = max((box.width for box in offer.boxes), default=0.0)
    return cost + max(118 - largest, 0) * 0.6 + max(40 - len(offer.boxes), 0)
