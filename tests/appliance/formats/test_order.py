"""The deployment order: what it refuses to say, who must sign it, and that no byte of it can change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, Key

from appliance.errors import BluelampError, ConfigError, SealError
from appliance.formats import order
from appliance.formats.order import Order, OrderError
from appliance.trust import envelope, keys
from provisioning.authority import authority
from provisioning.base import open_base
from provisioning.orders import ordering
from tests.support import workbench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    return workbench.build(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def signed(shared: workbench.Workbench) -> bytes:
    """An order with the quorum's two signatures."""
    return shared.ordered().order.read_bytes()


@pytest.fixture(scope="module")
def known(shared: workbench.Workbench) -> list[Key]:
    """The authorities a unit trusts."""
    return shared.folder.roster.authority_keys()


def fields(blob: bytes) -> dict[str, Any]:
    """What an order says, as JSON."""
    loaded: dict[str, Any] = json.loads(envelope.parse(blob, order.KIND).payload)
    return loaded


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"greatest_fpir": 0.002}, "less than or equal to 0.001"),
        ({"projected_fpir": 0.0009, "greatest_fpir": 0.0001}, "above the greatest allowed"),
        ({"retention": {"alert_hours": 48}}, "less than or equal to 24"),
        ({"retention": {"confirmed_days": 31}}, "less than or equal to 30"),
        ({"adjudicators": 0}, "greater than or equal to 1"),
        ({"purpose": "because"}, "at least 20"),
        ({"signage": []}, "at least 1"),
        ({"place": {"name": "Here", "polygon": [[51, 0], [51, 1]]}}, "at least 3"),
        ({"place": {"name": "Here", "polygon": [[91, 0], [51, 1], [52, 1]]}}, "not a place"),
        ({"assessments": {"policy_document": "abc", "equality_assessment": "abc"}}, "Field required"),
        ({"entries": 3}, "longer than the 3 entries"),
        ({"not_after": 0}, "ends before it begins"),
        ({"misspelt": 1}, "Extra inputs"),
        ({"footfall": 0}, "greater than or equal to 1"),
    ],
)
def test_no_signature_can_allow_what_the_rules_forbid(signed: bytes, change: dict[str, Any], said: str) -> None:
    """Requirements 11, 12, 13, 15, 17, 25: an order that says so cannot even be written."""
    with pytest.raises(ValidationError, match=said):
        Order.model_validate({**fields(signed), **change})


def test_a_rate_equal_to_its_limit_is_within_it(signed: bytes) -> None:
    """The threshold found for 1 in 1,000 gives that rate back only to rounding: 0.0010000000000000002."""
    equal = {"projected_fpir": 0.001 * (1 + 4e-16), "greatest_fpir": 0.001}
    assert equal["projected_fpir"] > equal["greatest_fpir"]
    Order.model_validate({**fields(signed), **equal})
    with pytest.raises(ValidationError, match="above the greatest allowed"):
        Order.model_validate({**fields(signed), "projected_fpir": 0.0010001, "greatest_fpir": 0.001})


def test_a_quorum_of_different_authorities_is_needed(
    shared: workbench.Workbench, signed: bytes, tmp_path: Path
) -> None:
    """One of two is too few; two are enough; the same officer twice is one."""
    roster = shared.folder.roster
    one = shared.copy(tmp_path).ordered([shared.base.folder], deployment="D-2").order.read_bytes()
    with pytest.raises(OrderError, match="1 of the 2 signatures"):
        order.read(one, roster.authority_keys(), 2)
    with pytest.raises(SealError, match="already signed by this key"):
        ordering.sign(one, keys.signer_of(shared.base.folder))
    both = ordering.sign(one, keys.signer_of(shared.officer))
    assert order.read(both, roster.authority_keys(), 2).deployment == "D-2"
    assert order.read(signed, roster.authority_keys(), 2).deployment == "D-1"


