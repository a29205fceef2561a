"""A deployment comes to the control room: its order by a quorum, its pictures sealed to this room, both or neither."""

from __future__ import annotations

import json
import shutil
import threading
import time
from base64 import b64decode
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from appliance.errors import BluelampError
from appliance.formats.dossier import DossierError
from appliance.trust import admission, audit, keys
from appliance.trust.audit import Audit
from control.cli import app
from control.deployments import dossiers
from control.ledger.ledger import Ledger
from control.records import Deployment
from provisioning.authority import authority
from provisioning.base import open_base
from provisioning.enrolment import references
from provisioning.enrolment.references import StoredImage
from provisioning.orders import dossier as making
from tests.support import workbench

ROOM = "control-1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    """A base, an order that two authorities signed, and three references with synthetic portraits."""
    bench = workbench.build(tmp_path_factory.mktemp("bench"), count=3)
    admission.update_roster(bench.control, (bench.base.folder / "roster.json").read_bytes())
    faces = workbench.portraits()
    with bench.base.store() as store:
        for number in range(3):
            blob = faces[number].read_bytes()
            references.put_image(store, StoredImage(f"R-{number:05d}", str(number), "x.jpg", 80.0, time.time(), blob))
    pairs = bench.root / "decoys"
    pairs.mkdir()
    for name, face in (("a-probe", 4), ("a-reference", 5)):
        shutil.copy(faces[face], pairs / f"{name}.jpg")
    shutil.copy(bench.ordered().order, bench.root / "order.json")
    return bench


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path / "bench")


def made(bench: workbench.Workbench, name: str = "one", room: str = ROOM) -> Path:
    """A dossier of the deployment as it is at the base now."""
    out = bench.root / f"{name}.dossier"
    making.make(bench.base, "D-1", room, out, workbench.built_in().detector, bench.root / "decoys")
    return out


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def add(bench: workbench.Workbench, file: Path, order: Path | None = None) -> Result:
    return command("deployment", "add", order or bench.root / "order.json", file, "--keys", bench.control,
                   "--store", bench.root / "store")  # fmt: skip


def said(result: Result) -> str:
    assert isinstance(result.exception, BluelampError), result.output
    return str(result.exception)


def names(bench: workbench.Workbench) -> set[str]:
    """Whose pictures are in the ledger."""
    with closing(Ledger(bench.root / "store")) as ledger:
        found = {f"R-{n:05d}": ledger.reference("D-1", f"R-{n:05d}") for n in range(3)}
    return {name for name, one in found.items() if one is not None and one.picture is not None}


def test_order_and_pictures_are_taken_in_and_listed(bench: workbench.Workbench) -> None:
    done = add(bench, made(bench))
    assert done.exit_code == 0, done.output
    assert "D-1: dossier version 1 with 3 pictures of 3 references, 1 decoy pairs" in done.output
    assert names(bench) == {"R-00000", "R-00001", "R-00002"}
    with closing(Ledger(bench.root / "store")) as ledger:
        shown = ledger.reference("D-1", "R-00000")
    assert shown is not None
    assert shown.picture is not None
    assert b64decode(shown.picture).startswith(b"\xff\xd8")
    assert (shown.quality, shown.image_date, shown.category) == (80.0, "2025-05-01", "wanted-on-warrant")
    listed = json.loads(command("deployment", "list", "--store", bench.root / "store", "--json").output)
    assert [(d["order"]["deployment"], d["references"]) for d in listed] == [("D-1", 3)]
    folder = keys.load(bench.control)
    acts = audit.verify(bench.root / "store" / "audit.log", [folder.signer.public_key])
    assert any(e.act == "collection" and "dossier v1" in e.detail for e in acts)
    assert command("retention", "verify", "--store", bench.root / "store", "--keys", bench.control).exit_code == 0
    one = dossiers.pool(folder, bench.root / "store", "D-1")
    assert one is not None
    assert (one.version, len(one.decoys)) == (1, 1)


def test_a_later_dossier_replaces_pictures_and_deletes_who_is_no_longer_in_it(bench: workbench.Workbench) -> None:
    add(bench, made(bench))
    with bench.base.store() as store:
        references.erase(store, "R-00001")
    assert "version 2 with 2 pictures" in add(bench, made(bench, "two")).output
    assert names(bench) == {"R-00000", "R-00002"}
    assert "older than version 2" in said(add(bench, bench.root / "one.dossier"))
    assert add(bench, bench.root / "two.dossier").exit_code == 0  # again changes nothing
    assert names(bench) == {"R-00000", "R-00002"}


def test_what_is_not_whole_or_not_for_us_is_refused_before_anything_is_kept(bench: workbench.Workbench) -> None:
    """Altered, another room's, one signature too few, pictures without their order: one line each, and no store."""
    good = made(bench)
    altered = bench.root / "altered.dossier"
    altered.write_bytes(good.read_bytes()[:-300] + b"\0" + good.read_bytes()[-299:])
    assert "dossier refused" in said(add(bench, altered))
    workbench.join(open_base(bench.base.folder), bench.root / "room2", "control", "control-2")
    bench.base = open_base(bench.base.folder)
    assert "made for control room control-2, this is control-1" in said(add(bench, made(bench, "other", "control-2")))
    one = bench.ordered([bench.base.folder], deployment="D-2").order
    assert "1 of the 2 signatures" in said(add(bench, good, one))
    two = bench.ordered(deployment="D-3").order
    assert "of deployment D-1, the order is of D-3" in said(add(bench, good, two))
    assert "not a sealed file" in said(add(bench, bench.root / "order.json"))
    assert not (bench.root / "store" / "ledger.sqlite").exists()
    with pytest.raises(BluelampError, match="there is no ledger here"):
        raise command("deployment", "list", "--store", bench.root / "store").exception or AssertionError


