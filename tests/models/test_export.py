"""Files made by the recipe compute what the torch module computes, and hold only what an Edge TPU takes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed: pip install 'bluelamp[train]'")
pytest.importorskip("litert_torch", reason="the training extra is not installed: pip install 'bluelamp[train]'")

from models.training.edgetpu import objections  # noqa: E402
from models.training.export import ExportError, LiteRt, input_name, to_float16, to_int8, to_tflite  # noqa: E402


class Tiny(torch.nn.Module):
    """Two convolutions, a pool and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = torch.nn.Conv2d(3, 8, 3, 2), torch.nn.Conv2d(8, 8, 3, 1, 1)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.two(torch.relu(self.one(x))))
        return self.head(torch.nn.functional.avg_pool2d(y, 7).flatten(1))


@pytest.fixture(scope="module")
def floating() -> bytes:
    """The float file of the tiny module for 16 x 16 inputs."""
    return to_tflite(Tiny(), torch.zeros(1, 3, 16, 16))


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, (count, 1, 16, 16, 3)).astype(np.float32)


def expected(sample: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(Tiny().eval()(torch.from_numpy(sample).permute(0, 3, 1, 2)).numpy())


def test_the_float_file_reads_channels_last_and_agrees(floating: bytes) -> None:
    sample = inputs(1)[0]
    run = LiteRt(floating)
    assert tuple(run.input["shape"]) == (1, 16, 16, 3)
    assert np.allclose(run(sample)[0], expected(sample), atol=1e-5)


def test_float16_weights_nearly_agree(floating: bytes) -> None:
    sample = inputs(1)[0]
    assert np.allclose(LiteRt(to_float16(floating))(sample)[0], expected(sample), atol=5e-3)


def test_int8_has_int8_ends_agrees_in_direction_and_fits_the_edge_tpu(floating: bytes) -> None:
    samples = inputs(40)
    model = to_int8(floating, list(samples), {input_name(floating): (-0.5, 0.5)})
    run = LiteRt(model)
    assert run.input["dtype"] == run.outputs[0]["dtype"] == np.int8
    assert run.input["quantization"][0] == pytest.approx(1 / 255, rel=0.02)
    given, wanted = np.concatenate([run(s)[0] for s in samples]), np.concatenate([expected(s) for s in samples])
    assert np.corrcoef(given.ravel(), wanted.ravel())[0, 1] > 0.98
    assert objections(model) == []


def test_a_float_file_is_not_for_the_edge_tpu(floating: bytes) -> None:
    assert any("float32" in each for each in objections(floating))


def test_int8_without_representative_inputs_is_refused(floating: bytes) -> None:
    with pytest.raises(ExportError, match="representative"):
        to_int8(floating, [])
