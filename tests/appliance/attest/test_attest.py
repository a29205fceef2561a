"""A canary kit is searched for everywhere, the search is known to find, and what it says is signed."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import demo.attest
from appliance.attest import cli as attest_cli
from appliance.attest import control as attest_control
from appliance.attest import kit as attest_kit
from appliance.attest import needles as attest_needles
from appliance.attest import page as attest_page
from appliance.attest import places
from appliance.attest import record as attest_record
from appliance.attest.kit import HELD, KINDS, Canary, Kind, Kit, Needle
from appliance.attest.needles import Target
from appliance.attest.places import Hunt, Tally
from appliance.attest.record import Attestation, AttestError, Control, Done, Surface, short_digest
from appliance.attest.search import Searcher
from appliance.attest.tap import Capture, OpenLine
from appliance.errors import EnrolmentError, SealError
from appliance.recognition import packs
from appliance.records import Models
from appliance.trust import envelope, keys
from demo import rehearsal
from provisioning.lists.canary import Wanted, make
from provisioning.policy import Policy
from tests.support.machines import UNIT, Machines
from tests.support.paths import ROOT

NOISE = random.Random(20200124)


def canary(name: str, *, matched: bool = False, kinds: tuple[Kind, ...] = KINDS) -> Canary:
    """A canary whose needles are noise."""
    needles = (Needle(kind=kind, data=base64.b64encode(NOISE.randbytes(96)).decode()) for kind in kinds)
    return Canary(name=name, role="track", matched=matched, needles=tuple(needles))


@pytest.fixture(scope="module")
def canaries() -> tuple[Canary, ...]:
    """Two faces that match nobody, and one that does."""
    return canary("track 1"), canary("track 2"), canary("track 3", matched=True)


@pytest.fixture(scope="module")
def hunt(canaries: tuple[Canary, ...]) -> Hunt:
    """Ready to search for all of them."""
    return Hunt.of(attest_needles.targets(canaries))


@pytest.fixture(scope="module")
def chosen(hunt: Hunt) -> list[Target]:
    """One needle of each kind in each encoding."""
    return attest_control.sample(hunt.targets)


def test_one_needle_of_each_kind_is_planted_in_each_encoding(chosen: list[Target]) -> None:
    assert {(t.kind, t.encoding) for t in chosen} == {(k, e) for k in KINDS for e in attest_kit.ENCODINGS}


@given(
    needles=st.lists(st.binary(min_size=16, max_size=130), min_size=1, max_size=6, unique=True),
    before=st.integers(0, 400), step=st.integers(1, 300), which=st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_planted_needle_is_found_at_any_offset_and_across_any_chunk_border(
    needles: list[bytes], before: int, step: int, which: int
) -> None:
    """Whatever its length, place and alignment, and however the stream is cut; and it is counted once."""
    varied = [bytes(range(7)) + n for n in needles]
    needle = varied[which % len(varied)]
    blob = bytes([255]) * before + needle + bytes([254]) * 211
    found = Searcher(varied).stream(blob[at : at + step] for at in range(0, len(blob), step))
    wanted = {i: blob.count(n) for i, n in enumerate(varied) if n in blob}
    assert dict(found.counts) == wanted
    assert found.size == len(blob)


@given(st.binary(max_size=600), st.lists(st.integers(0, 590), min_size=1, max_size=4, unique=True))
@settings(max_examples=200, deadline=None)
def test_the_search_finds_exactly_what_a_plain_search_finds(noise: bytes, places_: list[int]) -> None:
    """Needles that overlap, repeat and contain each other, in noise."""
    motif = b"abcdefghijklmnopqrstuvwxyz012345"
    needles = [motif, motif[3:25], motif[8:] + motif[:8], motif + motif[:5]]
    blob = bytearray(noise + motif * 3)
    for place in places_:
        blob[place:place] = needles[place % 4]
    blob_ = bytes(blob)
    wanted = {i: sum(blob_.startswith(n, at) for at in range(len(blob_))) for i, n in enumerate(needles)}
    assert dict(Searcher(needles).piece(blob_).counts) == {i: c for i, c in wanted.items() if c}


@pytest.mark.parametrize("needle", [b"short", bytes(96), b"ab" * 48])
def test_a_needle_that_chance_could_make_is_refused(needle: bytes) -> None:
    with pytest.raises(ValueError, match="a needle of"):
        Searcher([needle])


def test_megabytes_of_noise_hold_no_needle(hunt: Hunt) -> None:
    """The negative control: nothing is found where nothing was planted."""
    assert not hunt.searcher.piece(NOISE.randbytes(8 << 20)).counts
    assert attest_needles.chance(40_000, 10**12) < 1e-5


def test_every_kind_is_found_in_a_file_a_stream_a_process_and_its_core(
    hunt: Hunt, chosen: list[Target], tmp_path: Path
) -> None:
    """The positive control itself: each needle that was planted comes back."""
    since = time.time()
    controls = [attest_control.in_file(hunt, chosen, tmp_path / "file", since), attest_control.in_stream(hunt, chosen)]
    controls += attest_control.in_processes(hunt, chosen, tmp_path / "process", since)
    assert [c.found for c in controls[:3]] == [len(chosen)] * 3
    assert controls[3].good
    assert controls[3].planted == len(chosen) or "not done" in controls[3].note
    assert list(tmp_path.iterdir()) == [], "what was planted is gone again"


def test_every_kind_is_found_in_captured_packets(hunt: Hunt, chosen: list[Target], tmp_path: Path) -> None:
    line = OpenLine()
    try:
        capture = Capture(tmp_path / "packets.pcapng", [line.port])
    except AttestError as error:
        pytest.skip(str(error))
    blob = attest_control.planted(chosen)
    line.send(blob)
    capture.wait_for(len(blob))
    capture.stop()
    line.close()
    with capture.path.open("rb") as file:
        assert attest_control.in_capture(hunt, chosen, hunt.searcher.file(file)).found == len(chosen)


def test_only_files_that_changed_are_searched_and_the_kit_is_left_out(hunt: Hunt, tmp_path: Path) -> None:
    """A file that was there before is not the run's; one that the run renamed or wrote is."""
    needle = hunt.targets[0].blob
    (tmp_path / "kit").mkdir()
    for name in ("old", "renamed", "kit/kit.json"):
        (tmp_path / name).write_bytes(needle)
    written = (tmp_path / "kit" / "kit.json").stat().st_ctime
    time.sleep(0.1)  # so that the file system's clock tells before from after
    (tmp_path / "renamed").rename(tmp_path / "innocent.txt")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "new").write_bytes(b"x" * 5 + needle)
    tally = Tally()
    places.search_disk(hunt, {"here": tmp_path}, written + places.SLACK + 0.05, [tmp_path / "kit"], tally)
    assert sorted(piece for piece, _ in tally.found) == ["here: deep/er/new", "here: innocent.txt"]