def test_an_order_signed_by_a_revoked_authority_is_refused(bench: workbench.Workbench) -> None:
    file = made(bench)
    authority.revoke(bench.base, "officer")
    admission.update_roster(bench.control, (bench.base.folder / "roster.json").read_bytes())
    assert "revoked" in said(add(bench, file))


def test_a_running_service_is_handed_the_files_and_verifies_them_itself(bench: workbench.Workbench) -> None:
    """The ledger is one process's; what lies in the folder of arrivals is believed no more than a file on a stick."""
    store, folder = bench.root / "store", keys.load(bench.control)
    good = made(bench)
    log = Audit(store / "audit.log", folder.signer)
    with closing(Ledger(store)) as ledger:
        assert dossiers.is_served(store)
        results: list[Result] = []
        asking = threading.Thread(target=lambda: results.append(add(bench, good)))
        asking.start()
        taken: list[Deployment | str] = []
        while asking.is_alive():
            taken += dossiers.take_arrivals(ledger, folder, store, log)
            asking.join(0.05)
        assert [d.order.deployment for d in taken if isinstance(d, Deployment)] == ["D-1"]
        assert "3 pictures" in results[0].output
        place = dossiers.lay_down(
            bench.root / "order.json", good, dossiers.verify(bench.root / "order.json", good, folder, store), store
        )
        (place / "deployment.dossier").write_bytes(b"another file")
        refused = list(dossiers.take_arrivals(ledger, folder, store, log))
        assert "not a sealed file" in str(refused[0])
        assert list(dossiers.take_arrivals(ledger, folder, store, log)) == []
        with pytest.raises(DossierError, match="not a sealed file"):
            dossiers.wait_taken(place, 5)
    assert not dossiers.is_served(store)
    assert not list((store / "arrivals").iterdir())


def test_decoys_that_were_altered_are_named_and_old_ones_go(bench: workbench.Workbench) -> None:
    add(bench, made(bench))
    store, folder = bench.root / "store", keys.load(bench.control)
    assert [p.deployment for p in dossiers.pools(folder, store, time.time())] == ["D-1"]
    path = store / "decoys" / "D-1.dossier"
    blob = path.read_bytes()
    path.write_bytes(blob[:-1] + b"x")
    with pytest.raises(DossierError, match="remove it and take the dossier in again"):
        dossiers.pools(folder, store, time.time())
    path.write_bytes(blob)
    assert dossiers.pools(folder, store, time.time() + 40 * 3600) == []
    assert not path.exists()
