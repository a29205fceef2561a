"""JSON Schemas of every record that travels, written from the records themselves: `bluelamp-control schemas FOLDER`.

docs/schemas/ holds them for readers in other languages; a test asserts that they are what the code says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from appliance.formats import dossier, watchlist
from appliance.formats.order import Order
from appliance.formats.preflight import Preflight
from appliance.formats.recall import Recall
from appliance.formats.receipt import Receipt
from appliance.records import Alert, CourierState, Header, Health, Record
from appliance.storage.files import write_public
from appliance.trust.admission import Admission, Request
from appliance.trust.keys import Roster

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RECORDS: dict[str, tuple[type[Record], str]] = {
    "header": (Header, "what anyone may read on a sealed container"),
    "alert": (Alert, "in a sealed container, on bluelamp/v1/{unit}/alert"),
    "health": (Health, "in a sealed container, on bluelamp/v1/{unit}/health"),
    "state": (CourierState, "plain, retained, on bluelamp/v1/{unit}/state"),
    "receipt": (Receipt, "payload of a DSSE document, itself in a sealed container, on bluelamp/v1/{unit}/receipt"),
    "recall": (Recall, "payload of a DSSE document, retained, on bluelamp/v1/{unit}/recall"),
    "order": (Order, "payload of a DSSE document, a file"),
    "roster": (Roster, "payload of a DSSE document, a file"),
    "request": (Request, "payload of a DSSE document, a file"),
    "admission": (Admission, "payload of a DSSE document, a file"),
    "preflight": (Preflight, "payload of a DSSE document, a file"),
    "watchlist-manifest": (watchlist.Manifest, "in a sealed container, a file; templates follow it"),
    "dossier-manifest": (dossier.Manifest, "in a sealed container, a file; pictures follow it"),
}


def schema(name: str) -> dict[str, Any]:
    """The schema of one record."""
    record, where = RECORDS[name]
    made = record.model_json_schema()
    return {"$schema": DIALECT, "$id": f"urn:bluelamp:v1:{name}", "$comment": f"Travels {where}.", **made}


def text(name: str) -> str:
    """The file of one schema."""
    return json.dumps(schema(name), indent=1, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write all of them; the result is where they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in RECORDS:
        paths.append(folder / f"{name}.json")
        write_public(paths[-1], text(name).encode())
    return paths


def mount(app: typer.Typer) -> None:
    """Put the command into a command line."""

    @app.command()
    def schemas(folder: Path = typer.Argument(help="Where they go; docs/schemas in a checkout.")) -> None:
        """Write the JSON Schemas of every record that travels, for those who read them in another language."""
        typer.echo(f"{len(write(folder))} schemas in {folder}")