def test_one_signature_written_twice_is_refused(shared: workbench.Workbench, signed: bytes) -> None:
    """Copying a signature in the file does not make two of it."""
    data = json.loads(signed)
    data["signatures"] = [data["signatures"][0], data["signatures"][0]]
    blob = (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()
    with pytest.raises(OrderError):
        order.read(blob, shared.folder.roster.authority_keys(), 2)


def test_a_strangers_signature_voids_the_whole(shared: workbench.Workbench, signed: bytes) -> None:
    """It is not ignored: a document has one form."""
    blob = envelope.add_signature(signed, order.KIND, CryptoSigner.generate_ed25519())
    with pytest.raises(OrderError, match="not trusted here"):
        order.read(blob, shared.folder.roster.authority_keys(), 2)


def test_a_revoked_officers_signature_does_not_count(
    shared: workbench.Workbench, signed: bytes, tmp_path: Path
) -> None:
    bench = shared.copy(tmp_path)
    roster = authority.revoke(bench.base, "officer")
    with pytest.raises(OrderError, match="revoked"):
        order.read(signed, roster.authority_keys(), 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(quorum=st.integers(1, 5), picked=st.sets(st.integers(0, 4)))
def test_quorum_logic(signed: bytes, quorum: int, picked: set[int]) -> None:
    """For any set of signers and any quorum: accepted exactly where at least so many different ones signed."""
    signers = [CryptoSigner.generate_ed25519() for _ in range(5)]
    content = envelope.unverified(signed, order.KIND, Order)
    blob = envelope.encode(Envelope(content.model_dump_json().encode(), envelope.payload_type(order.KIND), {}))
    for i in picked:
        blob = envelope.add_signature(blob, order.KIND, signers[i])
    known = [s.public_key for s in signers]
    if len(picked) >= quorum:
        assert order.read(blob, known, quorum) == content
    else:
        with pytest.raises(OrderError):
            order.read(blob, known, quorum)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_refused(known: list[Key], signed: bytes, data: st.DataObject) -> None:
    """Wherever it is: payload, signatures, key ids, spaces between them."""
    blob = bytearray(signed)
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BluelampError):
        order.read(bytes(blob), known, 2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode)))
def test_junk_is_refused_with_one_line(known: list[Key], junk: bytes) -> None:
    with pytest.raises(OrderError) as refused:
        order.read(junk, known, 1)
    assert "\n" not in str(refused.value)


def test_another_kind_of_document_is_not_an_order(shared: workbench.Workbench) -> None:
    """A pre-flight is signed by the same key; its type is under the signature."""
    with pytest.raises(OrderError, match="choose the right file"):
        order.read(shared.preflight(), shared.folder.roster.authority_keys(), 1)


def test_an_order_reads_as_people_read(shared: workbench.Workbench, signed: bytes) -> None:
    """Who signed, where, when, how many false alerts to expect (requirement 11), which documents."""
    rows = dict(order.shown(signed, shared.folder.roster))
    assert rows["signed by"] == "base, officer"
    assert "among 1000 faces" in rows["false alerts to expect"]
    assert rows["impact assessment"] == "DPIA 2026/17, version 3"
    assert rows["from"].endswith("UTC")


def test_an_order_is_drafted_from_what_was_issued_only(shared: workbench.Workbench, tmp_path: Path) -> None:
    """Nothing issued, another list looked over, a report of other models: no draft."""
    bench = shared.copy(tmp_path)
    looked, figures = bench.preflight(), bench.performance()
    with pytest.raises(BluelampError, match="no list was issued"):
        ordering.draft(bench.base, "D-9", bench.details(), looked, figures)
    bench.issue("D-9")
    with pytest.raises(OrderError, match="another embedder pack"):
        ordering.draft(bench.base, "D-9", bench.details(), looked, bench.performance(embedder="0" * 64))
    workbench.fill(bench.base, bench.models, workbench.vectors(13, seed=4))
    with pytest.raises(OrderError, match="not about the list"):
        ordering.draft(bench.base, "D-9", bench.details(), bench.preflight(), figures)


def test_a_misspelt_detail_is_said(shared: workbench.Workbench, tmp_path: Path) -> None:
    path = tmp_path / "order.toml"
    path.write_text(ordering.TEMPLATE.replace("adjudicators", "ajudicators"))
    with pytest.raises(ConfigError, match="ajudicators"):
        ordering.details(path)


def test_a_signer_is_opened_by_uri_as_securesystemslib_does(shared: workbench.Workbench, tmp_path: Path) -> None:
    """The same way leads to smart cards and cloud keys; here it is a file."""
    bench = shared.copy(tmp_path)
    uri = f"file2:{bench.officer / 'signing.pem'}"
    one = bench.ordered([bench.base.folder], deployment="D-3").order.read_bytes()
    roster = open_base(bench.base.folder).keys.roster
    both = ordering.sign(one, ordering.signer_from(None, uri, roster, "officer"))
    assert order.read(both, roster.authority_keys(), 2)
