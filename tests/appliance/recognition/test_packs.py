"""A model pack is whole, for this runtime, and computes what its maker computed, or it is refused with advice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import PackError
from appliance.recognition import golden, packs
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.runtime import open_session
from tests.support.paths import SHARED

EMBEDDERS = ["open-embedder", "lamp-embedder"]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of a built-in pack, to be damaged."""
    folder = tmp_path / "pack"
    shutil.copytree(packs.find("open-embedder"), folder)
    return folder


@pytest.mark.parametrize("name", EMBEDDERS)
def test_built_in_embedders_are_whole_and_compute_their_golden_output(name: str) -> None:
    pack = packs.load(name)
    packs.verify(pack)
    assert golden.check_embedder(pack, Embedder(pack)) >= pack.manifest.golden.tolerance


def test_the_built_in_detector_finds_its_golden_faces_at_every_size() -> None:
    pack = packs.load("lamp-detector")
    packs.verify(pack)
    detector = Detector(pack)
    assert golden.check_detector(pack, detector) >= pack.manifest.golden.tolerance
    scene, wanted = pack.golden()
    for file in pack.manifest.files:
        canvas = np.zeros((file.height, file.width, 3), np.uint8)
        part = scene[: file.height, : file.width]
        canvas[: part.shape[0], : part.shape[1]] = part
        inside = (wanted[:, 0] + wanted[:, 2] < file.width) & (wanted[:, 1] + wanted[:, 3] < file.height)
        assert len(detector.rows_at(canvas)) >= int(inside.sum()) > 0


def test_templates_have_unit_length_and_the_promised_size() -> None:
    pack = packs.load("open-embedder")
    chips = np.random.default_rng(0).integers(0, 255, (2, pack.embedder.height, pack.embedder.width, 3), np.uint8)
    templates = Embedder(pack).embed(chips)
    assert templates.shape == (2, pack.embedder.length)
    assert np.allclose(np.linalg.norm(templates, axis=1), 1.0, atol=1e-5)


def test_a_missing_pack_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"built-in pack: .*lamp-detector"):
        packs.load(tmp_path / "nowhere")


def test_an_altered_or_shortened_model_is_refused(copied: Path) -> None:
    pack = packs.load(copied)
    model = copied / pack.manifest.files[0].path
    whole = model.read_bytes()
    for damaged in (whole[:-1], whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:], b""):
        model.write_bytes(damaged)
        with pytest.raises(PackError, match="altered or cut short"):
            Embedder(pack)
    model.unlink()
    with pytest.raises(PackError, match="restore the pack"):
        Embedder(pack)


def test_a_corrupt_model_with_a_matching_digest_is_still_a_clear_error(copied: Path) -> None:
    import hashlib

    junk = b"TFL3 this is not a network" * 100
    pack = packs.load(copied)
    file = pack.manifest.files[0]
    (copied / file.path).write_bytes(junk)
    text = (copied / "pack.toml").read_text().replace(file.sha256, hashlib.sha256(junk).hexdigest())
    (copied / "pack.toml").write_text(text)
    with pytest.raises(PackError, match="cannot load it"):
        Embedder(packs.load(copied))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("format = 1", "format = 2", "format"),
        ('role = "embedder"', 'role = "detector"', "needs exactly its own"),
        ("width = 150", 'width = "wide"', "width"),
        ('licence = "CC0-1.0"', 'licence = "CC0-1.0"\nsurprise = 1', "surprise"),
        ("[input]", "[input", "restore the pack"),
    ],
)
def test_a_malformed_manifest_says_where(copied: Path, before: str, after: str, words: str) -> None:
    path = copied / "pack.toml"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(PackError, match=words):
        packs.load(copied)


def test_changing_the_preprocessing_changes_the_digest(copied: Path) -> None:
    before = packs.load(copied).digest
    path = copied / "pack.toml"
    path.write_text(path.read_text().replace('colour = "rgb"', 'colour = "bgr"'))
    assert packs.load(copied).digest != before


def test_a_runtime_that_computes_something_else_is_noticed(copied: Path) -> None:
    path = copied / "pack.toml"
    path.write_text(path.read_text().replace("scale = [256.0, 256.0, 256.0]", "scale = [64.0, 64.0, 64.0]"))
    pack = packs.load(copied)
    with pytest.raises(PackError, match="computes something else"):
        golden.check_embedder(pack, Embedder(pack))


def test_the_size_of_detection_follows_from_the_smallest_face() -> None:
    pack = packs.load("lamp-detector")
    frame = np.zeros((1080, 1920, 3), np.uint8)
    areas = []
    for smallest in (160, 60, 30, 12):
        width, height = Detector(pack, smallest_face=smallest).size_for(frame)
        areas.append(width * height)
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]


def test_a_model_for_the_edge_tpu_is_recognised_and_refused_where_there_is_none(tmp_path: Path) -> None:
    source = SHARED / "models" / "coral" / "facedetection_320_240_edgetpu.tflite"
    if not source.exists():
        pytest.skip("needs ../shared/models/coral (not part of the repository)")
    import hashlib

    folder = tmp_path / "coral"
    shutil.copytree(packs.find("lamp-detector"), folder)
    pack = packs.load(folder)
    file = pack.manifest.files[0]
    blob = source.read_bytes()
    (folder / file.path).write_bytes(blob)
    path = folder / "pack.toml"
    path.write_text(path.read_text().replace(file.sha256, hashlib.sha256(blob).hexdigest()))
    pack = packs.load(folder)
    with pytest.raises(PackError, match="compiled for the Edge TPU"):
        open_session(pack, pack.manifest.files[0])


def _with_parts(folder: Path, parts: str, length: int) -> packs.Pack:
    """The copied pack with a second file, a copy of its first, and the parts given."""
    first = packs.load(folder).manifest.files[0]
    shutil.copyfile(folder / first.path, folder / "second.tflite")
    text = (folder / "pack.toml").read_text()
    block = f'[[files]]\npath = "second.tflite"\nsha256 = "{first.sha256}"\nwidth = 150\nheight = 150\n\n[golden]'
    text = text.replace("length = 128", f"length = {length}\nparts = [{parts}]").replace("[golden]", block)
    (folder / "pack.toml").write_text(text)
    return packs.load(folder)


def test_parts_of_a_template_may_come_from_other_files_and_from_the_mirror_image(copied: Path) -> None:
    """A second file that sees the mirror image gives what the first gives for the mirrored chip, at its weight."""
    plain = Embedder(packs.load(copied))
    mirrored = "{ length = 128, weight = 0.25, file = 'second.tflite', mirror = true }"
    pack = _with_parts(copied, "{ length = 128, weight = 0.75 }, " + mirrored, 256)
    chip = pack.golden()[0]
    found = Embedder(pack).embed(chip[None])[0]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert found[:128] / 0.75**0.5 == pytest.approx(plain.embed(chip[None])[0], abs=1e-5)
    assert found[128:] / 0.25**0.5 == pytest.approx(plain.embed(chip[None, :, ::-1])[0], abs=1e-5)


def test_a_part_of_a_file_that_the_pack_lacks_is_refused(copied: Path) -> None:
    with pytest.raises(PackError, match=r"third\.tflite, which is not among"):
        _with_parts(copied, "{ length = 128, weight = 1.0, file = 'third.tflite' }", 128)
