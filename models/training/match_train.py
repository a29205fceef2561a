"""Function matching: the teacher labels every view as it is made, the student sees it as a street shows it.

Everything but decoding happens on the GPU: an H100 makes some 20,000 faces a second where two processor cores make
70. A run is measured in seconds, not steps; it writes three files and a later run goes on from the second:

- ``student.pt``: the running mean of the weights after the rate has fallen. Export this one.
- ``stable.pt``: the weights before the rate fell, in half precision. Keep it: `MatchPlan.resume` goes on from it.
- ``curve.csv``: seconds, steps, samples, cosine to the teacher, TAR at FAR 1e-3, 1e-4, 1e-5 on held-out LFW.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from models.training.figures import verification
from models.training.losses import LossWeights, student_loss
from models.training.match_faces import MatchFaces, load_match_faces
from models.training.match_net import MatchNet, TeacherGraph
from models.training.match_views import Street, middle, normalised

_RATES = (1e-3, 1e-4, 1e-5)
_KEEP = 0.999  # of the running mean, each step
_BANK = 8192  # training faces whose nearness a step compares
_BATCH = 256  # of faces that are only measured


@dataclass(frozen=True)
class MatchPlan:
    """A run of ``seconds``, or of ``steps`` where those come first."""

    seconds: float = 480.0
    batch: int = 1024
    rate: float = 2e-3
    fall: float = 0.25  # share of the time over which the rate falls to nothing
    warm_up: int = 300  # steps
    steps: int = 10_000_000
    repeated: float = 0.25  # share of a batch that looks a second time at a face of the same batch
    measure_every: float = 60.0  # seconds
    seed: int = 1
    resume: Path | None = None
    most: int | None = None  # faces of each set; for a smoke run
    weights: LossWeights = field(default_factory=LossWeights)

    def rate_at(self, step: int, done: float) -> float:
        """``done`` is the share of the run that is over."""
        return self.rate * min(1.0, (step + 1) / self.warm_up) * min(1.0, max(1 - done, 0.0) / self.fall) + 1e-7


class Matching:
    """A run's networks, faces and clock."""

    def __init__(self, plan: MatchPlan, folder: Path, faces: MatchFaces | None = None) -> None:
        self.plan, self.folder = plan, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(plan.seed)
        faces = faces or load_match_faces(most=plan.most)
        self._faces, self._measured = (self._rgb(part) for part in (faces.train, faces.measured))
        self._identities = faces.identities
        self._teacher = TeacherGraph().to(self.device).eval()
        self.net = cast(MatchNet, MatchNet().to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]
        if plan.resume is not None:
            stored = torch.load(plan.resume, weights_only=True, map_location=self.device)
            self.net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self._optimiser = _optimiser(self.net, plan.rate, self.device)
        self._street = Street(self.device, plan.seed)
        self._bank, self._wanted = (self._asked(part) for part in (self._faces, self._measured))
        self._say = Console(stderr=True).print

    def run(self) -> Path:
        """Train; returns the file of the student to export."""
        run_net, run_teacher = self._compiled()
        step, measured, falling, start = 0, 0.0, False, time.monotonic()
        while step < self.plan.steps:
            passed = time.monotonic() - start
            done = passed / self.plan.seconds
            if done >= 1:
                break
            if done > 1 - self.plan.fall and not falling:
                falling = True
                self._save("stable", self.net.state_dict())
            self._step(step, done, run_net, run_teacher)
            step += 1
            if step == 1:
                start = time.monotonic()  # compiling does not count
            if passed - measured > self.plan.measure_every:
                measured = passed
                self._mark(step, passed, falling)
        self._mark(step, time.monotonic() - start, falling)
        return self.folder / "student.pt"

    def _step(
        self, step: int, done: float, run_net: Callable[[Tensor], Tensor], run_teacher: Callable[[Tensor], Tensor]
    ) -> None:
        again = int(self.plan.batch * self.plan.repeated)
        with torch.no_grad():
            seen = self._street.views(self._faces, self.plan.batch - again)
            wanted = _both_sides(run_teacher, middle(seen))
            seen, wanted = torch.cat([seen, seen[:again]]), torch.cat([wanted, wanted[:again]])
            chips = self._street.chips(*self._street.degraded(seen)).contiguous(memory_format=torch.channels_last)
            bank = self._bank[torch.randint(len(self._bank), (min(_BANK, len(self._bank)),), device=self.device)]
        for group in self._optimiser.param_groups:
            group["lr"] = self.plan.rate_at(step, done)
        self.net.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            given = run_net(chips)
        loss = student_loss(functional.normalize(given.float()), wanted, bank, self.plan.weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._follow(min(_KEEP, (1 + step) / (10 + step)))

    def _follow(self, keep: float) -> None:
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)

    def _mark(self, step: int, seconds: float, falling: bool) -> None:
        """Measure the running mean on held-out faces, add a line to the curve, and save."""
        live = MatchNet().to(self.device)
        live.load_state_dict(self.average)
        live.eval()
        found = self._templates(lambda x: live(normalised(x)), self._measured)
        cosine = float((found * self._wanted).sum(1).mean())
        accept = verification(found.cpu().numpy(), self._identities, _RATES).accept
        row = [round(seconds), step, step * self.plan.batch, round(cosine, 4), *(round(a, 4) for a in accept.values())]
        with (self.folder / "curve.csv").open("a", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerow(row)
        self._say(f"{row[2]:,} samples in {seconds:.0f} s, cosine {cosine:.4f}, TAR {row[4:]}")
        self._save("student", self.average)
        if not falling:
            self._save("stable", self.net.state_dict())

    def _save(self, name: str, state: dict[str, Tensor]) -> None:
        half = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in state.items()}
        unfinished = self.folder / f"{name}.part"
        torch.save(half, unfinished)
        unfinished.replace(self.folder / f"{name}.pt")

    def _compiled(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        if self.device.type != "cuda":
            return self.net, self._teacher
        teacher = self._teacher.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        quick: Any = torch.compile(teacher, dynamic=False)
        return cast(Any, torch.compile(self.net, dynamic=False)), lambda x: cast(Tensor, quick(x.half())).float()

    def _rgb(self, canvases: npt.NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(canvases[..., ::-1])).to(self.device)

    def _asked(self, canvases: Tensor) -> Tensor:
        return self._templates(self._teacher, canvases)

    @torch.no_grad()
    def _templates(self, net: Callable[[Tensor], Tensor], canvases: Tensor) -> Tensor:
        parts = canvases.split(_BATCH)
        return torch.cat([_both_sides(net, middle(part.permute(0, 3, 1, 2).float())) for part in parts])


def _both_sides(net: Callable[[Tensor], Tensor], chips: Tensor) -> Tensor:
    """Unit-length templates of chips and their mirror images together."""
    return functional.normalize(net(chips).float() + net(chips.flip(3)).float())


def _optimiser(net: nn.Module, rate: float, where: torch.device) -> torch.optim.Optimizer:
    """Weights decay, biases and scales do not."""
    decaying = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=where.type == "cuda")


def load_student(file: Path) -> MatchNet:
    """The student of a run, in evaluation mode, on the CPU."""
    net = MatchNet()
    stored = torch.load(file, map_location="cpu", weights_only=True)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    return net.eval()
