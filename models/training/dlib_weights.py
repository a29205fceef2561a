"""Read the weights of dlib's face recognition ResNet (CC0) from its ``.dat`` file.

The file is dlib's own serialisation. Layers stand from input to output; each begins with a marker (``con_4``,
``affine_``, ``fc_2``) and its weights follow as one tensor: version 2, four dimensions as dlib's variable-length
integers (a byte with the count of the bytes that follow, then those, least first), raw little-endian float32.
A convolution's tensor is filters (outputs * inputs * height * width), then biases; an affine layer's is scales, then
offsets; the last layer's is (inputs, outputs).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_MARKER = re.compile(rb"\x05con_4|\x07affine_|\x04fc_2")
_CONVOLUTIONS = 29
_TENSOR_VERSION = 2
_LARGEST_TENSOR = 4_000_000  # numbers; the network's largest holds 589,824


class WeightsError(ValueError):
    """The file is not the network that the recipe starts from."""


@dataclass(frozen=True)
class DlibWeights:
    """Convolutions in order, each (filters and biases, scale, offset), flat; and the last matrix (256, 128)."""

    convolutions: tuple[tuple[FloatArray, FloatArray, FloatArray], ...]
    head: FloatArray


def read_weights(file: Path) -> DlibWeights:
    """All weights of ``file``; raises WeightsError when the layers are not 29 pairs and one matrix."""
    data = file.read_bytes()
    tensors = [_tensor(data, _after_marker(data, marker)) for marker in _MARKER.finditer(data)]
    if len(tensors) != 2 * _CONVOLUTIONS + 1:
        raise WeightsError(
            f"{file.name} holds {len(tensors)} weighted layers, not {2 * _CONVOLUTIONS + 1}: "
            "take dlib_face_recognition_resnet_model_v1.dat from face_recognition_models 0.3.0"
        )
    pairs = zip(tensors[0:-1:2], tensors[1:-1:2], strict=True)
    return DlibWeights(
        tuple((filters.ravel(), *_halves(affine)) for filters, affine in pairs),
        tensors[-1].reshape(tensors[-1].shape[:2]),
    )


def _halves(affine: FloatArray) -> tuple[FloatArray, FloatArray]:
    flat = affine.ravel()
    return flat[: len(flat) // 2], flat[len(flat) // 2 :]


def _after_marker(data: bytes, marker: re.Match[bytes]) -> int:
    """Where the tensor begins: the last layer counts its outputs and inputs first."""
    at = marker.end()
    for _ in range(2 if marker.group().endswith(b"fc_2") else 0):
        _, at = _integer(data, at)
    return at


def _tensor(data: bytes, at: int) -> FloatArray:
    numbers = []
    for _ in range(5):
        number, at = _integer(data, at)
        numbers.append(number)
    version, *shape = numbers
    count = int(np.prod(shape))
    if version != _TENSOR_VERSION or not 0 < count <= _LARGEST_TENSOR or at + 4 * count > len(data):
        raise WeightsError(f"no tensor of version {_TENSOR_VERSION} at byte {at}")
    return np.frombuffer(data, "<f4", count, at).reshape(shape).astype(np.float32)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """One of dlib's integers and the offset after it."""
    size = data[at] & 0x0F
    if data[at] & 0x80 or size > 8:
        raise WeightsError(f"no dimension at byte {at}")
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size
