"""The folder boundary is the trust boundary: the unit imports neither base nor control room; nothing is circular."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("appliance", "provisioning", "control", "models", "demo", "benchmarks")
ALLOWED = {
    "appliance": {"appliance"},
    "provisioning": {"provisioning", "appliance", "models"},
    "control": {"control", "appliance"},
    "models": {"models", "appliance"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the project that a file imports when it is loaded or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in known}


def graph() -> dict[str, set[str]]:
    files = {module_name(p): p for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    return {name: imports(path, set(files)) - {name} for name, path in files.items()}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    wrong = {
        f"{name} -> {other}"
        for name, others in graph().items()
        if name.split(".")[0] == package
        for other in others
        if other.split(".")[0] not in ALLOWED[package]
    }
    assert wrong == set()


def test_there_are_no_import_cycles() -> None:
    edges = graph()
    # A package's __init__ is loaded with every module of it; only real statements count here.
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name in done:
            return
        for other in sorted(edges[name]):
            visit(other, (*path, name))
        done.add(name)

    for name in sorted(edges):
        visit(name, ())


def test_modules_stay_small() -> None:
    long = {
        module_name(p): count
        for package in PACKAGES
        for p in (ROOT / package).rglob("*.py")
        if (count := len(p.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}
