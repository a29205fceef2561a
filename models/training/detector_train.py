"""Teach the detector YuNet's answers: the loop, its loss, its checkpoints and its curves.

One *visit* is a pass over one shard. Every ``replay``-th visit sees a new shard, those between see older ones, each
time turned and degraded anew. Which shard a visit sees, and how, depends on the seed and the visit's number alone, so
that a stopped run goes on from its checkpoint as if it had not stopped. A run may start from a shipped pack's weights.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from models.training.detector_labels import (
    SHARD,
    SIZES,
    Shard,
    load_shard,
    make_shards,
    shard_file,
    start_makers,
    wait_for,
)
from models.training.detector_net import STRIDES, DetectorNet, Grids, Head, Shape, agree
from models.training.detector_recover import recovered
from models.training.scenes import degraded
from models.training.turned import covered, draw_view, viewed

Labels = list[tuple[Tensor, Tensor, Tensor]]
Batch = tuple[Tensor, Labels]

SCORE_SHIFT = 0.5
"""Of the exported net's logits. A score that was 0.48 becomes 0.6: learnt scores of turned and small faces are low."""
_POSITIVE = 0.25  # cells where YuNet's score is at least this teach box and landmarks
_BOX_WEIGHT, _LANDMARK_WEIGHT = 8.0, 24.0
_WARM_UP = 150  # steps
_COOL_DOWN = 0.6  # share of the run at its end over which the rate falls to nothing
_KEEP = 0.999  # of the running mean of weights, each step


@dataclass(frozen=True)
class Plan:
    """A run. ``shards`` of ``scenes`` scenes each are seen ``replay`` times in all.

    ``start`` names an exported int8 detector whose weights the run starts from; without it they are drawn by lot.
    """

    seed: int = 1
    shards: int = 150
    replay: int = 3
    batch: int = 16
    scenes: int = SHARD
    rate: float = 2e-3
    start: str | None = None
    makers: int = 1
    threads: int = 2
    save_every: int = 4

    @property
    def visits(self) -> int:
        """Passes over a shard."""
        return self.shards * self.replay

    @property
    def steps(self) -> int:
        """Steps of the optimiser, in the whole run."""
        return self.visits * (self.scenes // self.batch)

    def shard_of(self, visit: int) -> int:
        """The shard that a visit sees: the next new one, or an older one by lot."""
        newest = visit // self.replay
        if visit % self.replay == 0:
            return newest
        return int(np.random.default_rng((self.seed, 1, visit)).integers(newest + 1))

    def rate_at(self, step: int) -> float:
        """Rises, stays, falls by a cosine: a run can be cut short by lowering ``shards`` and resuming."""
        falling = max(0.0, step / self.steps - (1 - _COOL_DOWN)) / _COOL_DOWN
        return self.rate * min(1.0, (step + 1) / _WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, falling)))


