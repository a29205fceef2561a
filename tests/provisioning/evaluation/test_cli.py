"""`bluelamp-provision evaluate` as a technician runs it, on drawn faces and on the demo's portraits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.errors import BluelampError, PackError
from appliance.recognition import calibration, packs
from appliance.records import Floats
from provisioning.evaluation import candidate, cli, dataset, embeddings, report, rerender, shared_packs
from provisioning.evaluation.dataset import Dataset, Still
from provisioning.evaluation.embeddings import CONDITIONS, Templates

PACKS = ["--detector", "lamp-detector", "--embedder", "open-embedder"]
needs_packs = pytest.mark.skipif(
    not (packs.BUILT_IN / "open-embedder" / "pack.toml").is_file()
    or not (packs.BUILT_IN / "lamp-detector" / "pack.toml").is_file(),
    reason="the built-in packs are not in this checkout",
)
needs_portraits = pytest.mark.skipif(
    not (cli.ASSETS / "watchlist.csv").is_file(), reason="the demo's portraits are not in this checkout"
)
runner = CliRunner()


def invoke(*arguments: str) -> str:
    result = runner.invoke(cli.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def population(folder: Path, identities: int = 160, stills: int = 3) -> Path:
    """A table of labelled stills; each image's pixels only make its digest its own."""
    rows = ["image,identity,sex,age,ethnicity"]
    for i in range(identities):
        for k in range(stills):
            cv2.imwrite(str(folder / f"{i}_{k}.png"), np.full((2, 2, 3), (i % 251, i // 251, k), np.uint8))
            rows.append(f"{i}_{k}.png,p{i},{'female' if i % 2 else 'male'},{20 + i % 50},{'AB'[i % 2]}")
    (folder / "people.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "people.csv"


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for a data set whose templates are drawn, not computed: models would find no face in its images."""

    def made(data: Dataset, *_: object) -> Templates:
        rng = np.random.default_rng(1)
        centres: Floats = rng.normal(size=(int(data.identities.max()) + 1, 128)).astype(np.float32)
        raw = centres[data.identities] + 0.9 * rng.normal(size=(len(data.stills), 128)).astype(np.float32)
        plain = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        found = np.ones(len(data.stills), bool)
        return Templates(plain, found, rng.random((len(found), len(CONDITIONS))).astype(np.float32))

    monkeypatch.setattr("provisioning.evaluation.evaluate.embed", made)
    monkeypatch.setattr("provisioning.evaluation.calibrate.SIZES", (50, 100))
    return [*PACKS, "--data", str(population(tmp_path))]


@needs_packs
def test_all_of_it_writes_a_report_that_names_its_models_and_a_calibration_that_loads(
    drawn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = packs.load("open-embedder")
    copy = tmp_path / "pack"
    copy.mkdir()
    for file in (f for f in pack.folder.iterdir() if f.is_file()):
        (copy / file.name).write_bytes(file.read_bytes())
    drawn[3] = str(copy)
    monkeypatch.setattr("provisioning.evaluation.evaluate.GROUP_SIZE", 100)
    out = json.loads(invoke(*drawn, "--json"))
    written = json.loads((copy / "report" / "report.json").read_text())
    assert (
        out["models"] == written["models"] == {"detector": packs.load("lamp-detector").digest, "embedder": pack.digest}
    )
    assert {g["group"] for g in written["groups"]} >= {"sex: female", "sex: male", "ethnicity: A"}
    assert "<svg" in (copy / "report" / "report.html").read_text()
    installed = copy / "calibration.json"
    before = installed.read_bytes()
    assert before == (pack.folder / "calibration.json").read_bytes(), "measuring changes no installed calibration"
    printed = invoke(*drawn[:4], "install", str(copy / candidate.NAME))
    kept = next(copy.glob("calibration.*.old.json"))
    assert kept.read_bytes() == before
    assert str(kept) in printed
    record = calibration.load(packs.load(copy))
    assert record.data_sha256 == written["data"]["sha256"]
    assert record.threshold_for(100, 1e-2) >= record.floor
    assert written["operating_point"]["threshold"] == pytest.approx(record.operating(100, 1e-3).threshold, abs=2e-6), (
        "groups are compared at the threshold that is recommended"
    )


@needs_packs
def test_a_candidate_goes_where_it_is_told_and_one_of_another_pack_is_not_installed(
    drawn: list[str], tmp_path: Path
) -> None:
    pack = packs.load("open-embedder")
    before = (pack.folder / "calibration.json").read_bytes()
    invoke(*drawn, "calibrate", "--out", str(tmp_path / "out"))
    found = tmp_path / "out" / candidate.NAME
    assert calibration.read(found, pack).embedder == pack.digest
    found.write_text(found.read_text().replace(pack.digest, "0" * 64))
    with pytest.raises(PackError, match="another pack"):
        invoke(*PACKS, "install", str(found))
    assert (pack.folder / "calibration.json").read_bytes() == before


@needs_packs
def test_each_step_alone_prints_and_speaks_json(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "FMR" in invoke(*drawn, "verify")
    assert "references" in invoke(*drawn, "identify")
    assert "sex: female" in invoke(*drawn, "groups")
    assert json.loads(invoke(*drawn, "verify", "--json"))["mated"] == 160 * 3
    with pytest.raises(BluelampError, match="too few identities"):
        invoke(*drawn, "gains")
    assert json.loads(invoke(*drawn, "identify", "--json"))["mated_searches"] == 160 * 2
    monkeypatch.setattr("provisioning.evaluation.groups.LEAST", 60)
    assert "with cohort normalisation" in invoke(*drawn, "groups")
    assert "labelled adults" in invoke(*drawn, "gains")


@needs_packs
def test_figures_by_pass_of_other_packs_are_kept_out_of_the_report(drawn: list[str], tmp_path: Path) -> None:
    for text, word in (
        ("{}", "not what"),
        ('{"models": {"detector": "x", "embedder": "y"}, "rows": []}', "not what"),
        ('{"models": {"detector": "x", "embedder": "y"}, "lists": []}', "other packs"),
    ):
        (tmp_path / "passes.json").write_text(text)
        with pytest.raises(BluelampError, match=word):
            invoke(*drawn, "report", "--out", str(tmp_path), "--passes", str(tmp_path / "passes.json"))


@needs_packs
def test_a_pairs_file_is_compared_pair_by_pair(drawn: list[str], tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("0_0.png,0_1.png,1\n0_0.png,1_0.png,0\n")
    found = json.loads(invoke(*drawn, "verify", "--pairs", str(tmp_path / "pairs.csv"), "--json"))
    assert (found["mated"], found["non_mated"]) == (1, 1)


@needs_packs
@needs_portraits
def test_the_demos_portraits_are_found_embedded_once_and_read_back(tmp_path: Path) -> None:
    whole = dataset.load(cli.ASSETS / "watchlist.csv")
    data = whole.where(i < 4 for i in range(len(whole.stills)))
    pair = packs.load("lamp-detector"), packs.load("open-embedder")
    first = embeddings.embed(data, *pair, cache=tmp_path, mirror=True)
    assert first.mirrored is not None
    assert (np.einsum("ij,ij->i", first.plain, first.mirrored) > 0.5).all()
    assert first.found.all()
    assert np.linalg.norm(first.averaged(), axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (first.condition("interocular") > 30).all()
    files = sorted(tmp_path.rglob("*.npz"))
    again = embeddings.embed(data.where([False, True, True, True]), *pair, cache=tmp_path)
    assert sorted(tmp_path.rglob("*.npz")) == files
    assert np.array_equal(again.plain, first.plain[1:])
    assert not list(tmp_path.rglob("*.part"))


def test_a_pack_of_the_wrong_role_is_refused_before_any_work() -> None:
    if not (packs.BUILT_IN / "lamp-detector" / "pack.toml").is_file():
        pytest.skip("the built-in packs are not in this checkout")
    with pytest.raises(PackError, match="swap the two"):
        invoke("--detector", "lamp-detector", "--embedder", "lamp-detector", "identify")


@needs_packs
def test_data_that_is_not_there_is_said_in_words() -> None:
    with pytest.raises(BluelampError, match="no such folder"):
        invoke(*PACKS, "--data", "/nonexistent", "identify")


def test_help_teaches() -> None:
    text = invoke("--help")
    for word in ("ISO/IEC", "--held-out", "calibrate", "passes", "Exit codes"):
        assert word in text


def test_a_second_look_is_the_same_every_time_smaller_and_not_the_still_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8), (160, 160), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    first, again = (rerender.rerender(np.asarray(image, np.uint8), b"seed") for _ in range(2))
    assert np.array_equal(first, again)
    assert 44 <= min(first.shape[:2]) <= 88
    data = Dataset("x", "", (Still(tmp_path / "a.png", "a", "male", 30, "A", border=0.3),))
    looked = rerender.second_looks(data, tmp_path / "cache").stills[0]
    assert (looked.identity, looked.sex, looked.border) == ("a", "male", 0.3)
    before = looked.image.read_bytes()
    assert rerender.second_looks(data, tmp_path / "cache").stills[0].image.read_bytes() == before


def test_a_shared_model_is_wrapped_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    shared = dataset.shared()
    if shared is None or not (shared / "models").is_dir():
        pytest.skip("needs the shared models: set BLUELAMP_SHARED")
    digests = {
        packs.load(shared_packs.wrap("mobilefacenet-arcface", shared / "models", tmp_path / name)).digest
        for name in "ab"
    }
    assert len(digests) == 1
    with pytest.raises(PackError, match="not a shared model"):
        shared_packs.wrap("nothing", shared / "models", tmp_path)


def test_a_signed_report_covers_both_files(tmp_path: Path) -> None:
    from appliance.trust import envelope
    from provisioning.authority import authority
    from provisioning.base import open_base

    authority.init(tmp_path / "base")
    (tmp_path / "report.json").write_text(
        json.dumps({"made": 1.0, "models": {"detector": "a" * 64, "embedder": "b" * 64}})
    )
    (tmp_path / "report.html").write_text("<p>page</p>")
    path = report.sign(tmp_path, tmp_path / "base")
    key = open_base(tmp_path / "base").keys.signer.public_key
    signed = envelope.read(path.read_bytes(), report.KIND, report.SignedReport, [key])
    assert signed.page == hashlib.sha256(b"<p>page</p>").hexdigest()
    assert signed.models.embedder == "b" * 64
