"""How machines come to belong: requests, admissions, rosters, certificates, revocation, rotation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import BluelampError, KeyFileError, SealError
from appliance.storage.files import read_record
from appliance.trust import admission, envelope, keys
from provisioning.authority import authority
from provisioning.base import open_base
from tests.support import workbench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    return workbench.build(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(shared: workbench.Workbench, tmp_path: Path) -> workbench.Workbench:
    return shared.copy(tmp_path)


def test_private_keys_never_leave_the_machine(tmp_path: Path) -> None:
    """The request holds no byte of a private key."""
    request = admission.make_request(tmp_path, "unit", "van-1", sealing_keys=1).read_bytes()
    private = [p.read_bytes() for p in (tmp_path / "signing.pem", tmp_path / "tls.key", *tmp_path.glob("sealing/*"))]
    for pem in private:
        middle = pem.splitlines()[1]
        assert middle not in request
    assert b"PRIVATE" not in request


def test_certificate_names_the_unit_and_is_by_the_ca(bench: workbench.Workbench) -> None:
    """The broker gives a unit its topics by this common name."""
    certificate = x509.load_pem_x509_certificate((bench.unit / "tls.crt").read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((bench.base.folder / "ca.crt").read_bytes()))
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "van-1"


def test_an_admitted_unit_knows_authorities_quorum_and_control_room(bench: workbench.Workbench) -> None:
    roster = bench.folder.roster
    assert {a.name for a in roster.authorities} == {"base", "officer"}
    assert roster.quorum == 2
    assert bench.folder.control()[1] == "control-1"


def test_a_request_cannot_present_another_machines_key(bench: workbench.Workbench, tmp_path: Path) -> None:
    """The request is signed by the key it presents: copying somebody's public identity is not enough."""
    mine = admission.make_request(tmp_path / "thief", "unit", "thief", sealing_keys=1)
    stolen = read_record(bench.unit / "identity.json", keys.Identity)
    request = admission.read_request(mine.read_bytes()).model_copy(update={"identity": stolen})
    blob = envelope.sign(request, admission.REQUEST, keys.signer_of(tmp_path / "thief"))
    with pytest.raises(SealError, match="not trusted"):
        authority.admit(bench.base, blob)


def test_a_name_belongs_to_one_key_until_it_is_replaced(bench: workbench.Workbench, tmp_path: Path) -> None:
    """A second machine of the same name is refused; --replace revokes the first."""
    before = bench.folder.identity.signing_key().keyid
    request = admission.make_request(tmp_path / "new", "unit", "van-1", sealing_keys=1).read_bytes()
    with pytest.raises(KeyFileError, match="belongs to another key"):
        authority.admit(bench.base, request)
    authority.admit(bench.base, request, replace=True)
    roster = bench.reopen().keys.roster
    assert before in roster.revoked
    assert roster.unit("van-1") != bench.folder.identity


def test_admission_of_another_machine_is_not_installed(bench: workbench.Workbench, tmp_path: Path) -> None:
    answers = {}
    for name in ("van-2", "van-3"):
        request = admission.make_request(tmp_path / name, "unit", name, sealing_keys=1)
        answers[name] = authority.admit(bench.reopen(), request.read_bytes())
    with pytest.raises(KeyFileError, match="for van-3, these are the keys of van-2"):
        admission.admit(tmp_path / "van-2", answers["van-3"])
    assert not (tmp_path / "van-2" / "roster.json").exists()


def test_the_authoritys_fingerprint_is_compared(bench: workbench.Workbench, tmp_path: Path) -> None:
    """Digits read aloud with or without spaces are the same; one wrong digit is refused."""
    request = admission.make_request(tmp_path / "van-2", "unit", "van-2", sealing_keys=1)
    answer = authority.admit(bench.base, request.read_bytes())
    right = keys.fingerprint(bench.base.keys.identity.signing_key().keyid)
    wrong = ("1" if right[0] != "1" else "2") + right[1:]
    with pytest.raises(KeyFileError, match="do not use this file"):
        admission.admit(tmp_path / "van-2", answer, wrong)
    admission.admit(tmp_path / "van-2", answer, right.replace(" ", ""))