@dataclass
class State:
    """What a checkpoint holds."""

    net: DetectorNet
    mean: DetectorNet  # running mean of the weights: this is what is exported
    optimiser: torch.optim.Optimizer
    visit: int = 0
    step: int = 0


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(plan: Plan, folder: Path) -> Path:
    """Run, or go on with, a plan; returns the checkpoint's file. Shards, checkpoint and curves lie in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    cv2.setNumThreads(1)
    checkpoint, state = folder / "checkpoint.pt", new_state(plan)
    if checkpoint.is_file():
        restore(state, checkpoint)
    elif plan.start is not None:
        state = started(plan, folder)
    makers = start_makers(folder, plan.seed, plan.shards, plan.makers, plan.scenes) if plan.makers else []
    curves = Curves(folder / "curves.csv", state.visit)
    with _bar() as bar, ThreadPoolExecutor(1) as ahead:
        task = bar.add_task("training", total=plan.visits, completed=state.visit, note="")
        wanted = ahead.submit(_load, plan, folder, state.visit, makers) if state.visit < plan.visits else None
        while wanted is not None:
            batches = wanted.result()
            wanted = (
                ahead.submit(_load, plan, folder, state.visit + 1, makers) if state.visit + 1 < plan.visits else None
            )
            losses = _visit(plan, state, batches)
            curves.add(state, plan, losses)
            bar.update(task, completed=state.visit, note=" ".join(f"{k} {v:.4f}" for k, v in losses.items()))
            if state.visit % plan.save_every == 0 or wanted is None:
                save(state, plan, checkpoint)
    return checkpoint


def new_state(plan: Plan, net: DetectorNet | None = None) -> State:
    """A net of random weights, or the one given, on the GPU if there is one."""
    torch.manual_seed(plan.seed)
    net = (net or DetectorNet(Shape())).to(device(), memory_format=torch.channels_last)
    return State(net, deepcopy(net).eval(), torch.optim.AdamW(net.parameters(), plan.rate, weight_decay=1e-4))


def started(plan: Plan, folder: Path) -> State:
    """The state before the first step of a run that starts from a shipped file; its batches set the running means."""
    make_shards(folder, plan.seed, [0], plan.scenes)
    pictures, _ = next(batches(load_shard(shard_file(folder, 0)), replace(plan, batch=min(64, plan.scenes)), 0))
    return new_state(plan, recovered(Path(str(plan.start)), pictures.permute(0, 3, 1, 2).float().div_(255)))


def save(state: State, plan: Plan, file: Path) -> None:
    """Replaces the checkpoint in one step."""
    unfinished = file.with_suffix(".part")
    torch.save(
        {
            "net": state.net.state_dict(),
            "mean": state.mean.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "visit": state.visit,
            "step": state.step,
            "plan": asdict(plan),
        },
        unfinished,
    )
    unfinished.replace(file)


def restore(state: State, file: Path) -> None:
    """Fill ``state`` from a checkpoint."""
    stored = torch.load(file, map_location=device(), weights_only=True)
    state.net.load_state_dict(stored["net"])
    state.mean.load_state_dict(stored["mean"])
    state.optimiser.load_state_dict(stored["optimiser"])
    state.visit, state.step = stored["visit"], stored["step"]


def load_net(file: Path) -> DetectorNet:
    """The net to export: the running mean of weights of a checkpoint, on the CPU, in evaluation mode.

    SCORE_SHIFT is added to its scores' logits: the unit's threshold then lies where false faces begin to be seen.
    """
    net = DetectorNet(Shape())
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["mean"])
    with torch.no_grad():
        for head in net.heads:
            cast(Tensor, cast(Head, head).score.bias).add_(SCORE_SHIFT)
    return net.eval()


def _load(plan: Plan, folder: Path, visit: int, makers: list[Any]) -> list[Batch]:
    number = plan.shard_of(visit)
    file = shard_file(folder, number)
    if makers:
        wait_for(file, makers)
    else:
        make_shards(folder, plan.seed, [number], plan.scenes)
    return list(batches(load_shard(file), plan, visit))


def batches(shard: Shard, plan: Plan, visit: int) -> Iterator[Batch]:
    """A shard's scenes in an order of the visit's own, turned and degraded; one size of picture a visit."""
    rng = np.random.default_rng((plan.seed, 2, visit))
    order = rng.permutation(len(shard.scenes))
    width, height = SIZES[visit % len(SIZES)]
    for first in range(0, len(order) - plan.batch + 1, plan.batch):
        samples = [sample(rng, shard, int(row), width, height) for row in order[first : first + plan.batch]]
        pictures = np.stack([picture for picture, _ in samples])
        labels = [
            tuple(torch.from_numpy(np.stack([grids[level][part] for _, grids in samples])) for part in range(3))
            for level in range(len(STRIDES))
        ]
        yield torch.from_numpy(pictures), cast(Labels, labels)


def sample(
    rng: np.random.Generator, shard: Shard, row: int, width: int, height: int
) -> tuple[npt.NDArray[np.uint8], Grids]:
    """One scene of a shard in a view drawn by lot, degraded, with its labels."""
    grids: Grids = [cast(Any, tuple(part[row].astype(np.float32) for part in parts)) for parts in shard.labels]
    agree(grids, _POSITIVE)
    scene = covered(rng, shard.scenes[row], grids)
    view = draw_view(rng, (scene.shape[1], scene.shape[0]), width, height)
    return degraded(rng, view.picture(scene)), viewed(grids, view, _POSITIVE)


def _visit(plan: Plan, state: State, shard: list[Batch]) -> dict[str, float]:
    state.net.train()
    totals: dict[str, float] = {}
    for pictures, labels in shard:
        for group in state.optimiser.param_groups:
            group["lr"] = plan.rate_at(state.step)
        losses = step_losses(state.net, pictures, labels)
        state.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), 10.0)
        state.optimiser.step()
        state.step += 1
        _follow(state)
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0.0) + float(loss.detach()) / len(shard)
    state.visit += 1
    return totals


def step_losses(net: DetectorNet, pictures: Tensor, labels: Labels) -> dict[str, Tensor]:
    """Loss of score, box and landmarks for pictures (n, H, W, 3) uint8 and their labels."""
    where = next(net.parameters()).device
    pixels = pictures.to(where).permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
    with torch.autocast(where.type, dtype=torch.bfloat16, enabled=_has_bfloat16(where)):
        features = net.features(pixels)
    answers = [head(at.float()) for head, at in zip(net.heads, features, strict=True)]
    score, box, points, weight = _flat(answers, [tuple(p.to(where).float() for p in parts) for parts in labels])
    wanted = score[1]
    doubt = (torch.sigmoid(score[0].detach()) - wanted).abs()
    faces = weight.sum().clamp(min=1.0)
    entropy = functional.binary_cross_entropy_with_logits(score[0], wanted, reduction="none")
    certain = -(wanted * wanted.clamp(min=1e-6).log() + (1 - wanted) * (1 - wanted).clamp(min=1e-6).log())
    size = box[1][:, 2:].exp()  # in cells: errors count in shares of the face
    off = (box[0] - box[1]).abs() / torch.cat([size, torch.ones_like(size)], 1)
    bent = (points[0] - points[1]).abs() / size.mean(1, keepdim=True)
    return {
        "score": (doubt.clamp(min=0.02) ** 1.5 * 4 * (entropy - certain)).sum() / faces,
        "box": _BOX_WEIGHT * (off.mean(1) * weight).sum() / faces,
        "points": _LANDMARK_WEIGHT * (bent.mean(1) * weight).sum() / faces,
    }


def _has_bfloat16(where: torch.device) -> bool:
    """Whether bfloat16 is quicker than float32 there: processors without instructions for it emulate it slowly."""
    return where.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def _flat(answers: Labels, labels: list[Any]) -> tuple[Any, Any, Any, Tensor]:
    """Scores of all cells; boxes, landmarks and weights of the cells that hold a face. Pairs of answer and label."""
    scores, boxes, points, weights = [], [], [], []
    for (score, box, place), (score_t, box_t, place_t) in zip(answers, labels, strict=True):
        scores.append((score.flatten(), score_t.flatten()))
        chosen = score_t > _POSITIVE
        boxes.append((box.permute(0, 2, 3, 1)[chosen], box_t[chosen]))
        points.append((place.permute(0, 2, 3, 1)[chosen], place_t[chosen]))
        weights.append(score_t[chosen] ** 2)  # the best cell of a face is the one that overlaps removal keeps

    def joined(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])

    return joined(scores), joined(boxes), joined(points), torch.cat(weights)


def _follow(state: State) -> None:
    keep = min(_KEEP, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, now in zip(state.mean.state_dict().values(), state.net.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)


class Curves:
    """One line a visit: visit, step, samples, rate, losses, seconds since the run was (re)started."""

    def __init__(self, file: Path, visit: int) -> None:
        self._file, self._start = file, time.monotonic()
        if file.is_file():  # what a stopped run did after its last checkpoint is done again
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines[1:] if int(line.split(",")[0]) <= visit]
            file.write_text("".join(lines[:1] + kept), encoding="utf-8")

    def add(self, state: State, plan: Plan, losses: dict[str, float]) -> None:
        """Append a line; a new file gets its heading."""
        new = not self._file.is_file()
        with self._file.open("a", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            if new:
                writer.writerow(["visit", "step", "samples", "rate", *losses, "seconds"])
            figures = [f"{value:.5f}" for value in losses.values()]
            rate, seconds = f"{plan.rate_at(state.step):.2e}", f"{time.monotonic() - self._start:.0f}"
            writer.writerow([state.visit, state.step, state.step * plan.batch, rate, *figures, seconds])


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
