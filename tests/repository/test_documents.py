"""What the documents name exists: every link between pages, and every path of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGES = sorted(
    path.relative_to(ROOT)
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "models").rglob("*.md"),
        *(ROOT / "systemd").rglob("*.md"),
        *(ROOT / "control").rglob("*.md"),
    )
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED = re.compile(
    r"`((?:appliance|control|provisioning|models|docs|demo|benchmarks|packaging|tests|systemd)/[\w./-]+)`"
)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall((ROOT / page).read_text("utf-8")) if not target.startswith("http")]
    assert [target for target in targets if not (ROOT / page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = NAMED.findall((ROOT / page).read_text("utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_is_short() -> None:
    """At most 8 KB: what it is, two commands, the data path, where to go on."""
    assert (ROOT / "README.md").stat().st_size <= 8192


def test_every_requirement_that_code_cites_is_numbered_in_the_documents() -> None:
    page = (ROOT / "docs" / "requirements.md").read_text("utf-8")
    numbered = set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))
    cited = {
        number
        for package in ("appliance", "control", "provisioning")
        for path in (ROOT / package).rglob("*.py")
        for number in re.findall(r"requirements? (\d+)", path.read_text("utf-8"))
    }
    assert cited
    assert cited <= numbered
