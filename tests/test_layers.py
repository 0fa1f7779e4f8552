"""The layers: every import points down, those for type checkers too, and no module is in a cycle.

docs/design.md begins with the diagram of the layers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src"

# The layers from the bottom to the top. Modules that share a layer do not import each other;
# within a folder they may, as long as that makes no cycle.
LAYERS = (
    ("wsframe",),
    ("wsframe.client", "uvicorn"),
    ("server.pure_rounds",),
    ("server._rounds",),
    (
        *("server.timing", "server.forks", "server.addresses", "server.hosts", "server.headers"),
        *("server.heartbeats", "server.rounds"),
    ),
    ("server.signals", "server.options", "server.settings", "server.reports"),
    ("server.handoff", "server.status"),
    ("server.sockets",),
    ("server.http", "server.topics", "server.logs"),
    ("server.sessions",),
    ("server.dispatch",),
    ("server.server",),
    ("server.service",),
    ("server.workers", "server.routing", "server.tickets"),
    ("server.running",),
    ("server.app",),
    ("server",),  # the package itself, which exports what users need
    ("wsgi", "asgi"),
    ("django", "flask"),
    ("demo", "testing"),
    ("cli",),
    ("server.__main__", "wsframe.__main__"),
)

# The folders of src/ that are installed as packages in wsframe.
TOPS = {folder.name for folder in SOURCES.iterdir()} - {"wsframe"}


def modules() -> dict[str, Path]:
    """Return every module under ``src/``, named from there; a package has its folder's name."""
    found = {}
    for path in sorted((*SOURCES.rglob("*.py"), *SOURCES.rglob("*.pyi"))):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the project that a module imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            sources = [alias.name for alias in node.names if alias.name.startswith("wsframe")]
        elif isinstance(node, ast.ImportFrom):
            base = ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1])
            elif not str(node.module).startswith("wsframe"):
                continue  # such as the package flask, which is not wsframe.flask
            source = ".".join(filter(None, (base, node.module)))
            sources = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for source in sources:
            # The package wsframe.server is in src/server.
            parts = source.removeprefix("wsframe.").split(".")
            local = ".".join(parts) if parts[0] in TOPS else source
            while local and local not in known:
                local = local.rpartition(".")[0]
            if local and local != name:
                yield local


def layer(name: str) -> tuple[int, str]:
    """Return the number of a module's layer, and the module or folder of the layer it is in."""
    matches = [
        (len(member), number, member)
        for number, members in enumerate(LAYERS)
        for member in members
        if name == member or (member != "server" and name.startswith(f"{member}."))
    ]
    assert matches, f"{name} is in no layer"
    _, number, member = max(matches)
    return number, member


def edges() -> list[tuple[str, str]]:
    """Return every import, as the importing and the imported module."""
    known = modules()
    return sorted({(name, to) for name, path in known.items() for to in imports(name, path, known)})


def upward(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the imports that do not point down."""
    return [
        (name, to)
        for name, to in found
        if layer(to)[1] != layer(name)[1] and layer(to)[0] >= layer(name)[0]
    ]


def in_cycles(found: list[tuple[str, str]]) -> set[str]:
    """Return the nodes that can reach themselves."""
    remaining = {node for edge in found for node in edge}
    arrows = {node: {to for name, to in found if name == node} for node in remaining}
    while True:
        ends = {node for node in remaining if not arrows[node] & remaining}
        starts = {
            node for node in remaining if not any(node in arrows[other] for other in remaining)
        }
        if not ends | starts:
            return remaining
        remaining -= ends | starts


def test_every_module_is_in_a_layer() -> None:
    for name in modules():
        layer(name)


@pytest.mark.unmeasured
def test_imports_point_down() -> None:
    assert not upward(edges())


@pytest.mark.unmeasured
def test_no_module_is_in_a_cycle() -> None:
    assert not in_cycles(edges())


@pytest.mark.parametrize(
    ("name", "to"),
    [("server.handoff.loop", "server.sockets.peer"), ("wsframe.connection", "server.settings")],
)
def test_an_import_turned_upward_is_found(name: str, to: str) -> None:
    assert upward([(name, to)])


def test_a_cycle_is_found() -> None:
    assert in_cycles([("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]) == {"b", "c"}
