"""From the shipped int8 detector back to weights that training can go on from.

A pack holds no checkpoint. Its int8 file holds every convolution with its batch normalisation merged, each channel
rounded to 255 steps. Divided out again, and with new batch normalisations that reproduce the merged ones on real
scenes, they are a starting point that finds what the pack finds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.training.detector_net import DetectorNet, Head
from models.training.export import ExportError, LiteRt

Weights = tuple[Tensor, Tensor]
"""Kernel (outputs, inputs, 3, 3) or (outputs, inputs, 1, 1), and bias (outputs,)."""


def recovered(file: Path, pictures: Tensor) -> DetectorNet:
    """A trainable net that answers as ``file``, an exported int8 detector, does.

    ``pictures`` (n, 3, H, W), BGR divided by 255, set the running means of the batch normalisations. Raises
    ExportError if the file's convolutions are not those of `DetectorNet`.
    """
    net, found = DetectorNet().eval(), convolutions(file)
    places = _convolutions(net)
    if [tuple(place.weight.shape) for place in places] != [tuple(kernel.shape) for kernel, _ in found]:
        raise ExportError(f"{file} holds other convolutions than the detector's network: it cannot be recovered")
    biases: dict[nn.Module, Tensor] = {}
    with torch.no_grad():
        for place, (kernel, bias) in zip(places, found, strict=True):
            place.weight.copy_(kernel)
            if place.bias is None:
                biases[place] = bias
            else:
                place.bias.copy_(bias)
        _normalise(net, biases, pictures)
    return net


def convolutions(file: Path) -> list[Weights]:
    """Kernels and biases of a file's convolutions in the graph's order, as float."""
    lite = LiteRt(file)
    tensors = {each["index"]: each for each in lite.interpreter.get_tensor_details()}
    found = []
    for each in lite.interpreter._get_ops_details():  # the runtime offers no public list
        if each["op_name"] == "CONV_2D":
            kernel, bias = (tensors[int(index)] for index in each["inputs"][1:3])
            found.append((_real(lite, kernel).permute(0, 3, 1, 2), _real(lite, bias)))
    return found


def _real(lite: LiteRt, tensor: dict[str, Any]) -> Tensor:
    """A quantised constant as float: (value - zero point) times the scale of its channel."""
    values = lite.interpreter.get_tensor(tensor["index"]).astype(np.float32)
    parts = tensor["quantization_parameters"]
    shape = [1] * values.ndim
    shape[int(parts["quantized_dimension"])] = -1
    scales, zeros = (np.asarray(parts[name], np.float32).reshape(shape) for name in ("scales", "zero_points"))
    return torch.from_numpy((values - zeros) * scales)


def _convolutions(net: DetectorNet) -> list[nn.Conv2d]:
    """Every convolution in the exported graph's order: those that join the grids stand before the heads."""
    heads = [cast(Head, head) for head in net.heads]
    backbone = [cast(nn.Sequential, layer)[0] for layer in (*net.stem, *net.at8, *net.at16, *net.at32)]
    last = [part for head in heads for part in (head.score, head.box, head.landmarks)]
    return [cast(nn.Conv2d, c) for c in (*backbone, net.down16, net.down8, *(h.layer[0] for h in heads), *last)]


def _normalise(net: DetectorNet, biases: dict[nn.Module, Tensor], pictures: Tensor) -> None:
    """Set each batch normalisation to what it sees of ``pictures``, and so that it only adds the merged bias."""

    def fit(layer: nn.BatchNorm2d, bias: Tensor, values: Tensor) -> None:
        variance, mean = torch.var_mean(values, dim=(0, 2, 3))
        cast(Tensor, layer.running_mean).copy_(mean)
        cast(Tensor, layer.running_var).copy_(variance)
        layer.weight.copy_((variance + layer.eps).sqrt())
        layer.bias.copy_(mean + bias)

    hooks = []
    for module in net.modules():
        if isinstance(module, nn.Sequential) and module[0] in biases:
            bias = biases[module[0]]
            hooks.append(module[1].register_forward_pre_hook(lambda at, seen, bias=bias: fit(at, bias, seen[0])))
    net(pictures)
    for hook in hooks:
        hook.remove()
