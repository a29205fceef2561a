"""The student of function matching, and the teacher's ONNX graph run by PyTorch, where the student's GPU is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from models.training.sources import TEACHER, SourceError, shared_folder

LENGTH = 128


def _layer(inputs: int, outputs: int, stride: int = 1, bounded: bool = True) -> nn.Sequential:
    """ReLU6 bounds what a layer gives: without, some faces' activations ran away at inference."""
    layers = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU6()] if bounded else []))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _layer(channels, channels), _layer(channels, channels, bounded=False)
        nn.init.zeros_(cast(nn.BatchNorm2d, self.second[1]).weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu6(x + self.second(self.first(x)))


class MatchNet(nn.Module):
    """(N, 3, 112, 112) RGB, (pixel - 127.5) / 128, the usual five-point template -> (N, 128), not unit length.

    Plain convolutions only: they train fast on a GPU, quantise well and are on the Edge TPU's list. 5.4 million
    weights, about 510 million multiplications.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256), depths: Sequence[int] = (1, 2, 3, 2)) -> None:
        super().__init__()
        layers: list[nn.Module] = [_layer(3, widths[0], 2)]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                layers.append(_layer(widths[stage - 1], width, 2))
            layers += [_Residual(width) for _ in range(depth)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 49, LENGTH, bias=False)
        self.norm = nn.BatchNorm1d(LENGTH, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.norm(self.head(self.body(x).flatten(1))))


class TeacherGraph(nn.Module):
    """Runs the nodes of the teacher's ONNX file. (N, 3, 112, 112) RGB, 0 to 255 -> (N, 128)."""

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        import onnx
        from onnx import numpy_helper

        file = file or shared_folder() / TEACHER
        if not file.is_file():
            raise SourceError(f"no teacher at {file}")
        graph = onnx.load(str(file)).graph
        self._buffers_of: dict[str, str] = {}
        for number, tensor in enumerate(graph.initializer):
            self.register_buffer(f"v{number}", torch.from_numpy(numpy_helper.to_array(tensor).copy()))
            self._buffers_of[tensor.name] = f"v{number}"
        self._nodes = [
            (n.op_type, list(n.input), n.output[0], {a.name: list(a.ints) or a.i or a.f for a in n.attribute})
            for n in graph.node
        ]
        for kind, *_ in self._nodes:
            if kind not in _OPERATIONS:
                raise SourceError(f"{file}: operation {kind} is not one that this recipe runs")
        self._input = next(i.name for i in graph.input if i.name not in self._buffers_of)
        self._output = graph.output[0].name

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        found = {self._input: x}
        for kind, inputs, output, attributes in self._nodes:
            parts = [found[i] if i in found else getattr(self, self._buffers_of[i]) for i in inputs]
            found[output] = _OPERATIONS[kind](parts, attributes)
        return found[self._output]


def _convolved(parts: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    pads, strides = attributes.get("pads", [0] * 4), attributes.get("strides", [1, 1])
    bias = parts[2] if len(parts) > 2 else None
    groups = int(attributes.get("group", 1)) or 1
    return functional.conv2d(parts[0], parts[1], bias, tuple(strides), (pads[0], pads[1]), 1, groups)


def _multiplied(parts: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    y = parts[0] @ (parts[1].T if attributes.get("transB") else parts[1])
    return y + parts[2] if len(parts) > 2 else y


_OPERATIONS: dict[str, Callable[[list[Tensor], dict[str, Any]], Tensor]] = {
    "Conv": _convolved,
    "Gemm": _multiplied,
    "PRelu": lambda parts, _: functional.prelu(parts[0], parts[1].flatten()),
    "Add": lambda parts, _: parts[0] + parts[1],
    "Sub": lambda parts, _: parts[0] - parts[1],
    "Mul": lambda parts, _: parts[0] * parts[1],
    "Identity": lambda parts, _: parts[0],
    "Flatten": lambda parts, _: parts[0].flatten(1),
}