def test_a_file_that_was_deleted_but_is_still_open_is_searched(hunt: Hunt, tmp_path: Path) -> None:
    code = (
        "import os, sys\nfile = open(sys.argv[1], 'w+b', 0)\nfile.write(bytes.fromhex(sys.argv[2]))\n"
        "os.unlink(sys.argv[1])\nprint('there', flush=True)\nsys.stdin.read()"
    )
    # Reversed on the command line: it must be found in the file, not among the arguments.
    code = code.replace("bytes.fromhex(sys.argv[2])", "bytes.fromhex(sys.argv[2])[::-1]")
    command = [sys.executable, "-c", code, str(tmp_path / "gone"), hunt.targets[0].blob[::-1].hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tally = Tally()
        places.search_memory(hunt, process.pid, "it", tally)
        process.communicate()
    assert "it: open file without a name" in [piece for piece, _ in tally.found]


def attestation(**changes: object) -> Attestation:
    """An attestation where all is well."""
    fields: dict[str, object] = {
        "unit": UNIT, "deployment": "CANARY-1", "started": 1.0, "ended": 2.0, "software": "0", "kit": "0" * 64,
        "models": Models(detector="0" * 64, embedder="1" * 64), "clip": "2" * 64, "needles": 9, "encodings": ("raw",),
        "chance": 1e-9, "done": Done(frames=1, tracks=3, alerts=1, matched=1, unmatched=2, references=0),
        "live": HELD, "controls": (Control(place="a file", planted=4, found=4),), "not_searched": ("the <moon>",),
        "surfaces": (surface("files", "hold nothing"),),
    }  # fmt: skip
    return Attestation.model_validate({**fields, **changes})


def surface(name: str, must: str, *matched: bool) -> Surface:
    """A searched place with findings of tracks that matched or did not."""
    finding = {"kind": "jpeg", "encoding": "raw", "role": "track", "canaries": 1, "occurrences": 1}
    found = [{**finding, "matched": m} for m in matched]
    return Surface.model_validate({"name": name, "words": "", "must": must, "searched": True, "findings": found})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"controls": (Control(place="a file", planted=4, found=3),)}, "positive control: 1 of 4 not found"),
        ({"live": ("chip bgr",)}, "other bytes occur here"),
        ({"surfaces": (surface("files", "hold nothing", True),)}, "files: holds what it must not"),
        ({"surfaces": (surface("control room", "hold matches only", True, False),)}, "control room: holds"),
        ({"surfaces": (surface("control room", "hold matches only"),)}, "though expected"),
        ({"done": Done(frames=1, tracks=3, alerts=0, matched=0, unmatched=3, references=0)}, "nothing was sent"),
    ],
)
def test_an_attestation_fails_where_anything_is_found_or_the_search_is_not_known_to_work(
    changes: dict[str, object], words: str
) -> None:
    record = attestation(**changes)
    assert not record.passed
    assert words in " ".join(record.faults)
    with pytest.raises(AttestError, match="does not show"):
        attest_cli.judge(record)
    assert "did not pass" in attest_page.page(record, b"x")


