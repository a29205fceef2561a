"""What other systems are told: schemas that are the records, a document that names every topic, a working example."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from appliance.formats.recall import Recall
from appliance.limits import LIMITS
from appliance.records import CourierState
from appliance.trust import seal
from control.broker.broker import Broker
from control.cli import app
from control.outside import schemas
from control.receive import subscriber
from tests.support.controlroom import order
from tests.support.couriers import publish
from tests.support.machines import CONTROL, UNIT, AlertMaker, Machines
from tests.support.paths import ROOT
from tests.support.receipts import receipt

DOCS = ROOT / "docs"


def valid(name: str, value: Any) -> bool:
    """Whether a schema of docs/schemas accepts a value."""
    schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    return bool(validator.is_valid(value))


def test_the_schemas_are_what_the_code_says(tmp_path: Path) -> None:
    """Where this fails, run: bluelamp-control schemas docs/schemas"""
    here = {path.name: json.loads(path.read_text()) for path in (DOCS / "schemas").glob("*.json")}
    assert here == {f"{name}.json": schemas.schema(name) for name in schemas.RECORDS}
    assert f"{len(here)} schemas" in CliRunner().invoke(app, ["schemas", str(tmp_path)]).output
    assert {path.name for path in tmp_path.iterdir()} == set(here)


def test_real_records_are_valid_and_a_field_too_many_is_not(maker: AlertMaker, machines: Machines) -> None:
    room = machines.keys(CONTROL)
    for name, blob in (("alert", maker.alert(size=400)), ("health", maker.health())):
        sealed = seal.take_apart(blob, LIMITS.envelope_bytes)
        opened = json.loads(seal.open_sealed(sealed, room.sealing))
        assert valid(name, opened)
        assert not valid(name, {**opened, "ethnicity": "x"})
        assert valid("header", json.loads(sealed.header_bytes))
    others = {
        "state": CourierState(unit=UNIT, state="online", time=1.0, software="1"),
        "recall": Recall(unit=UNIT, deployment="D-1", made=1.0, reason="a test"),
        "order": order(time.time()),
        "roster": room.roster,
    }
    for name, record in others.items():
        assert valid(name, json.loads(record.model_dump_json())), name
        assert not valid(name, {})
    signed = json.loads(receipt(machines))
    assert valid("receipt", json.loads(base64.b64decode(signed["payload"])))


def test_the_document_names_every_topic_and_points_at_schemas_that_exist() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the AsyncAPI document")
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    ours = [channel for channel in document["channels"].values() if "servers" not in channel]
    addresses = {channel["address"] for channel in ours}
    kinds = {*subscriber._KINDS, "recall"}
    assert addresses == {f"bluelamp/v1/{{unit}}/{kind}" for kind in kinds}
    references = set(_references(document))
    local = {r.removeprefix("./") for r in references if r.startswith("./")}
    assert local == {f"schemas/{name}.json" for name in ("header", "alert", "health", "state", "receipt", "recall")}
    assert all((DOCS / name).exists() for name in local)
    for reference in references - {f"./{name}" for name in local}:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    assert {op["channel"]["$ref"].rpartition("/")[2] for op in document["operations"].values()} == set(
        document["channels"]
    )


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []


def test_the_example_subscriber_runs_as_it_stands(machines: Machines, broker: Broker, maker: AlertMaker) -> None:
    example = DOCS / "subscriber.py"
    assert len(example.read_text().splitlines()) <= 36
    command = [sys.executable, str(example), str(machines.folders[CONTROL]), str(broker.address)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=DOCS.parent,
        env={"PYTHONPATH": str(DOCS.parent), "PATH": ""},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert "subscribed" in process.stderr.readline()
        publish(machines, broker, UNIT, b"rubbish")
        publish(machines, broker, UNIT, maker.alert(size=500))
        alert = json.loads(process.stdout.readline())
        assert "refused: not a sealed container" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()
    assert (alert["unit"], alert["reference_identifier"]) == (UNIT, "R-1")
    assert "chip" not in alert
