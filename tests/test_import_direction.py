"""Imports point strictly down the floors; rooms on one floor do not import each other."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "errors": -1, "durable": -1, "allocation": -1, "compiled": -1, "garbage": -1, "geometry": 0,
    "volumes": 1, "networks": 1, "pixels": 1, "metrics": 1, "config": 1, "tracking": 1, "phantom": 1,
    "downloads": 1,
    "blockwise": 2, "tasks": 2,
    "prediction": 3, "formatting": 3, "segmentation": 3, "evaluation": 3, "viewing": 3,
    "training": 4, "runs": 4, "sharing": 4,
    "demo": 5, "preflight": 5,
    "cli": 6,
    "__main__": 7,
}  # fmt: skip


def rooms_imported_by(source: str) -> set[str]:
    """The rooms of incasem that a module imports, wherever in the file the import stands."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor; write `from incasem.room import …`"
            names = [node.module or ""]
            if node.module == "incasem":
                names = [f"incasem.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("incasem.")}
    return rooms


def modules() -> list[Path]:
    return sorted(p for p in (ROOT / "incasem").rglob("*.py") if p != ROOT / "incasem/__init__.py")


def room_of(module: Path) -> str:
    return module.relative_to(ROOT / "incasem").with_suffix("").parts[0]


@pytest.mark.parametrize("module", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(module):
    room = room_of(module)
    assert room in FLOORS, f"{room} has no floor: give it one here and in the design"
    for imported in rooms_imported_by(module.read_text()) - {room}:
        assert FLOORS[imported] < FLOORS[room], (
            f"{module.relative_to(ROOT)} (floor {FLOORS[room]}) imports "
            f"incasem.{imported} (floor {FLOORS[imported]})"
        )


def test_an_arrow_that_points_up_is_found():
    assert rooms_imported_by("def f():\n    from incasem.training import trainer\n") == {"training"}
    assert rooms_imported_by("from incasem import cli") == {"cli"}


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").rglob("*.py")), ids=lambda p: p.name)
def test_scripts_hold_no_logic(script):
    tree = ast.parse(script.read_text())
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.For)]
    assert rooms_imported_by(script.read_text()) <= {"cli"}


def test_every_direct_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["test"] + extras["viewers"] + extras["neurons"]
    names = {_name(line) for line in wanted}
    pinned = {
        _name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }  # fmt: skip
    assert names <= pinned, f"not pinned in constraints.txt: {sorted(names - pinned)}"


def _name(requirement: str) -> str:
    for separator in "<>=!~;[ ":
        requirement = requirement.split(separator)[0]
    return requirement.lower().replace("_", "-").replace(".", "-")
