"""The threat model's claims are tested: every test it names exists, and every requirement is on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", TEXT)))


def functions_in(path: Path) -> set[str]:
    """Names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    missing = [f"{file}::{name}" for file, name in NAMED
               if not (ROOT / file).exists() or name not in functions_in(ROOT / file)]  # fmt: skip
    assert missing == []
    assert len(NAMED) > 60


def test_every_requirement_has_a_row_and_each_row_a_test_or_says_that_it_is_not_software() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, re.MULTILINE))
    assert [int(number) for number in rows] == list(range(1, 29))
    unshown = [number for number, row in rows.items() if "::test_" not in row and "not software" not in row]
    assert unshown == []


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?:appliance|provisioning|control)/\w+\.py)`", TEXT))))
def test_every_module_that_is_named_exists(file: str) -> None:
    assert (ROOT / file).exists()


@pytest.mark.parametrize("section", re.findall(r"^### (.*)$", TEXT, re.MULTILINE))
def test_every_adversary_has_something_that_remains(section: str) -> None:
    """A section that stops everything was not thought through."""
    body = TEXT.split(f"### {section}\n")[1].split("\n#")[0]
    assert "*What remains.*" in body
