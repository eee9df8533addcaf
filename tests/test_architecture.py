"""Which room may import which. Rooms are the packages and top-level modules of the library."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# From bottom to top: a room imports only rooms of the lines above its own.
LAYERS = (
    {"types", "errors", "replicas"},
    {"files", "strategies", "losses", "optimizers", "meta"},
    {"data", "networks"},
    {"features"},
    {"methods"},
    {"model"},
    {"config"},
    {"runs"},
    {"cli"},
    {"export", "figures"},
    {"serve"},
    {"experiment"},
    {"audit"},
    {"reports"},
    {"sweep"},
    {"benchmark"},
    {"main"},
    {"pipelines"},
)


def room_of(module: str) -> str:
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "tf_mwnet" else top


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imported(path: pathlib.Path) -> set[str]:
    """The project's modules that a file imports, also inside of functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                if module != "tf_mwnet.__version__":
                    found.add(module if is_module(module) else node.module)
    return {m for m in found if m.partition(".")[0] in ("tf_mwnet", "pipelines")}


def rooms() -> dict[str, set[str]]:
    """Room -> the other rooms that it imports."""
    found: dict[str, set[str]] = {}
    for top in ("tf_mwnet", "pipelines"):
        for path in sorted((ROOT / top).rglob("*.py")):
            room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
            # The command of a low room uses what is above it, as `main` does.
            if path.match("features/__main__.py"):
                room = "main"
            # Of tf_mwnet: the first has the public names of all rooms, the second their commands.
            if room not in ("__init__", "__main__"):
                found.setdefault(room, set()).update(map(room_of, imported(path)))
    return {room: others - {room} for room, others in found.items()}


def test_every_room_has_its_place():
    assert set().union(*LAYERS) == set(rooms())


@pytest.mark.parametrize("room", sorted(set().union(*LAYERS)))
def test_imports_point_down(room):
    place = next(i for i, layer in enumerate(LAYERS) if room in layer)
    below = set().union(*LAYERS[:place]) if place else set()
    assert rooms()[room] <= below


def test_the_map_in_the_package_is_the_true_one():
    text = (ROOT / "tf_mwnet/__init__.py").read_text()
    lines = text[text.index("    types ") :].partition("\n\n")[0]
    drawn = [set(layer.split()) for layer in lines.split("->")]
    assert drawn == list(LAYERS)


def test_the_top_level_is_small():
    modules = [p for p in (ROOT / "tf_mwnet").glob("*.py") if p.stem != "__init__"]
    assert len(modules) <= 12
