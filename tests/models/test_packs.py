"""The shipped embedder packs: whole, small, made only of what an Edge TPU takes, golden input of no one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import ROOT

pytest.importorskip("ai_edge_litert", reason="LiteRT has no build for this machine")
pytest.importorskip("torch", reason="the training extra is not installed: pip install 'bluelamp[train]'")

from appliance.recognition.embed import Embedder
from appliance.recognition.packs import load, verify
from models.training.edgetpu import objections
from models.training.golden import drawn_face

PACKS = [path.parent for path in sorted((ROOT / "models").glob("*-embedder/pack.toml"))]


@pytest.mark.parametrize("folder", PACKS, ids=lambda folder: folder.name)
def test_a_shipped_pack_is_whole_and_computes_its_golden_output(folder: Path) -> None:
    pack = load(folder)
    verify(pack)
    face, expected = pack.golden()
    assert float(Embedder(pack).embed(face[None])[0] @ expected) > pack.manifest.golden.tolerance


@pytest.mark.parametrize("folder", PACKS, ids=lambda folder: folder.name)
def test_its_golden_input_is_drawn_and_tells_red_from_blue(folder: Path) -> None:
    pack = load(folder)
    face, expected = pack.golden()
    part = pack.embedder
    assert np.array_equal(face, drawn_face(part.width, part.height, np.array(part.landmarks)))
    swapped = Embedder(pack).embed(face[None, ..., ::-1])[0]
    assert float(swapped @ expected) < pack.manifest.golden.tolerance


@pytest.mark.parametrize("folder", PACKS, ids=lambda folder: folder.name)
def test_every_operation_is_one_that_the_edge_tpu_compiler_lists(folder: Path) -> None:
    pack = load(folder)
    for file in pack.manifest.files:
        assert objections(pack.read(file)) == []


@pytest.mark.parametrize("folder", PACKS, ids=lambda folder: folder.name)
def test_each_file_of_a_pack_is_small_enough_for_a_stick(folder: Path) -> None:
    assert max(file.stat().st_size for file in folder.glob("*.tflite")) < 7e6


@pytest.mark.parametrize("folder", PACKS, ids=lambda folder: folder.name)
def test_a_pack_says_where_it_comes_from_and_has_a_card(folder: Path) -> None:
    manifest = load(folder).manifest
    assert manifest.licence
    assert manifest.origin
    assert "figures" in (folder / "card.md").read_text().lower()
