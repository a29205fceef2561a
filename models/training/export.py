"""From a trained torch module to the TFLite files of a pack: float, float16 weights, full int8.

The module reads (1, C, H, W); the exported graph reads (1, H, W, C), TFLite's order. Outputs keep the order that the
module gives them, so a module whose outputs should be channels-last permutes them itself. The int8 file has int8 inputs
and outputs, each with its own scale and zero point, as the Edge TPU wants.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

FloatArray = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]

_CALIBRATION_THREADS = 2


class ExportError(RuntimeError):
    """The module could not be turned into a file that LiteRT runs."""


def to_tflite(module: nn.Module, sample: torch.Tensor) -> bytes:
    """The float TFLite file of ``module``. ``sample`` (1, C, H, W) fixes the shape; the file reads (1, H, W, C)."""
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    import litert_torch

    with warnings.catch_warnings():  # the converter warns of its own internals
        warnings.simplefilter("ignore")
        last = litert_torch.to_channel_last_io(module.eval(), args=[0])
        edge = litert_torch.convert(last, (sample.permute(0, 2, 3, 1).contiguous(),))
    return bytes(edge.model_content())


def to_float16(model: bytes) -> bytes:
    """``model`` with float16 weights: half the size; the sums stay float32."""
    quantizer = _quantizer(model)
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer import quantizer as library

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for operation in (
        qtyping.TFLOperationName.CONV_2D,
        qtyping.TFLOperationName.DEPTHWISE_CONV_2D,
        qtyping.TFLOperationName.FULLY_CONNECTED,
    ):
        quantizer.update_quantization_recipe(".*", operation, config, algorithm_key=library.AlgorithmName.FLOAT_CASTING)
    return bytes(quantizer.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)


def to_int8(
    model: bytes, representative: Iterable[FloatArray], ranges: Mapping[str, tuple[float, float]] | None = None
) -> bytes:
    """``model`` with int8 weights (a scale per channel), activations, input and outputs.

    ``representative`` gives inputs (1, H, W, C) whose activations set the ranges, a few hundred of them. ``ranges``
    sets some tensors' (least, greatest) by name instead, where they are known exactly (see `input_name`).
    """
    from ai_edge_quantizer import recipe

    quantizer = _quantizer(model)
    quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
    signature, argument = _signature(model)
    samples = [{argument: sample.astype(np.float32)} for sample in representative]
    if not samples:
        raise ExportError("int8 needs representative inputs; none were given")
    # The library's bars, a line for each operation, cannot all be switched off.
    with contextlib.redirect_stderr(io.StringIO()):
        measured = quantizer.calibrate({signature: samples}, num_threads=_CALIBRATION_THREADS)
        for name, (least, greatest) in (ranges or {}).items():
            if name not in measured:
                raise ExportError(f"the graph has no tensor {name!r} whose range could be set")
            measured[name] = {"min": np.full((1, 1, 1, 1), least), "max": np.full((1, 1, 1, 1), greatest)}
        result = quantizer.quantize(measured, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _quantizer(model: bytes) -> Any:
    from ai_edge_quantizer import quantizer

    logging.getLogger("absl").setLevel(logging.ERROR)
    return quantizer.Quantizer(bytearray(model))


def _signature(model: bytes) -> tuple[str, str]:
    """Name of the file's one signature and of its one input."""
    signatures = LiteRt(model).interpreter.get_signature_list()
    ((name, parts),) = signatures.items()
    (argument,) = parts["inputs"]
    return str(name), str(argument)


def input_name(model: bytes) -> str:
    """The input tensor's name in the graph, a key for ``ranges`` of `to_int8`."""
    return str(LiteRt(model).input["name"])


@dataclass(frozen=True)
class OperationUse:
    """One operation of a graph: its kind and the types of what it reads and gives."""

    kind: str
    types: tuple[str, ...]


class LiteRt:
    """Runs a TFLite file, float or int8, from float arrays to float arrays, on ``threads`` threads."""

    def __init__(self, model: bytes | Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        content = model.read_bytes() if isinstance(model, Path) else model
        self.interpreter = Interpreter(model_content=content, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input: dict[str, Any] = self.interpreter.get_input_details()[0]
        self.outputs: list[dict[str, Any]] = self.interpreter.get_output_details()

    def __call__(self, sample: FloatArray) -> list[FloatArray]:
        """(1, H, W, C) float -> every output as float, in the file's order."""
        self.interpreter.set_tensor(self.input["index"], _quantised(sample, self.input))
        self.interpreter.invoke()
        return [_dequantised(self.interpreter.get_tensor(each["index"]), each) for each in self.outputs]

    def operations(self) -> list[OperationUse]:
        """Every operation of the graph in order, the runtime's own delegate left out."""
        types = {each["index"]: np.dtype(each["dtype"]).name for each in self.interpreter.get_tensor_details()}
        return [
            OperationUse(str(each["op_name"]), tuple(types.get(i, "") for i in (*each["inputs"], *each["outputs"])))
            for each in self.interpreter._get_ops_details()  # the runtime offers no public list
            if each["op_name"] != "DELEGATE"
        ]


def _quantised(values: FloatArray, tensor: Mapping[str, Any]) -> AnyArray:
    scale, zero = tensor["quantization"]
    if not scale:
        return values.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return cast(AnyArray, np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(tensor["dtype"]))


def _dequantised(values: npt.NDArray[Any], tensor: Mapping[str, Any]) -> FloatArray:
    scale, zero = tensor["quantization"]
    plain = values.astype(np.float32)
    return cast(FloatArray, (plain - zero) * np.float32(scale) if scale else plain)
