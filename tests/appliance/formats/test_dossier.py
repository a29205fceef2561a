"""A dossier: the pictures of a deployment's references, sealed to one control room, and believed only as a whole."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from appliance.errors import BluelampError, EnrolmentError, KeyFileError
from appliance.formats import dossier
from appliance.formats.dossier import Dossier, DossierError, Manifest, Pictured
from appliance.limits import LIMITS
from appliance.records import Header
from appliance.trust import audit, keys, seal
from provisioning.authority import authority
from provisioning.base import open_base
from provisioning.cli import app
from provisioning.enrolment import references
from provisioning.enrolment.references import StoredImage
from provisioning.orders import dossier as making
from provisioning.orders.dossier import Disclosed, Portraits
from tests.support import workbench

ROOM = "control-1"


@pytest.fixture(scope="module")
def portraits() -> Portraits:
    return Portraits(workbench.built_in().detector)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    """A deployment of five references: three with a synthetic portrait, one with two, one without any."""
    bench = workbench.build(tmp_path_factory.mktemp("bench"), count=5)
    faces = workbench.portraits()
    with bench.base.store() as store:
        for number, score in ((0, 81.0), (1, 44.0), (2, 77.0), (2, 91.0)):
            blob = faces[number + int(score == 91.0)].read_bytes()
            image = StoredImage(f"R-{number:05d}", f"{number}{score}", "x.jpg", score, time.time(), blob)
            references.put_image(store, image)
        references.put_reference(store, workbench.reference(1, image_date="2011-02-01"))
    bench.issue("D-1")
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


def made(bench: workbench.Workbench, decoys: Path | None = None) -> tuple[Disclosed, bytes]:
    """The dossier of the deployment, as a technician makes it."""
    out = bench.root / "d.dossier"
    record = making.make(bench.base, "D-1", ROOM, out, workbench.built_in().detector, decoys)
    return record, out.read_bytes()


def opened(bench: workbench.Workbench, blob: bytes, **changes: object) -> Dossier:
    """As the control room opens it."""
    folder = keys.load(bench.control)
    known = {"control": ROOM, "deployment": "D-1", "keys": folder.sealing, "now": time.time(),
             "authorities": keys.load(bench.unit).roster.authority_keys(), **changes}  # fmt: skip
    return dossier.open_dossier(blob, **known)  # type: ignore[arg-type]


def decoy_folder(folder: Path, pairs: int = 2) -> Path:
    """Pairs of different synthetic people."""
    folder.mkdir()
    faces = workbench.portraits()
    for number in range(pairs):
        (folder / f"pair{number}-reference.jpg").write_bytes(faces[number].read_bytes())
        (folder / f"pair{number}-probe.jpg").write_bytes(faces[number + 2].read_bytes())
    return folder


def decoded(picture: bytes) -> np.ndarray:  # type: ignore[type-arg]
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_the_room_gets_one_small_picture_of_each_reference_and_what_warns_about_it(bench: workbench.Workbench) -> None:
    """The best image of each; no name, rationale or basis travels."""
    record, blob = made(bench)
    content = opened(bench, blob)
    by_name = {r.reference_identifier: r for r in content.manifest.references}
    assert sorted(by_name) == [f"R-{n:05d}" for n in range(5)]
    assert sorted(content.pictures) == ["R-00000", "R-00001", "R-00002"]
    assert (record.version, record.references, record.without_picture, record.decoys) == (1, 5, 2, 0)
    for picture in content.pictures.values():
        assert len(picture) <= LIMITS.dossier_picture_bytes
        assert max(decoded(picture).shape[:2]) <= LIMITS.dossier_picture_side
    assert by_name["R-00002"].quality == 91.0
    assert by_name["R-00001"].warnings == ("image 15 years old", "low quality: 44 of 100")
    assert by_name["R-00003"].warnings == ("no picture at base",)
    assert by_name["R-00000"].image_date == "2025-05-01"
    assert set(Pictured.model_fields) == {"reference_identifier", "category", "image_date", "quality", "warnings",
                                          "size"}  # fmt: skip


def test_disclosure_is_in_the_log_and_versions_count(bench: workbench.Workbench) -> None:
    first, _ = made(bench)
    second, blob = made(bench)
    assert (first.version, second.version) == (1, 2)
    assert [r.version for r in making.records(bench.base)] == [1, 2]
    acts = audit.verify(bench.base.audit.path, bench.base.all_signers(), [first.anchor, second.anchor])
    assert [(e.act, e.subject) for e in acts[-1:]] == [("disclosure", second.sha256)]
    assert "5 references, 0 decoy pairs" in acts[-1].detail
    with pytest.raises(DossierError, match="older than version 3"):
        opened(bench, blob, least_version=3)


def test_whoever_was_erased_at_base_is_not_in_the_next_dossier(bench: workbench.Workbench) -> None:
    made(bench)
    with bench.base.store() as store:
        references.erase(store, "R-00002")
    content = opened(bench, made(bench)[1])
    assert "R-00002" not in {r.reference_identifier for r in content.manifest.references}
    assert sorted(content.pictures) == ["R-00000", "R-00001"]


def test_the_face_is_in_the_middle_of_the_picture(portraits: Portraits) -> None:
    """Wherever in a large photograph it was."""
    face = cv2.imread(str(workbench.portraits()[0]))
    assert face is not None
    canvas = np.full((900, 1400, 3), 127, np.uint8)
    canvas[40 : 40 + face.shape[0], 900 : 900 + face.shape[1]] = face
    picture = decoded(portraits.reference(canvas))
    found = portraits.face(picture)
    assert found is not None
    x, y, width, height = found.box
    middle = np.array([x + width / 2, y + height / 2]) / picture.shape[0]
    assert np.abs(middle - 0.5).max() < 0.12
    assert 0.3 < width / picture.shape[1] < 0.6


def test_a_picture_without_a_face_is_sent_whole_and_noise_still_fits(portraits: Portraits) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (700, 500, 3), np.uint8)
    blob = portraits.reference(noise)
    assert len(blob) <= LIMITS.dossier_picture_bytes
    height, width = decoded(blob).shape[:2]
    assert width / height == pytest.approx(500 / 700, abs=0.02)


def test_decoys_are_dressed_like_references_and_cut_like_probes(bench: workbench.Workbench) -> None:
    content = opened(bench, made(bench, decoy_folder(bench.root / "decoys"))[1])
    real = {r.reference_identifier for r in content.manifest.references}
    assert len(content.decoys) == 2
    for decoy in content.decoys:
        assert decoy.pair.reference.reference_identifier not in real
        assert decoy.pair.reference.reference_identifier.startswith("R-")
        assert len(decoy.pair.reference.reference_identifier) == len("R-00000")
        old = decoy.pair.reference.image_date == "2011-02-01"
        assert old == ("image 15 years old" in decoy.pair.reference.warnings)
        assert decoy.pair.reference.category in {r.category for r in content.manifest.references}
        assert decoy.pair.reference.quality > 0
        assert len(decoy.probe) <= LIMITS.chip_bytes
        assert 0 < decoy.pair.quality <= 1
        assert decoy.pair.interocular > 14
        assert max(decoded(decoy.probe).shape[:2]) <= LIMITS.chip_side
        assert max(decoded(decoy.picture).shape[:2]) <= LIMITS.dossier_picture_side


def test_mistakes_in_a_folder_of_decoys_are_named(bench: workbench.Workbench) -> None:
    folder = decoy_folder(bench.root / "decoys")
    (folder / "pair1-probe.jpg").unlink()
    with pytest.raises(EnrolmentError, match="pair1-reference has no partner"):
        made(bench, folder)
    (folder / "pair1-probe.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((99, 99, 3), np.uint8))[1].tobytes())
    with pytest.raises(EnrolmentError, match="pair1-probe: no face found"):
        made(bench, folder)
    empty = bench.root / "empty"
    empty.mkdir()
    with pytest.raises(EnrolmentError, match="no decoy pairs"):
        made(bench, empty)
    assert making.records(bench.base) == []


def test_another_room_deployment_or_time_is_refused_with_one_line(bench: workbench.Workbench) -> None:
    _, blob = made(bench)
    with pytest.raises(DossierError, match="made for control room control-1, this is control-2"):
        opened(bench, blob, control="control-2")
    with pytest.raises(DossierError, match=r"of deployment D-1, the order is of D-2"):
        opened(bench, blob, deployment="D-2")
    with pytest.raises(DossierError, match="which is not here"):
        opened(bench, blob, keys=keys.load(bench.unit).sealing)
    with pytest.raises(DossierError, match="deployment ended"):
        opened(bench, blob, now=time.time() + 40 * 3600)
    with pytest.raises(DossierError, match="not by a trusted key"):
        opened(bench, blob, authorities=[keys.load(bench.unit).signer.public_key])
    with pytest.raises(DossierError, match="sealed watchlist, not a dossier"):
        opened(bench, (bench.root / "list.watchlist").read_bytes())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused(
    sealed_once: tuple[workbench.Workbench, bytes], position: float, flip: int
) -> None:
    bench, blob = sealed_once
    altered = bytearray(blob)
    altered[int(position * len(altered))] ^= flip
    with pytest.raises(DossierError):
        opened(bench, bytes(altered))


@pytest.fixture(scope="module")
def sealed_once(
    shared: workbench.Workbench, tmp_path_factory: pytest.TempPathFactory
) -> tuple[workbench.Workbench, bytes]:
    bench = shared.copy(tmp_path_factory.mktemp("once"))
    return bench, made(bench)[1]


@pytest.mark.parametrize("cut", [0, 7, 40, -1])
def test_a_file_cut_short_or_too_large_is_refused(
    sealed_once: tuple[workbench.Workbench, bytes], cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, blob = sealed_once
    with pytest.raises(DossierError):
        opened(bench, blob[:cut])
    monkeypatch.setattr(dossier, "LIMITS", LIMITS.__class__(dossier_bytes=len(blob) - 1))
    with pytest.raises(DossierError, match="bytes, more than the"):
        opened(bench, blob)


def test_a_well_sealed_but_wrong_content_is_refused(sealed_once: tuple[workbench.Workbench, bytes]) -> None:
    """The authority signed it, but its parts do not fit together: nothing of it is used."""
    bench, _ = sealed_once
    one = Pictured(reference_identifier="R-1", category="c", quality=1, size=4)
    good = Manifest(control=ROOM, deployment="D-1", version=1, created=time.time(), not_after=time.time() + 60,
                    references=(one,))  # fmt: skip
    jpeg = b"\xff\xd8\xff\xe0"
    wrong = [
        (b"", "malformed"),
        (b"\x00\x00\x00\x02{}", "malformed"),
        (plain(good, b"GIF8"), "no JPEG"),
        (plain(good, jpeg + b"x"), "not as long"),
        (plain(good.model_copy(update={"references": (one, one)}), jpeg * 2), "twice"),
        (plain(good.model_copy(update={"control": "control-9"}), jpeg), "different rooms"),
    ]
    assert opened(bench, sealed(bench, plain(good, jpeg))).pictures == {"R-1": jpeg}
    for content, said in wrong:
        with pytest.raises(DossierError, match=said):
            opened(bench, sealed(bench, content))
    with pytest.raises(DossierError, match="do not agree"):
        dossier.make(good, [], keys.load(bench.control).identity.sealing[0], bench.base.keys.signer)


def plain(manifest: Manifest, pictures: bytes) -> bytes:
    text = manifest.model_dump_json().encode()
    return struct.pack(">I", len(text)) + text + pictures


def sealed(bench: workbench.Workbench, content: bytes) -> bytes:
    """Anything, sealed to the room in the base's name."""
    recipient, now = keys.load(bench.control).identity.sealing[0], time.time()
    header = Header(kind="dossier", id="x", unit=ROOM, deployment="D-1", created=now, expires=now + 60,
                    sender=bench.base.keys.signer.public_key.keyid, recipient=recipient.id)  # fmt: skip
    return seal.seal(header, content, recipient.public(), [bench.base.keys.signer])


def test_the_command_says_what_it_made(bench: workbench.Workbench) -> None:
    out = bench.root / "x.dossier"
    arguments = ["dossier", str(bench.base.folder), "--deployment", "D-1", "--control", ROOM, "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert "version 1, 5 references, 0 decoy pairs" in done.output
    assert "2 of them have no picture here" in done.output
    assert out.stat().st_mode & 0o077 == 0
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.output)["version"] == 2
    for wrong in (["--control", "control-9"], ["--deployment", "D-9"]):
        failed = CliRunner().invoke(app, [*arguments, *wrong])
        assert isinstance(failed.exception, BluelampError)


def test_a_revoked_room_gets_nothing(bench: workbench.Workbench) -> None:
    authority.revoke(bench.base, ROOM)
    bench.base = open_base(bench.base.folder)
    with pytest.raises(KeyFileError, match="no such control room"):
        made(bench)
