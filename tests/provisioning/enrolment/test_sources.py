"""What a folder or a list may bring that must not pass silently: unread files, one picture twice, two runs at once."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.errors import EnrolmentError
from provisioning.authority import authority
from provisioning.base import Base
from provisioning.cli import app
from provisioning.enrolment import references, table
from provisioning.enrolment.enrolment import Summary, enrol_images
from tests.support import workbench
from tests.support.tables import GOOD, row, write_list


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return authority.init(tmp_path / "base")


def run(base: Base, source: Path) -> Summary:
    """Enrol with the project's own packs."""
    packs = workbench.built_in()
    return enrol_images(base, source, packs.detector, packs.embedder)


def test_every_file_of_a_folder_that_was_not_taken_is_named_and_the_exit_code_says_so(
    base: Base, tmp_path: Path
) -> None:
    """A telephone's HEIC and a scan in PDF beside a good portrait; what the system left there is passed over."""
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(workbench.portraits()[0], folder / "R-1.jpg")
    for name in ("PHONE.heic", "SCAN.pdf", "Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    sets = [part for field, value in GOOD.items() for part in ("--set", f"{field}={value}")]
    result = CliRunner().invoke(app, ["enrol", str(base.folder), str(folder), "--json", *sets])
    assert isinstance(result.exception, EnrolmentError)
    told = json.loads(result.stdout)
    assert told["accepted"] == 1
    refused = {o["image"]: o["reasons"] for o in told["outcomes"] if not o["accepted"]}
    assert set(refused) == {"PHONE.heic", "SCAN.pdf"}
    assert "save it as JPEG" in refused["PHONE.heic"][0]


def test_the_same_picture_under_two_references_is_refused_now_and_later(base: Base, tmp_path: Path) -> None:
    image = str(workbench.portraits()[0])
    done = run(base, write_list(tmp_path / "list.csv", [row("R-1", image), row("R-2", image)]))
    assert done.accepted == 1
    assert done.refused[0].reference_identifier == "R-2"
    assert "the same picture as R-1's" in done.refused[0].reasons[0]
    later = run(base, write_list(tmp_path / "later.csv", [row("R-3", image)]))
    assert "the same picture as R-1's" in later.refused[0].reasons[0]
    with base.store() as store:
        references.erase(store, "R-1")
    assert run(base, write_list(tmp_path / "later.csv", [row("R-3", image)])).accepted == 1


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n"])
def test_a_first_line_that_names_the_separator_is_obeyed(tmp_path: Path, first: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"{first}reference_identifier;image;category\nR-1;a.jpg;b\n", newline="")
    listed, _ = table.rows(path)
    found = [(r.number, r.values["reference_identifier"], r.images) for r in listed]
    assert found == [(3, "R-1", (tmp_path / "a.jpg",))]


def test_a_second_enrolment_at_once_is_told_of_the_first(base: Base, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "list.csv", [row("R-1", str(workbench.portraits()[0]))])
    with (base.folder / "enrolment.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(EnrolmentError, match="another enrolment is running"):
            run(base, listed)
    assert run(base, listed).accepted == 1