def test_what_is_only_told_is_told_and_fails_nothing() -> None:
    """Copies in vision's own freed memory are a finding about memory: counted, on the page, no leak."""
    record = attestation(surfaces=(surface("vision afterwards", "be told", False),))
    assert record.passed
    assert "copies were left" in attest_page.page(record, b"x")
    assert "nothing was left" in attest_page.page(
        attestation(surfaces=(surface("vision afterwards", "be told"),)), b"x"
    )


def test_an_attestation_verifies_by_the_unit_it_names_and_no_other(machines: Machines, tmp_path: Path) -> None:
    folder = machines.keys(UNIT)
    blob = attest_cli.write(attestation(), folder, tmp_path / "attestation.json")
    roster = folder.roster
    assert attest_record.read(blob, roster).passed
    assert short_digest(blob) in (tmp_path / "attestation.html").read_text()
    other = envelope.sign(attestation(unit="van-2"), attest_record.KIND, folder.signer)
    with pytest.raises(SealError, match="not trusted here"):
        attest_record.read(other, roster)
    with pytest.raises(SealError, match="not on this roster"):
        attest_record.read(envelope.sign(attestation(unit="van-x"), attest_record.KIND, folder.signer), roster)
    with pytest.raises(SealError):
        attest_record.read(blob.replace(b'"sig": "', b'"sig": "0'), roster)