def test_an_older_roster_is_refused(bench: workbench.Workbench) -> None:
    old = (bench.unit / "roster.json").read_bytes()
    authority.revoke(bench.base, "control-1")
    admission.update_roster(bench.unit, (bench.base.folder / "roster.json").read_bytes())
    with pytest.raises(SealError, match="older than version"):
        admission.update_roster(bench.unit, old)


def test_a_foreign_base_cannot_send_a_roster(bench: workbench.Workbench, tmp_path: Path) -> None:
    foreign = authority.init(tmp_path / "foreign")
    with pytest.raises(SealError, match="not signed by a pinned authority"):
        admission.update_roster(bench.unit, (foreign.folder / "roster.json").read_bytes())


def test_a_revoked_certificate_is_on_the_brokers_list(bench: workbench.Workbench) -> None:
    serial = x509.load_pem_x509_certificate((bench.unit / "tls.crt").read_bytes()).serial_number
    authority.revoke(bench.base, "van-1")
    crl = x509.load_pem_x509_crl((bench.base.folder / "crl.pem").read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None
    authority.broker_certificate(bench.reopen(), ["localhost", "127.0.0.1"], bench.root / "broker")
    assert (bench.root / "broker" / "crl.pem").read_bytes() == (bench.base.folder / "crl.pem").read_bytes()


def test_a_rotated_authority_is_followed(bench: workbench.Workbench) -> None:
    """The unit takes the roster of the change, then trusts the new key and no more the old one."""
    old = bench.base.keys.identity.signing_key().keyid
    rotated = authority.rotate(bench.base)
    admission.update_roster(bench.unit, (rotated.folder / "roster.json").read_bytes())
    trusted = {k.keyid for k in bench.folder.roster.authority_keys()}
    assert rotated.keys.identity.signing_key().keyid in trusted
    assert old not in trusted
    authority.revoke(open_base(rotated.folder), "control-1")
    admission.update_roster(bench.unit, (rotated.folder / "roster.json").read_bytes())


def test_the_base_still_believes_what_it_signed_before_a_rotation(bench: workbench.Workbench) -> None:
    from appliance.trust import audit
    from provisioning.lists import issue

    bench.issue()
    rotated = authority.rotate(bench.base)
    assert len(issue.records(rotated)) == 1
    assert audit.verify(rotated.audit.path, rotated.all_signers())


def test_a_base_is_not_made_over_another(bench: workbench.Workbench) -> None:
    with pytest.raises(KeyFileError, match="already holds keys"):
        authority.init(bench.base.folder)


def test_quorum_needs_that_many_authorities(bench: workbench.Workbench) -> None:
    with pytest.raises(KeyFileError, match="admit more authorities"):
        authority.set_quorum(bench.base, 3)


def test_asking_again_tops_up_destroyed_deployment_keys(bench: workbench.Workbench) -> None:
    """After deployments ended, the unit asks again: the same identity with fresh sealing keys in place of the gone."""
    before = bench.folder.identity
    (bench.unit / "sealing" / f"{before.sealing[0].id}.pem").unlink()
    request = admission.make_request(bench.unit, "unit", "van-1", sealing_keys=4)
    admission.admit(bench.unit, authority.admit(bench.base, request.read_bytes()))
    after = bench.folder.identity
    assert after.signing == before.signing
    assert len(after.sealing) == 4
    assert before.sealing[0] not in after.sealing
    assert bench.folder.roster.unit("van-1") == after


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_request_is_refused(shared: workbench.Workbench, data: st.DataObject) -> None:
    blob = bytearray((shared.unit / "request.json").read_bytes())
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BluelampError):
        admission.read_request(bytes(blob))


def test_unknown_fields_in_a_request_are_refused(bench: workbench.Workbench) -> None:
    """Even well signed: a record has the fields it has."""
    from securesystemslib.dsse import Envelope

    payload = json.loads(envelope.parse((bench.unit / "request.json").read_bytes(), admission.REQUEST).payload)
    forged = Envelope(json.dumps({**payload, "extra": 1}).encode(), envelope.payload_type(admission.REQUEST), {})
    forged.sign(keys.signer_of(bench.unit))
    with pytest.raises(SealError, match="malformed"):
        admission.read_request(envelope.encode(forged))
