"""The end of a deployment, and the proof of it: keys destroyed, files gone, a receipt the base believes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from appliance.deployment import files as deployment
from appliance.deployment.site import Site, read_armed
from appliance.errors import BluelampError, KeyFileError, SealError, WatchlistError
from appliance.formats.order import OrderError
from appliance.formats.receipt import KIND, Receipt, read
from appliance.keeper import erasure
from appliance.keeper.finish import finish
from appliance.limits import LIMITS
from appliance.trust import audit, envelope, keys, seal
from provisioning.orders import receipts
from tests.support import workbench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    site = bench.ordered()
    deployment.arm(site, bench.folder, bench.packs, workbench.confirmed(), "PC 1234")
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


@pytest.fixture
def site(bench: workbench.Workbench) -> Site:
    return bench.site(bench.root / "van-D-1")


def test_no_copy_of_the_list_opens_after_the_end(bench: workbench.Workbench, site: Site) -> None:
    """Crypto-erase: somebody kept the file; with the unit's whole folder it opens before the end and never after."""
    kept = site.watchlist.read_bytes()
    assert deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())
    finish(site, bench.folder, "window-ended")
    assert not site.watchlist.exists()
    site.watchlist.write_bytes(kept)
    with pytest.raises(WatchlistError, match="its key was destroyed"):
        deployment.open_list(site.watchlist, bench.folder, bench.models, time.time())


def test_other_deployments_keys_stay(bench: workbench.Workbench, site: Site) -> None:
    before = set(bench.folder.sealing)
    receipt, _ = finish(site, bench.folder, "disarmed")
    assert before - set(bench.folder.sealing) == set(receipt.keys)
    assert len(receipt.keys) == 1


def test_the_receipt_says_what_was_destroyed(bench: workbench.Workbench, site: Site) -> None:
    """Digests and counts, nobody's name or template."""
    issued = bench.base.folder / "issued"
    digest = hashlib.sha256(site.watchlist.read_bytes()).hexdigest()
    receipt, _ = finish(site, bench.folder, "window-ended", {"faces": 812, "alerts": 3})
    assert receipt.files[0].sha256 == receipt.watchlist == digest
    assert (receipt.entries, receipt.counts) == (12, {"faces": 812, "alerts": 3})
    assert issued.exists()


def test_the_control_room_opens_the_sealed_receipt(bench: workbench.Workbench, site: Site) -> None:
    """What it opens to is the signed document, which it may hand on to the base."""
    receipt, sealed = finish(site, bench.folder, "disarmed")
    control = keys.load(bench.control)
    container = seal.take_apart(sealed, LIMITS.envelope_bytes)
    seal.verify(container, [bench.folder.signer.public_key])
    assert read(seal.open_sealed(container, control.sealing), [bench.folder.signer.public_key]) == receipt


def test_a_second_end_finds_nothing_armed(bench: workbench.Workbench, site: Site) -> None:
    finish(site, bench.folder, "disarmed")
    with pytest.raises(OrderError, match="not armed"):
        finish(site, bench.folder, "disarmed")


