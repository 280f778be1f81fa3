"""The dependency table: who may import whom (DESIGN 2, STYLE "Layout")."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("coord", "bookie", "pubsub")

#: Packages each package may use at all.
MAY_USE = {"coord": {"coord"}, "bookie": {"coord", "bookie"}, "pubsub": {"coord", "bookie", "pubsub"}}

#: Foundations that all three packages are built on.
FOUNDATIONS = {
    "coord.clock",
    "coord.codec",
    "coord.disk",
    "coord.eventlog",
    "coord.framing",
    "coord.gc",
    "coord.http",
    "coord.listening",
    "coord.log",
    "coord.looplag",
    "coord.message",
    "coord.metrics",
    "coord.nursery",
    "coord.reactor",
    "coord.rpc",
    "coord.tls",
}

#: Public faces of a package, for the packages above it. Servers are faces of their own: who wants a client
#: must not load one.
FACES = {
    "coord",
    "coord.apache",
    "coord.errors",
    "coord.inspection",
    "coord.server",
    "bookie",
    "bookie.inspection",
    "bookie.server",
}

#: Cores wait for nothing and ask nobody: time and chance are arguments.
CORES = ("coord.protocol", "coord.tree", "coord.zab", "bookie.ledger", "pubsub.core")
NOT_IN_CORES = {
    "asyncio", "logging", "os", "pathlib", "random", "select", "selectors", "signal", "socket", "ssl",
    "subprocess", "tempfile", "threading", "time", "trio",
}  # fmt: skip
CORES_MAY_USE = {"coord.errors", "coord.framing", "coord.message", *CORES}

#: Rooms of a package from the bottom up: nobody imports a room above its own, nor a neighbour on its floor.
FLOORS = {
    "coord": [CORES[:3], ("coord.storage",), ("coord.server", "coord.client"), ("coord.apache",)],
    "bookie": [("bookie.ledger",), ("bookie.storage", "bookie.client"), ("bookie.server",)],
    "pubsub": [
        ("pubsub.core",),
        ("pubsub.client", "pubsub.hub"),
        ("pubsub.cluster",),
        ("pubsub.mainjob", "pubsub.command"),
    ],
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Every module a file imports, at its top or inside a function; `from a import b` counts as a, and as a.b
    where that is a module of ours.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in names if is_module(name)}
            found |= ours
            if ours != names:
                found.add(node.module)
    return found


def is_module(name: str) -> bool:
    base = ROOT / Path(*name.split("."))
    return name.split(".")[0] in PACKAGES and (
        base.with_suffix(".py").exists() or (base / "__init__.py").exists()
    )


def inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


ALL = [pytest.param(name, path, id=name) for name, path in modules()]


@pytest.mark.parametrize(("name", "path"), ALL)
def test_packages_use_only_packages_below(name: str, path: Path) -> None:
    allowed = MAY_USE[name.split(".")[0]]
    used = {module.split(".")[0] for module in imports(path)} & set(PACKAGES)
    assert used <= allowed


@pytest.mark.parametrize(("name", "path"), ALL)
def test_other_packages_are_used_through_their_faces_and_the_foundations(name: str, path: Path) -> None:
    own = name.split(".")[0]
    foreign = {module for module in imports(path) if module.split(".")[0] in set(PACKAGES) - {own}}
    assert {
        module
        for module in foreign
        if module not in FACES and not any(inside(module, f) for f in FOUNDATIONS)
    } == set()


@pytest.mark.parametrize(
    ("name", "path"), [p for p in ALL if any(inside(str(p.values[0]), c) for c in CORES)]
)
def test_cores_wait_for_nothing(name: str, path: Path) -> None:
    used = imports(path)
    assert {module for module in used if module.split(".")[0] in NOT_IN_CORES} == set()
    ours = {module for module in used if module.split(".")[0] in PACKAGES}
    assert {module for module in ours if not any(inside(module, core) for core in CORES_MAY_USE)} == set()


@pytest.mark.parametrize(
    ("name", "path"), [p for p in ALL if any(inside(str(p.values[0]), f) for f in FOUNDATIONS)]
)
def test_foundations_know_no_rooms(name: str, path: Path) -> None:
    ours = {module for module in imports(path) if module.split(".")[0] in PACKAGES}
    assert {module for module in ours if not any(inside(module, room) for room in FOUNDATIONS)} == set()


@pytest.mark.parametrize(("name", "path"), ALL)
def test_rooms_are_built_from_the_bottom_up(name: str, path: Path) -> None:
    floors = FLOORS[name.split(".")[0]]
    for height, floor in enumerate(floors):
        for room in floor:
            if not inside(name, room):
                continue
            forbidden = [other for higher in floors[height + 1 :] for other in higher]
            if height > 0:
                forbidden += [other for other in floor if other != room]
            used = imports(path)
            assert {module for module in used if any(inside(module, other) for other in forbidden)} == set()


def test_who_wants_a_client_loads_no_server() -> None:
    """It would cost every command half a second."""
    program = "import sys, coord; sys.exit(any(name.startswith('coord.server') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
