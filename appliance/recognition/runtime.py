"""One call for every inference runtime: a float32 or uint8 picture in, float32 arrays out.

LiteRT is the unit's own; ONNX Runtime serves larger packs (TensorRT or CUDA where the machine has them); OpenCV's
own engine is a fallback that needs no further package. Quantised inputs and outputs are scaled here, with the
scale and zero point the file itself states.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, cast

import cv2
import numpy as np

from appliance.errors import PackError
from appliance.recognition.packs import Pack, PackFile
from appliance.records import Floats, Image

EDGE_TPU_LIBRARY = "libedgetpu.so.1"
EDGE_TPU_MARK = b"edgetpu-custom-op"
_CHATTER = b"INFO: Created TensorFlow Lite XNNPACK delegate"
_STDERR = 2
_hushing = threading.Lock()  # the descriptor belongs to the whole process


class Session(Protocol):
    """A loaded network."""

    def run(self, tensor: Floats) -> list[Floats]:
        """Run on one batch in the network's own layout; outputs as float32, in the file's order."""
        ...

    @property
    def names(self) -> list[str]:
        """Names of the outputs, in the order `run` gives them."""
        ...


class LiteRtSession:
    """A TFLite file in LiteRT, or in tflite-runtime where only that is installed (Coral)."""

    def __init__(self, blob: bytes, path: str, threads: int) -> None:
        compiled = EDGE_TPU_MARK in blob
        delegates = [_edge_tpu(path)] if compiled else []
        try:
            with hushed():
                self._interpreter = _interpreter(coral=compiled)(
                    model_content=blob, num_threads=threads, experimental_delegates=delegates
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise PackError(
                f"{path}: LiteRT cannot load it ({str(error).splitlines()[0]}); restore the pack"
            ) from error
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.names = [str(o["name"]) for o in self._outputs]

    def run(self, tensor: Floats) -> list[Floats]:
        """See Session."""
        scale, zero = self._input["quantization"]
        if scale:
            info = np.iinfo(self._input["dtype"])
            tensor = np.clip(np.rint(tensor / scale + zero), info.min, info.max)
        self._interpreter.set_tensor(self._input["index"], tensor.astype(self._input["dtype"], copy=False))
        self._interpreter.invoke()
        return [self._dequantised(o) for o in self._outputs]

    def _dequantised(self, output: dict[str, Any]) -> Floats:
        value = self._interpreter.get_tensor(output["index"])
        scale, zero = output["quantization"]
        if scale:
            return cast(Floats, (value.astype(np.float32) - zero) * np.float32(scale))
        return cast(Floats, value.astype(np.float32, copy=False))


class OnnxSession:
    """An ONNX file in ONNX Runtime; the fastest provider the build offers is taken."""

    def __init__(self, blob: bytes, path: str, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise PackError(f"{path}: needs ONNX Runtime; install it with: pip install 'bluelamp[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        wanted = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(blob, options, providers=providers)
        except Exception as error:
            raise PackError(
                f"{path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); restore the pack"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self.names = [o.name for o in self._session.get_outputs()]

    def run(self, tensor: Floats) -> list[Floats]:
        """See Session."""
        return [np.asarray(o, np.float32) for o in self._session.run(None, {self._input: tensor})]


class OpenCvSession:
    """An ONNX file in OpenCV's own engine: slower, but needs no further package."""

    def __init__(self, blob: bytes, path: str, threads: int) -> None:
        del threads  # OpenCV's thread count is global; the unit sets it once at start
        try:
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(blob, np.uint8))
        except cv2.error as error:
            raise PackError(f"{path}: OpenCV cannot load it ({error.err}); restore the pack") from error
        self.names = list(self._net.getUnconnectedOutLayersNames())

    def run(self, tensor: Floats) -> list[Floats]:
        """See Session."""
        self._net.setInput(tensor)
        return [np.asarray(o, np.float32) for o in self._net.forward(self.names)]


_RUNTIMES: dict[str, Callable[[bytes, str, int], Session]] = {
    "litert": LiteRtSession,
    "onnxruntime": OnnxSession,
    "opencv": OpenCvSession,
}


def open_session(pack: Pack, file: PackFile, threads: int = 1) -> Session:
    """Load one file of a pack in the runtime its manifest names. Raises PackError."""
    return _RUNTIMES[pack.manifest.runtime](pack.read(file), str(pack.folder / file.path), threads)


def tensor_of(pack: Pack, images: Image) -> Floats:
    """(n, height, width, 3) uint8 BGR to the network's float32 batch in its layout, colour and scale."""
    spec = pack.manifest.input
    mean, scale = np.asarray(spec.mean, np.float32), np.asarray(spec.scale, np.float32)
    pixels = images[..., ::-1] if spec.colour == "rgb" else images
    batch = np.subtract(pixels, mean, dtype=np.float32)
    batch /= scale
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if spec.layout == "nchw" else batch


def _interpreter(*, coral: bool = False) -> Any:
    """LiteRT's Interpreter. An Edge TPU's library goes with the older tflite-runtime: for it that comes first."""
    names = ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"]
    for name in reversed(names) if coral else names:
        try:
            return importlib.import_module(name).Interpreter
        except ImportError:
            continue
    raise PackError("no LiteRT in this environment; install it with: pip install ai-edge-litert")


@contextmanager
def hushed() -> Iterator[None]:
    """LiteRT says on stderr that it made its usual delegate, and has no switch for it; whatever else is said stays.

    A pipe that never waits takes it meanwhile: vision may write no file by then, not even one in memory.
    """
    with _hushing:
        try:
            kept = os.dup(_STDERR)
        except OSError:  # started without stderr: nothing to keep clean
            yield
            return
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.dup2(writer, _STDERR)
            yield
        finally:
            os.dup2(kept, _STDERR)
            with suppress(BlockingIOError):  # nothing was said
                said = os.read(reader, 65_536).splitlines(keepends=True)
                os.write(_STDERR, b"".join(line for line in said if not line.startswith(_CHATTER)))
            for descriptor in (kept, reader, writer):
                os.close(descriptor)


def _edge_tpu(path: str) -> Any:
    """The Edge TPU delegate, tried in a child process first: a mismatched library crashes instead of failing."""
    module = _interpreter(coral=True).__module__
    probe = f"from {module} import load_delegate; load_delegate({EDGE_TPU_LIBRARY!r})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=30, check=False)
    if done.returncode != 0:
        raise PackError(
            f"{path}: compiled for the Edge TPU, which is not usable here (no stick, or {EDGE_TPU_LIBRARY} does "
            "not match the runtime); plug it in and install the coral extra, or choose a pack that is not compiled "
            "for it"
        )
    return importlib.import_module(module).load_delegate(EDGE_TPU_LIBRARY)
