"""Imports point down only (ARCHITECTURE.md): every module has a floor, and knows nothing of the floors above."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {
        "errors",
        "pictures",
        "seeding",
        "params",
        "distributions",
        "rollout",
        "returns",
        "runtime",
        "statistics",
        "references",
        "registry",
        "trials",
        "validation",
    },
    {"family", "informed", "networks", "solved", "spaces", "splits", "tensor_family", "vector_env"},
    {"policies", "baselines", "trust_region", "sampler", "task_source"},
    {
        "learner",
        "replay",
        "run_directory",
        "config",
        "evaluation",
        "figures",
        "loop_tools",
        "metrics",
        "tensor_files",
        "tracking",
        "tracking.tensorboard_tracker",
        "tracking.tracking",
        "tracking.wandb_tracker",
        "training",
        "recorded",
        "recorded_minari",
        "recording",
        "video",
    },
]
FOLDERS = {"envs": 4, "agents": 4, "experiments": 5}
FRONT_DOOR = 6


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


def floor(module: str) -> int:
    """Return a module's floor; a new module of metarl/ has none until the table places it."""
    _, *inner = module.split(".")
    if not inner:
        return FRONT_DOOR
    if inner[0] in FOLDERS:
        return FOLDERS[inner[0]]
    floors = [number for number, rooms in enumerate(FLOORS) if ".".join(inner) in rooms]
    assert len(floors) == 1, f"place {module} on one floor, here and in ARCHITECTURE.md"
    return floors[0]


def imported(module: str) -> set[str]:
    """Return everything that a module's file imports, wherever in the file: names of modules, ours in full."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; write it in full"
            assert node.module is not None
            # "from metarl import training" imports the module metarl.training.
            names = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= names or {node.module}
    return found


def own(module: str) -> set[str]:
    """Return the modules of this package that a module imports."""
    return {name for name in imported(module) if name.split(".")[0] == "metarl"}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module: str) -> None:
    assert 0 <= floor(module) <= FRONT_DOOR


def test_every_room_of_the_table_is_there() -> None:
    assert {f"metarl.{room}" for rooms in FLOORS for room in rooms} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_its_imports_point_down(module: str) -> None:
    assert [name for name in sorted(own(module)) if floor(name) > floor(module)] == []


@pytest.mark.parametrize("module", [name for name in MODULES if name != "metarl"])
def test_nobody_inside_uses_the_front_door(module: str) -> None:
    assert "metarl" not in own(module)


@pytest.mark.parametrize("module", [name for name in MODULES if floor(name) == 4])
def test_envs_and_agents_do_not_know_each_other(module: str) -> None:
    other = {"envs": "metarl.agents", "agents": "metarl.envs"}[module.split(".")[1]]
    assert [name for name in own(module) if name.startswith(other)] == []


def test_no_module_imports_itself_through_others() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in finished:
            for name in own(module) & set(MODULES):
                visit(name, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())
    assert finished == set(MODULES)


@pytest.mark.parametrize(
    ("tracker", "package"),
    [("metarl.tracking.wandb_tracker", "wandb"), ("metarl.tracking.tensorboard_tracker", "torch.utils.tensorboard")],
)
def test_only_its_tracker_imports_a_tracking_package_and_only_when_a_run_is_tracked(tracker: str, package: str) -> None:
    users = {module for module in MODULES if any(f"{name}.".startswith(f"{package}.") for name in imported(module))}
    assert users == {tracker}
    tree = ast.parse(MODULES[tracker].read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert package not in ast.unparse(ast.Module(top, []))


@pytest.mark.parametrize("folder", FOLDERS)
def test_nobody_imports_a_folder_by_its_bare_name(folder: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == folder for name in imported(module))}
    assert users == set()
