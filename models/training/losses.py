"""What the student is told: be the teacher's template, give the teacher's scores, above all the high ones.

All templates are unit length, (N, 128); every loss is a mean over the batch, a scalar.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts, and where scores begin to matter for false matches."""

    pairs: float = 4.0
    tail: float = 8.0
    tail_from: float = 0.25
    bank: float = 0.15
    bank_scale: float = 24.0
    keep: float = 2.0


def student_loss(student: Tensor, teacher: Tensor, bank: Tensor, weights: LossWeights) -> Tensor:
    """1 - cosine, plus the squared error of scores in the batch, plus the disagreement about the nearest faces."""
    angle = 1 - (student * teacher).sum(1).mean()
    pairs = score_error(student, teacher, weights.tail, weights.tail_from)
    nearest = bank_disagreement(student, teacher, bank, weights.bank_scale)
    return angle + weights.pairs * pairs + weights.bank * nearest


def score_error(student: Tensor, teacher: Tensor, tail: float, tail_from: float) -> Tensor:
    """Squared error of all pairs' scores; a pair that either finds alike weighs up to ``1 + tail`` times.

    A rate of one false match in 100,000 is made by the few highest scores, which a plain mean would hardly hear.
    """
    given, wanted = student @ student.T, teacher @ teacher.T
    high = torch.maximum(given.detach(), wanted)
    weight = 1 + tail * torch.sigmoid((high - tail_from) / 0.05)
    weight = weight - torch.diag(torch.diag(weight))
    return (weight * (given - wanted) ** 2).sum() / (len(student) * (len(student) - 1))


def bank_disagreement(student: Tensor, teacher: Tensor, bank: Tensor, scale: float) -> Tensor:
    """Kullback-Leibler divergence of two softmaxes over the scores with ``bank`` (M, 128): student's from teacher's."""
    wanted = functional.log_softmax(scale * teacher @ bank.T, dim=1)
    given = functional.log_softmax(scale * student @ bank.T, dim=1)
    return functional.kl_div(given, wanted, reduction="batchmean", log_target=True)


def forgetting(given: Tensor, origin: Tensor) -> Tensor:
    """Squared distance of dlib's template now and as it was for the clean chip; rows without one (NaN) do not count."""
    known = ~torch.isnan(origin[:, 0])
    if not bool(known.any()):
        return given.sum() * 0.0
    return ((given[known] - origin[known]) ** 2).sum(1).mean()
