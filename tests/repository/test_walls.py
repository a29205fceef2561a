"""The folder boundary is the trust boundary: the unit imports neither base nor control room; nothing is circular."""

from __future__ import annotations

import ast
import subprocess
import sys
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


FORBIDDEN = {
    # a room, and what its import closure must not reach
    "appliance.vision": ("appliance.courier", "appliance.keeper", "appliance.transport"),
    "appliance.courier": ("appliance.keeper", "appliance.recognition", "appliance.capture"),
    "appliance.keeper": ("appliance.transport", "appliance.capture", "appliance.recognition"),
}
SHARED_WITH_CONTROL = ("storage", "trust", "formats", "transport")
SHARED_WITH_BASE = (*SHARED_WITH_CONTROL, "recognition", "attest")  # canaries are made at the base


def closure(room: str) -> set[str]:
    """Every module that a room's modules import, and what those import, and so on."""
    edges = graph()
    todo = [name for name in edges if name.startswith(f"{room}.")]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen


WALLS = [(room, other) for room, others in FORBIDDEN.items() for other in others]


@pytest.mark.parametrize(("room", "other"), WALLS)
def test_a_process_never_reaches_what_belongs_to_another(room: str, other: str) -> None:
    assert sorted(name for name in closure(room) if name == other or name.startswith(f"{other}.")) == []


@pytest.mark.parametrize(("package", "rooms"), [("control", SHARED_WITH_CONTROL), ("provisioning", SHARED_WITH_BASE)])
def test_base_and_control_enter_only_the_units_shared_rooms(package: str, rooms: tuple[str, ...]) -> None:
    wrong = {
        f"{name} -> {other}"
        for name, others in graph().items()
        if name.split(".")[0] == package
        for other in others
        if other.startswith("appliance.") and other.count(".") == 2 and other.split(".")[1] not in rooms
    }
    assert wrong == set()


@pytest.mark.parametrize(("package", "most"), [("appliance", 12), ("control", 10), ("provisioning", 10)])
def test_the_halls_stay_small(package: str, most: int) -> None:
    assert len([path for path in (ROOT / package).glob("*.py") if path.stem != "__init__"]) <= most


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("appliance.vision.shift", {"paho"}),
        ("appliance.keeper.keeper", {"paho", "cv2", "hnswlib"}),
        ("appliance.courier.server", {"cv2", "hnswlib", "scipy"}),
    ],
)
def test_a_process_loads_no_library_of_another(module: str, absent: set[str]) -> None:
    """A fresh interpreter loads the module and looks at what came along."""
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & absent == set()