def test_verify_names_the_authority_unless_its_fingerprint_was_given(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = machines.folders[UNIT]
    path, roster = tmp_path / "attestation.json", folder / "roster.json"
    attest_cli.write(attestation(), machines.keys(UNIT), path)
    attest_cli.verify(path, roster)
    printed = " ".join(capsys.readouterr().out.split())
    _, fingerprints = attest_cli.trusted_roster(roster.read_bytes(), None)
    assert fingerprints[0] in printed
    assert "the unit kept nothing" in printed
    attest_cli.verify(path, roster, fingerprints[0])
    with pytest.raises(SealError, match="another authority"):
        attest_cli.verify(path, roster, "00000 " * 6)


def test_the_attestation_among_the_documents_is_whole_and_its_page_is_its_own() -> None:
    folder = ROOT / "docs" / "attestation"
    roster, _ = attest_cli.trusted_roster((folder / "roster.json").read_bytes(), None)
    blob = (folder / "attestation.json").read_bytes()
    assert attest_record.read(blob, roster).faults == ()
    page = (folder / "attestation.html").read_text(encoding="utf-8")
    assert short_digest(blob) in page
    assert "<script" not in page
    assert "http" not in page, "it needs nothing from elsewhere"


def test_the_digest_for_the_sign_is_four_groups_that_cannot_be_misread() -> None:
    digest = short_digest(b"an attestation")
    assert [len(group) for group in digest.split("-")] == [4, 4, 4, 4]
    assert not set(digest) & set("ILOU"), "Crockford's alphabet leaves out what looks alike"


def test_a_kit_is_refused_for_another_unit_after_its_window_and_where_a_file_changed(
    machines: Machines, canaries: tuple[Canary, ...], tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    (tmp_path / "watchlist.blw").write_bytes(b"list")
    digests = [attest_kit.digest_of(tmp_path / name) for name in ("clip.mp4", "watchlist.blw")]
    kit = Kit(
        unit=UNIT, deployment="CANARY-1", made=0, not_after=100, clip="clip.mp4", clip_sha256=digests[0],
        watchlist_sha256=digests[1], models=Models(detector="0" * 64, embedder="1" * 64),
        settings=attest_kit.Settings(), canaries=canaries,
    )  # fmt: skip
    signer = machines.keys(UNIT).signer
    (tmp_path / "kit.json").write_bytes(envelope.sign(kit, attest_kit.KIND, signer))
    with pytest.raises(SealError, match="not trusted here"):
        attest_kit.open_kit(tmp_path, machines.keys(UNIT), 1)
    base = keys.signer_of(machines.folders["base"])
    (tmp_path / "kit.json").write_bytes(envelope.sign(kit, attest_kit.KIND, base))
    assert attest_kit.open_kit(tmp_path, machines.keys(UNIT), 1).record == kit
    with pytest.raises(SealError, match="make one for this unit"):
        attest_kit.open_kit(tmp_path, machines.keys("van-2"), 1)
    with pytest.raises(SealError, match="make a new kit"):
        attest_kit.open_kit(tmp_path, machines.keys(UNIT), 100)
    (tmp_path / "clip.mp4").write_bytes(b"another")
    with pytest.raises(SealError, match="not the file that the base signed"):
        attest_kit.open_kit(tmp_path, machines.keys(UNIT), 1)


def test_needles_of_a_face_are_long_and_varied_enough() -> None:
    """Rows of a flat wall are no needles; rows of a face are."""
    grey = np.full((60, 60, 3), 128, np.uint8)
    assert list(attest_needles._of_pixels("chip", grey)) == []
    noisy = np.random.default_rng(1).integers(0, 255, (60, 60, 3), np.uint8)
    found = list(attest_needles._of_pixels("chip", noisy))
    assert {n.kind for n in found} == {"chip bgr", "chip rgb"}, "60 grey bytes are too few to be beyond chance"
    assert all(len(n.blob) >= attest_needles.SHORTEST for n in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clip": "gone.mp4"}, "no such clip"),
        ({"portraits": "nobody"}, "neither references.csv nor images"),
        ({}, "already holds a kit"),
    ],
)
def test_a_kit_that_cannot_be_made_says_why(tmp_path: Path, change: dict[str, str], words: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    (tmp_path / "nobody").mkdir()
    paths = {"clip": tmp_path / "clip.mp4", "portraits": tmp_path / "nobody"}
    paths |= {name: tmp_path / value for name, value in change.items()}
    wanted = Wanted(**paths, detector=packs.load("lamp-detector"), embedder=packs.load("lamp-embedder"))
    if not change:
        (tmp_path / "kit.json").write_text("{}")
    base = SimpleNamespace(policy=Policy(categories=("wanted-on-warrant",)))
    with pytest.raises(EnrolmentError, match=words):
        make(base, UNIT, wanted, tmp_path)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demos_unit_keeps_nothing_and_a_page_says_so(mosquitto: None, tmp_path: Path) -> None:
    """The whole of it: kit, processes, broker, control room, crash, search, signature.

    Then the same unit once more with something left lying about, which must be found.
    """
    if os.geteuid() != 0:
        pytest.skip("reading another process's memory needs root")
    prepared = rehearsal.prepare(tmp_path / "site")
    kit = demo.attest.make_kit(prepared, tmp_path / "kit")
    assert any(c.matched for c in kit.tracks)
    assert sum(not c.matched for c in kit.tracks) > 10
    record = demo.attest.run(prepared, tmp_path / "kit", lambda step, words: None)
    assert record.faults == ()
    places_ = {s.name: s for s in record.surfaces}
    assert {s for s in places_ if not places_[s].searched} <= {"journal", "network"}
    assert places_["control room"].findings, "the matched faces are where they belong"
    assert places_["files"].pieces > 0
    assert places_["core files"].pieces == 0
    blob = attest_cli.write(record, keys.load(prepared.unit_keys), tmp_path / "attestation.json")
    assert attest_record.read(blob, keys.load_roster(prepared.unit_keys)) == record
    _leaks(prepared, kit, tmp_path)


def _leaks(prepared: rehearsal.Rehearsal, kit: Kit, folder: Path) -> None:
    stranger = next(c for c in kit.tracks if not c.matched)
    needle = next(n for n in stranger.needles if n.kind == "chip bgr")
    left = folder / "left"
    left.mkdir()

    def leave(step: int, words: str) -> None:
        if step == 5:
            (left / "thumbnail.tmp").write_bytes(b"\1" * 7 + needle.blob)

    record = demo.attest.run(prepared, folder / "kit", leave, more=[left])
    assert record.faults == ("files: holds what it must not",)
    found = [f for s in record.surfaces if s.name == "files" for f in s.findings]
    assert [(f.kind, f.matched, f.canaries) for f in found if f.kind == "chip bgr"] == [("chip bgr", False, 1)]
    assert any("thumbnail.tmp" in where for f in found for where in f.where)
