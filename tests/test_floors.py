"""Imports point down only (ARCHITECTURE.md): every module has a floor, and knows nothing of the floors above."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors", "listing", "registry", "seeding", "validation", "devices", "numerics", "rollouts", "storage"},
    {"families", "networks", "worlds"},
    {"learning", "sampling"},
    {"checks", "client", "evaluation", "run", "tracking", "training"},
]
FOLDERS = {"envs": 4, "agents": 4, "serving": 4, "experiments": 5}
FRONT_DOOR = 6
LONGEST_FILE, LONGEST_FUNCTION = 300, 40


def module_files() -> dict[str, Path]:
    """Return the file of every module of the package, by the name it is imported under."""
    found = {}
    for folder in ("metarl", *FOLDERS):
        prefix = "metarl" if folder == "metarl" else f"metarl.{folder}"
        for path in sorted((ROOT / folder).rglob("*.py")):  # which does not follow metarl/'s links to the others
            inner = [part for part in path.relative_to(ROOT / folder).with_suffix("").parts if part != "__init__"]
            found[".".join([prefix, *inner])] = path
    return found


MODULES = module_files()


@cache
def tree(module: str) -> ast.Module:
    """Return the syntax of a module's file."""
    return ast.parse(MODULES[module].read_text())


def floor(module: str) -> int:
    """Return a module's floor; a new room of metarl/ has none until the table places it."""
    _, *inner = module.split(".")
    if inner in ([], ["__main__"]):
        return FRONT_DOOR
    if inner[0] in FOLDERS:
        return FOLDERS[inner[0]]
    floors = [number for number, rooms in enumerate(FLOORS) if inner[0] in rooms]
    assert len(floors) == 1, f"place {module} on one floor, here and in ARCHITECTURE.md"
    return floors[0]


@cache
def imported(module: str) -> set[str]:
    """Return everything that a module's file imports, wherever in the file: names of modules, ours in full."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; write it in full"
            assert node.module is not None
            # "from metarl import training" imports the module metarl.training.train.
            names = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= names or {node.module}
    return found


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function below its docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    assert function.end_lineno is not None
    return function.end_lineno - first.lineno + 1


def own(module: str) -> set[str]:
    """Return the modules of this package that a module imports."""
    return {name for name in imported(module) if name.split(".")[0] == "metarl"}


def test_every_module_has_a_floor() -> None:
    assert [module for module in MODULES if not 0 <= floor(module) <= FRONT_DOOR] == []


def test_every_room_of_the_table_is_there() -> None:
    assert {f"metarl.{room}" for rooms in FLOORS for room in rooms} <= set(MODULES)


def test_imports_point_down() -> None:
    pairs = [(module, name) for module in MODULES for name in sorted(own(module))]
    assert [f"{module} imports {name}" for module, name in pairs if floor(name) > floor(module)] == []


def test_no_module_inside_uses_the_front_door() -> None:
    assert [module for module in MODULES if module != "metarl" and "metarl" in own(module)] == []


def test_envs_and_agents_do_not_know_each_other() -> None:
    pairs = [(module, name) for module in MODULES for name in own(module)]
    sides = [("metarl.envs", "metarl.agents"), ("metarl.agents", "metarl.envs")]
    assert [
        pair for pair in pairs for one, other in sides if pair[0].startswith(one) and pair[1].startswith(other)
    ] == []


def circle(graph: dict[str, set[str]]) -> str:
    """Return the first circle of a graph, empty if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_no_module_imports_itself_through_others() -> None:
    assert circle({module: own(module) & set(MODULES) for module in MODULES}) == ""


def test_no_room_imports_itself_through_others() -> None:
    """A room is a folder of metarl/, and each of its single files."""
    rooms: dict[str, set[str]] = {}
    for module in MODULES:
        names = {name.split(".")[1] for name in own(module) & set(MODULES) if name != "metarl"}
        room = module.removeprefix("metarl").strip(".").partition(".")[0]
        rooms.setdefault(room, set()).update(names - {room})
    assert circle(rooms) == ""


@pytest.mark.parametrize(
    ("modules", "package"),
    [({"wandb_tracker", "wandb_files"}, "wandb"), ({"tensorboard_tracker"}, "torch.utils.tensorboard")],
    ids=["wandb", "tensorboard"],
)
def test_only_its_tracker_imports_a_tracking_package_and_only_when_a_run_is_tracked(
    modules: set[str], package: str
) -> None:
    users = {module for module in MODULES if any(f"{name}.".startswith(f"{package}.") for name in imported(module))}
    assert users == {f"metarl.tracking.{module}" for module in modules}
    for user in users:
        top = [node for node in tree(user).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not re.search(rf"^(import|from) {package}\b", ast.unparse(ast.Module(top, [])), re.MULTILINE)


def test_no_module_imports_a_folder_by_its_bare_name() -> None:
    pairs = [(module, name) for module in MODULES for name in imported(module)]
    assert [f"{module} imports {name}" for module, name in pairs if name.split(".")[0] in FOLDERS] == []


def test_files_and_functions_are_short() -> None:
    """A file has at most 300 lines, a function at most 40 that are not its docstring."""
    long = [f"{module}: {len(path.read_text().splitlines())} lines" for module, path in MODULES.items()]
    assert [line for line in long if int(line.split()[-2]) > LONGEST_FILE] == []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [(module, node) for module in MODULES for node in ast.walk(tree(module)) if isinstance(node, kinds)]
    assert [f"{module}.{node.name}" for module, node in functions if body_lines(node) > LONGEST_FUNCTION] == []
