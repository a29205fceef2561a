"""Does a TFLite file hold only what the Edge TPU compiler documents that it maps?

The list is that of Coral's documentation ("TensorFlow models on the Edge TPU", supported operations). The compiler
itself is not run here: it is closed, so a file that passes may still be mapped in part, and its timing is unknown.
"""

from __future__ import annotations

from models.training.export import LiteRt

SUPPORTED = frozenset(
    (
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "L2_NORMALIZATION",
        "LOGISTIC",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MEAN",
        "MINIMUM",
        "MUL",
        "PACK",
        "PAD",
        "PRELU",
        "QUANTIZE",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT",
        "SLICE",
        "SOFTMAX",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUARED_DIFFERENCE",
        "SQUEEZE",
        "STRIDED_SLICE",
        "SUB",
        "SUM",
        "TANH",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
    )
)
_TYPES = frozenset(("int8", "uint8", "int32", "int64", ""))  # weights and activations, biases, shapes, absent inputs


def objections(model: bytes) -> list[str]:
    """Every operation that the compiler would not map, with the reason; empty when all is well."""
    found = []
    for place, operation in enumerate(LiteRt(model).operations()):
        if operation.kind not in SUPPORTED:
            found.append(f"operation {place}: {operation.kind} is not on the list")
        wrong = sorted(set(operation.types) - _TYPES)
        if wrong:
            found.append(f"operation {place}: {operation.kind} uses {', '.join(wrong)}")
    return found