@pytest.mark.parametrize("step", ["_remove", "sealed_receipt"])
def test_a_cut_off_end_is_finished_by_the_next(
    bench: workbench.Workbench, site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Power fails after the key, or after the log: the key is gone at once, and a second run makes the receipt."""

    def fail(*_: object) -> None:
        raise OSError("power")

    with monkeypatch.context() as patch:
        patch.setattr(erasure, step, fail)
        with pytest.raises(OSError, match="power"):
            finish(site, bench.folder, "window-ended")
    record = read_armed(site, bench.folder)
    assert record.sealing_key not in bench.folder.sealing
    receipt, _ = finish(site, bench.folder, "window-ended")
    assert receipt.keys == (record.sealing_key,)


def received(bench: workbench.Workbench, site: Site) -> Path:
    """The deployment ended; its receipt lies here."""
    finish(site, bench.folder, "window-ended")
    return site.state / "receipts" / "D-1.json"


def states(bench: workbench.Workbench, now: float) -> dict[str, str]:
    return {v.deployment: v.state for v in receipts.overview(bench.base, now)}


def test_the_base_shows_what_is_proven_gone_and_what_is_overdue(bench: workbench.Workbench, site: Site) -> None:
    """Requirement 4: running, then overdue a day after the window, then gone with the receipt."""
    assert states(bench, bench.now) == {"D-1": "running"}
    assert states(bench, bench.now + 7200 + 25 * 3600) == {"D-1": "overdue"}
    receipts.take_in(bench.base, received(bench, site))
    assert states(bench, bench.now + 7200 + 25 * 3600) == {"D-1": "gone"}


def test_every_version_of_a_deployment_is_gone_with_its_key(bench: workbench.Workbench, site: Site) -> None:
    """Later versions were sealed to the same key."""
    second = bench.issue("D-1", bench.root / "second.watchlist")
    receipts.take_in(bench.base, received(bench, site))
    verdict = receipts.overview(bench.base)[0]
    assert (second.version, verdict.versions, verdict.state) == (2, 2, "gone")


def test_two_deployments_never_share_a_key(bench: workbench.Workbench) -> None:
    issued = [bench.issue(f"E-{i}", bench.root / f"{i}.watchlist") for i in range(3)]
    assert len({i.sealing_key for i in issued}) == 3
    with pytest.raises(KeyFileError, match="all its 4 deployment keys are used"):
        bench.issue("E-9", bench.root / "9.watchlist")


def test_a_receipt_by_anybody_else_is_refused(bench: workbench.Workbench, site: Site) -> None:
    """Only the unit itself can say what it destroyed: not another unit, not the control room, not the base."""
    path = received(bench, site)
    content = envelope.unverified(path.read_bytes(), KIND, Receipt)
    for signer in (keys.signer_of(bench.control), bench.base.keys.signer):
        path.write_bytes(envelope.sign(content, KIND, signer))
        with pytest.raises(SealError, match="not trusted here"):
            receipts.take_in(bench.base, path)


def test_a_receipt_of_another_key_proves_nothing(bench: workbench.Workbench, site: Site) -> None:
    path = received(bench, site)
    content = envelope.unverified(path.read_bytes(), KIND, Receipt)
    other = content.model_copy(update={"keys": ("0" * 64,)})
    path.write_bytes(envelope.sign(other, KIND, bench.folder.signer))
    receipts.take_in(bench.base, path)
    verdict = receipts.overview(bench.base)[0]
    assert verdict.state == "running"
    assert "does not name the key" in verdict.reason


def test_a_receipt_for_what_was_never_issued_is_refused(bench: workbench.Workbench, site: Site) -> None:
    path = received(bench, site)
    content = envelope.unverified(path.read_bytes(), KIND, Receipt)
    other = content.model_copy(update={"deployment": "X-1"})
    path.write_bytes(envelope.sign(other, KIND, bench.folder.signer))
    with pytest.raises(SealError, match="did not issue"):
        receipts.take_in(bench.base, path)


def test_a_changed_receipt_is_refused(bench: workbench.Workbench, site: Site) -> None:
    path = received(bench, site)
    blob = bytearray(path.read_bytes())
    for place in range(5, len(blob), len(blob) // 40):
        changed = bytearray(blob)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(BluelampError):
            receipts.take_in(bench.base, path)


def test_the_units_log_is_anchored_by_its_receipts(bench: workbench.Workbench, site: Site) -> None:
    """A log that is cut and re-headed consistently is still found out: the receipt remembers where it stood."""
    receipts.take_in(bench.base, received(bench, site))
    log, signer = site.state / "audit.log", [bench.folder.signer.public_key]
    anchors = receipts.anchors(bench.base, "van-1")
    assert len(audit.verify(log, signer, anchors)) == 2
    first = log.read_bytes().splitlines(keepends=True)[0]
    log.write_bytes(first)
    head = audit.Anchor(sequence=1, digest=hashlib.sha256(first[:-1]).hexdigest())
    log.with_suffix(".head").write_text(head.model_dump_json())
    assert len(audit.verify(log, signer)) == 1
    with pytest.raises(SealError, match="was cut after line 1"):
        audit.verify(log, signer, anchors)
