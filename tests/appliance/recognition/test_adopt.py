"""A pack of any ONNX embedder by one command: whole, pinned, golden made, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.paths import SHARED

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'bluelamp[onnx]'")

from appliance.cli import app
from appliance.errors import PackError
from appliance.recognition import adopt, calibration, golden, packs
from appliance.recognition.adopt import Words
from appliance.recognition.embed import Embedder
from provisioning.evaluation import shared_packs

MODELS = SHARED / "models"
TEACHER = MODELS / "mobilefacenet-arcface" / "mobilefacenet_arcface.onnx"
WORDS = Words("adopted", "a licence", "an origin", "terms")
needs_teacher = pytest.mark.skipif(not TEACHER.is_file(), reason="no research model: set BLUELAMP_SHARED")


@needs_teacher
def test_the_research_teacher_is_adopted_by_one_command_and_embeds_as_it_should(tmp_path: Path) -> None:
    """Its templates are those of the pack that the evaluation wraps by hand; its golden output is its own."""
    into = tmp_path / "teacher"
    options = ["--landmarks", "arcface", "--pixels", "0..255", "--licence", "research", "--origin", "InsightFace"]
    done = CliRunner().invoke(
        app, ["models", "adopt", str(TEACHER), *options, "--terms", "measure", "--into", str(into)]
    )
    assert done.exit_code == 0, done.output
    pack = packs.load(into)
    packs.verify(pack)
    assert golden.check_embedder(pack, Embedder(pack)) > 0.999
    wrapped = packs.load(shared_packs.wrap("mobilefacenet-arcface", MODELS, tmp_path))
    chip = np.random.default_rng(1).integers(0, 256, (1, 112, 112, 3)).astype(np.uint8)
    assert Embedder(pack).embed(chip)[0] == pytest.approx(Embedder(wrapped).embed(chip)[0], abs=1e-5)
    assert np.array(pack.embedder.landmarks) == pytest.approx(np.array(wrapped.embedder.landmarks), abs=1e-3)
    with pytest.raises(PackError, match="evaluate calibrate"):
        calibration.load(pack)


@needs_teacher
def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pytest.raises(PackError, match="is there already"):
        adopt.adopt(TEACHER, tmp_path / "pack", WORDS, "arcface", "0..255", "rgb")


def test_what_is_no_embedder_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    """No file, no network, and a detector."""
    (tmp_path / "text.onnx").write_text("not a network")
    refused = [(tmp_path / "none.onnx", "no such file"), (tmp_path / "text.onnx", "not a network that")]
    if (detector := MODELS / "yunet" / "yunet_n_640_640.onnx").is_file():
        refused.append((detector, "not a face embedder"))
    for model, reason in refused:
        with pytest.raises(PackError, match=reason):
            adopt.adopt(model, tmp_path / "pack", WORDS, "arcface", "0..255", "rgb")
    assert not (tmp_path / "pack").exists()
    assert not list(tmp_path.glob(".pack*"))


@needs_teacher
def test_a_choice_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    options = ["--landmarks", "eyes", "--pixels", "0..255", "--licence", "x", "--origin", "x", "--terms", "x"]
    done = CliRunner().invoke(app, ["models", "adopt", str(TEACHER), *options, "--into", str(tmp_path / "pack")])
    assert done.exit_code == 2
    assert not (tmp_path / "pack").exists()


def test_the_golden_picture_is_the_same_everywhere() -> None:
    assert np.array_equal(adopt.pattern(112), adopt.pattern(112))
    assert adopt.pattern(64).std() > 30
