"""Train the embedder: dlib's public-domain network learns the teacher's templates from what a street shows of a face.

Every step's batch follows from the seed and the step's number, so a run that was stopped goes on from its checkpoint as
if it had not been, and two runs of one machine with one thread count agree. What breaks equality: another processor,
thread count or PyTorch, and a limit in minutes instead of chips.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track
from torch import Tensor

from models.training.chips import Picture, chips_of_canvases
from models.training.dataset import Floats, Lessons, Prefetch
from models.training.embedder_net import LENGTH, FaceNet, fitted, unit_halves
from models.training.faces import FaceSet
from models.training.figures import verification
from models.training.losses import LossWeights, forgetting, student_loss

TWIN_SHARE = 0.85  # of dlib's own cosine in a twin's; only for the curve: the pack's weights are chosen afterwards
_HEAD_CHIPS = 8000
_HEAD_RIDGE = 1e-1
_CURVE = ("step", "chips", "seconds", "rate", "loss", "cosine", "tar_1e-3", "tar_1e-4", "tar_1e-5")


@dataclass(frozen=True)
class Plan:
    """How long and how to train. ``minutes`` 0: until ``chips`` are seen; else until either is reached."""

    chips: int = 800_000
    minutes: float = 0.0
    batch: int = 64
    rate: float = 2.5e-4
    warm_up: int = 200
    decay: float = 0.02
    average: float = 0.998
    mixed_share: float = 0.4
    clean_share: float = 0.7
    seed: int = 0
    threads: int = 2
    measure_every: int = 250
    save_every: int = 50
    weights: LossWeights = field(default_factory=LossWeights)

    @property
    def steps(self) -> int:
        return max(1, self.chips // self.batch)


class Training:
    """One run: network, running average of it, optimiser, and how far it is."""

    def __init__(self, net: FaceNet, lessons: Lessons, held_out: FaceSet, plan: Plan, folder: Path) -> None:
        torch.set_num_threads(plan.threads)
        torch.manual_seed(plan.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self.lessons, self.held_out, self.plan, self.folder = lessons, held_out, plan, folder
        self.bank = torch.from_numpy(lessons.bank).to(self.device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=plan.rate, weight_decay=plan.decay)
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self) -> FaceNet:
        """Train to the end of the plan; gives the averaged network."""
        self._solve_head()
        plan, begun, losses = self.plan, time.monotonic() - self.seconds, []
        shares = (plan.mixed_share, plan.clean_share)
        bar = Progress(TextColumn("training"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
        with bar, Prefetch(self.lessons, self.step, plan.batch, plan.seed, shares) as batches:
            task = bar.add_task("", total=1.0, said="")
            while (done := self._share_done()) < 1:
                loss = self._learn(batches.take(), done)
                losses.append(loss)
                self.step, self.seconds = self.step + 1, time.monotonic() - begun
                if self.step % plan.measure_every == 0:
                    said = self._measure(float(np.mean(losses)))
                    losses = []
                    bar.update(task, said=said)
                if self.step % plan.save_every == 0:
                    self.save()
                bar.update(task, completed=done)
        self.save()
        if losses:
            self._measure(float(np.mean(losses)))
        return self.average()

    def average(self) -> FaceNet:
        """The running average of the weights, which is better than the last step's."""
        net = FaceNet(self.net.spatial, self.net.twin)
        net.load_state_dict({name: value.cpu() for name, value in self.averaged.items()})
        return net.to(memory_format=torch.channels_last).eval()

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "plan": asdict(self.plan),
        }
        unfinished = self.folder / "checkpoint.part"
        torch.save(state, unfinished)
        unfinished.rename(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        file = self.folder / "checkpoint.pt"
        if not file.is_file():
            return
        state: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.averaged = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _share_done(self) -> float:
        spent = self.seconds / (60 * self.plan.minutes) if self.plan.minutes else 0.0
        return max(self.step / self.plan.steps, spent)

    def _solve_head(self) -> None:
        """Before the first step: the head that least squares gives for clean chips, a good start at no cost."""
        if self.step:
            return
        rng = np.random.default_rng(self.plan.seed)
        count = min(_HEAD_CHIPS, len(self.lessons.real))
        rows = np.sort(rng.choice(len(self.lessons.real), count, replace=False))
        features = embed(self.net, chips_of_canvases(self.lessons.real[rows]), self.device, features=True)
        weight, bias = ridge(features, self.lessons.real_templates[rows])
        with torch.no_grad():
            self.net.head.weight.copy_(torch.from_numpy(weight.T.copy()))
            self.net.head.bias.copy_(torch.from_numpy(bias))
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self._measure(float("nan"))

    def _learn(self, batch: Any, done: float) -> float:
        plan = self.plan
        rate = plan.rate * min(1.0, (self.step + 1) / plan.warm_up) * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.net.train()
        chips = fitted(torch.from_numpy(batch.chips).to(self.device))
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            raw = self.net(chips.contiguous(memory_format=torch.channels_last))
        own, learnt = raw.float()[:, :-LENGTH], raw.float()[:, -LENGTH:]
        teacher = torch.from_numpy(batch.templates).to(self.device)
        loss = student_loss(functional.normalize(learnt), teacher, self.bank, plan.weights)
        if self.net.twin:
            loss = loss + plan.weights.keep * forgetting(own, torch.from_numpy(batch.origins).to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self._average()
        return float(loss.detach())

    def _average(self) -> None:
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        values: list[Tensor] = [value.detach() for value in self.net.state_dict().values()]
        torch._foreach_lerp_(list(self.averaged.values()), values, 1 - keep)

    def _measure(self, loss: float) -> str:
        """Held-out figures of the averaged network, as one more line of the curve."""
        templates = embed(self.average().to(self.device), chips_of_canvases(self.held_out.canvases), self.device)
        found = verification(templates, self.held_out.identities, (1e-3, 1e-4, 1e-5)).accept
        learnt = templates[:, -LENGTH:] / np.linalg.norm(templates[:, -LENGTH:], axis=1, keepdims=True)
        cosine = float((learnt * self.held_out.templates).sum(1).mean())
        rate = self.optimiser.param_groups[0]["lr"]
        row = (self.step, self.step * self.plan.batch, round(self.seconds), rate, loss, cosine, *found.values())
        _append(self.folder / "curve.csv", [f"{value:.5g}" if isinstance(value, float) else value for value in row])
        return f"loss {loss:.3f} cosine {cosine:.3f} TAR {' '.join(f'{value:.3f}' for value in found.values())}"


def ridge(features: Floats, targets: Floats, strength: float = _HEAD_RIDGE) -> tuple[Floats, Floats]:
    """Weights (features, length) and bias (length,) of regularised least squares."""
    middle, goal = features.mean(0), targets.mean(0)
    centred = features - middle
    gram = centred.T @ centred
    gram += strength * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    weight = np.linalg.solve(gram, centred.T @ (targets - goal)).astype(np.float32)
    return weight, (goal - middle @ weight).astype(np.float32)


@torch.no_grad()
def embed(net: FaceNet, chips: Picture, device: torch.device, features: bool = False, batch: int = 100) -> Floats:
    """Unit-length templates (N, 128) of chips (N, H, W, 3), or the head's inputs (N, features)."""
    net.eval()
    parts = []
    for start in range(0, len(chips), batch):
        taken = torch.from_numpy(np.ascontiguousarray(chips[start : start + batch])).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            inputs = fitted(taken).contiguous(memory_format=torch.channels_last)
            out = net.features(inputs) if features else net(inputs)
        parts.append(_finished(net, out.float(), features).cpu().numpy())
    return np.concatenate(parts)


def raw_templates(net: FaceNet, threads: int) -> Callable[[Picture], Floats]:
    """What ``net`` gives for the clean chips of canvases (N, 152, 152, 3): templates as they come, (N, 128)."""

    @torch.no_grad()
    def of(canvases: Picture) -> Floats:
        torch.set_num_threads(threads)
        frozen = net.to(memory_format=torch.channels_last).eval()
        parts = []
        for start in track(range(0, len(canvases), 100), description="dlib's own templates"):
            chips = np.ascontiguousarray(chips_of_canvases(canvases[start : start + 100]))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                inputs = fitted(torch.from_numpy(chips)).contiguous(memory_format=torch.channels_last)
                parts.append(frozen(inputs).float().numpy())
        return np.concatenate(parts)

    return of


def _finished(net: FaceNet, out: Tensor, features: bool) -> Tensor:
    if features:
        return out
    return unit_halves(out, TWIN_SHARE) if net.twin else functional.normalize(out)


def _append(file: Path, row: list[object]) -> None:
    fresh = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        if fresh:
            writer.writerow(_CURVE)
        writer.writerow(row)
