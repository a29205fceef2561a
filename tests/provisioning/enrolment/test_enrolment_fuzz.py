"""Every parser of what comes from outside, fed damaged input for a bounded time: it answers or refuses in its own
error family, and never in another way. Slow; $BLUELAMP_FUZZ_SECONDS sets the time for each target."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.deployment import files as deployment
from appliance.deployment import place
from appliance.deployment.blue_list import PressLog
from appliance.errors import BluelampError
from appliance.formats import order, performance, recall, watchlist
from appliance.formats.receipt import read
from appliance.trust import admission, audit, keys
from provisioning import policy
from provisioning.enrolment import fields, pictures
from provisioning.enrolment.table import rows
from provisioning.moments import moment
from provisioning.orders import ordering
from provisioning.orders.ordering import recall_of
from tests.support import workbench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
SECONDS = float(os.environ.get("BLUELAMP_FUZZ_SECONDS", "15"))
Target = Callable[[bytes], object]
_TOKENS = (
    b"", b"\0", b"\xff\xfe", b'"', b"{", b"[" * 3000, b"}", b",", b"=1+1", b"\r\n", b"1e999", b"-1", b"NaN", b"null",
    b"true", b"\xf0\x9f\x92\xa1", b"99999999999999999999", b"..", b"/", b";", b"2026-02-30", b"%s", b"A" * 5000,
)  # fmt: skip


def mutated(rng: random.Random, blob: bytes) -> bytes:
    """One to eight small damages: flips, cuts, repeats, tokens put in."""
    out = bytearray(blob)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            out[at:at] = rng.choice(_TOKENS)
        else:
            del out[at:]
    return bytes(out)


def fuzz(seeds: list[bytes], target: Target) -> int:
    """Runs until the time is over; only BluelampError may come out. Returns how many inputs were tried."""
    rng, end, tried = random.Random(20200124), time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        blob = mutated(rng, rng.choice(seeds)) if rng.random() < 0.9 else rng.randbytes(rng.randrange(300))
        try:
            target(blob)
        except BluelampError as error:
            assert str(error).strip()
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} after {tried} inputs, on {blob[:400]!r}") from error
        tried += 1
    return tried


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    made = workbench.build(tmp_path_factory.mktemp("bench"))
    site = made.ordered()
    deployment.arm(site, made.folder, made.packs, workbench.confirmed(), "PC 1234")
    return made


def test_fuzz_watchlist(bench: workbench.Workbench) -> None:
    folder, blob = bench.folder, (bench.root / "van-D-1" / "list.watchlist").read_bytes()
    authorities = folder.roster.authority_keys()

    def target(blob: bytes) -> None:
        watchlist.open_watchlist(
            blob, unit="van-1", keys=folder.sealing, authorities=authorities, models=bench.models, now=bench.now
        )  # fmt: skip

    assert fuzz([blob], target) > 100


def test_fuzz_watchlist_plaintext(bench: workbench.Workbench) -> None:
    """What stands behind seal and signature is parsed with the same care."""
    from appliance.limits import LIMITS
    from appliance.trust import seal

    sealed = seal.take_apart((bench.root / "van-D-1" / "list.watchlist").read_bytes(), LIMITS.watchlist_bytes)
    inside = seal.open_sealed(sealed, bench.folder.sealing)
    assert fuzz([inside], watchlist.parse_plaintext) > 100


def test_fuzz_order(bench: workbench.Workbench) -> None:
    known = bench.folder.roster.authority_keys()
    blob = (bench.root / "van-D-1" / "order.json").read_bytes()
    assert fuzz([blob], lambda b: order.read(b, known, 2)) > 100


def test_fuzz_receipt_and_recall(bench: workbench.Workbench) -> None:
    known = bench.folder.roster.authority_keys()
    stop = recall_of(bench.base, "van-1", "D-1", "a reason")

    def both(blob: bytes) -> None:
        recall.read(blob, known) if len(blob) % 2 else read(blob, known)

    assert fuzz([stop], both) > 100


def test_fuzz_request_and_roster(bench: workbench.Workbench) -> None:
    pinned = keys.pinned(bench.unit)

    def both(blob: bytes) -> None:
        keys.verify_roster(blob, pinned) if b"roster" in blob else admission.read_request(blob)

    seeds = [(bench.unit / "request.json").read_bytes(), (bench.unit / "roster.json").read_bytes()]
    assert fuzz(seeds, both) > 100


def test_fuzz_audit(bench: workbench.Workbench, tmp_path: Path) -> None:
    signers = bench.base.all_signers()
    path = tmp_path / "audit.log"
    (tmp_path / "audit.head").write_bytes(bench.base.audit.path.with_suffix(".head").read_bytes())

    def target(blob: bytes) -> None:
        path.write_bytes(blob)
        audit.verify(path, signers)

    assert fuzz([bench.base.audit.path.read_bytes()], target) > 50


def test_fuzz_lists(tmp_path: Path) -> None:
    """CSV in any state: rows, each sound or with its reasons."""
    path = tmp_path / "list.csv"
    head = ",".join(fields.COLUMNS)
    good = "R-1,missing-at-risk,custody,PACE,because,2025-01-01,Insp A,2099-01-01,a.jpg;b.jpg,Zoë,2001-02-03,no,,"
    text = f'{head}\n{good}\n"R-2","wanted-on-warrant",x,y,"a ""quoted"", cell",2025-01-01,r,2099-01-01,c.jpg,,,,,\n'
    seeds = [text.encode(e) for e in ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le")]
    allowed = policy.Policy(categories=("missing-at-risk", "wanted-on-warrant"))

    def target(blob: bytes) -> None:
        path.write_bytes(blob)
        for row in rows(path)[0]:
            reference, reasons, _ = fields.judge(row.values, allowed, datetime.date(2026, 11, 22))
            assert (reference is None) == bool(reasons)

    assert fuzz(seeds, target) > 100


def test_fuzz_pictures() -> None:
    """Image files of every make, damaged: an upright 8-bit picture, or EnrolmentError."""
    import io

    import PIL.Image

    rng = np.random.default_rng(1)
    small = cv2.resize(rng.integers(0, 255, (12, 12, 3), np.uint8), (48, 40), interpolation=cv2.INTER_CUBIC)
    picture, seeds = PIL.Image.fromarray(small), []
    makes = "JPEG RGB,JPEG CMYK,PNG RGBA,PNG P,PNG I;16,GIF P,TIFF RGB,TIFF F,WEBP RGB,BMP RGB,JPEG2000 RGB,PPM L"
    for make in makes.split(","):
        kind, mode = make.split(" ")
        buffer = io.BytesIO()
        grey = picture.convert("L")
        shown = PIL.Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
        shown.save(buffer, kind)
        seeds.append(buffer.getvalue())

    def target(blob: bytes) -> None:
        image, _ = pictures.decode(blob, "x.jpg")
        assert image.dtype == np.uint8
        assert image.ndim == 3

    assert fuzz(seeds, target) > 100


def test_fuzz_small_parsers(bench: workbench.Workbench, tmp_path: Path) -> None:
    """Positions, reports by group, order details, policies, presses, moments."""
    figures, press = bench.performance(), PressLog(tmp_path / "passes.jsonl")
    toml = tmp_path / "x.toml"

    def target(blob: bytes) -> None:
        place.parse_tpv(blob, 0.0)
        performance.refusal(blob, bench.models, bench.now)
        press.path.write_bytes(blob)
        PressLog(press.path).news()
        toml.write_bytes(blob)
        for reader in (policy.read, ordering.details):
            with_error(reader, toml)
        with_error(lambda text: moment(text, "Europe/London", 0.0), blob.decode("latin-1"))

    seeds = [figures, b'{"class":"TPV","mode":3,"lat":51.5,"lon":-0.1}', ordering.TEMPLATE.encode(),
             policy.DEFAULT.encode(), b"2026-11-22T18:00+01:00", b'{"time":1,"mark":"passed"}\n']  # fmt: skip
    assert fuzz(seeds, target) > 100


def with_error(reader: Callable[..., object], value: object) -> None:
    """Only the project's own errors may come out."""
    try:
        reader(value)
    except BluelampError:
        return
