"""The families and learners of this package, read from its source without importing it.

So the command line lists and checks names, and ``import metarl`` registers ids with Gymnasium, before torch is loaded.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gymnasium

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Listed:
    """What a class definition says about a family or learner.

    Attributes:
        name: on the command line.
        summary: first line of the docstring.
        env_id: id in Gymnasium's registry, of a family.
    """

    name: str
    summary: str
    env_id: str


@cache
def listed_families() -> dict[str, Listed]:
    """Return the registered families by name."""
    return _listed(HERE / "envs", "register_family")


@cache
def listed_learners() -> dict[str, Listed]:
    """Return the registered learners by name."""
    return _listed(HERE / "agents", "register_learner")


def register_ids() -> None:
    """Register the environments of all families with Gymnasium; a family's module is imported when one is made."""
    for family in listed_families().values():
        register_id(family.env_id, family.name)


def register_id(env_id: str, family: str) -> None:
    """Register the environments of a family with Gymnasium, unless they already are."""
    known = gymnasium.registry.get(env_id)
    if known is not None and known.kwargs == {"family": family}:
        return
    gymnasium.register(
        env_id,
        entry_point="metarl.worlds.make_env:make_env",
        vector_entry_point="metarl.worlds.make_env:make_vector_env",
        kwargs={"family": family},
        disable_env_checker=True,
    )


def _listed(folder: Path, decorator: str) -> dict[str, Listed]:
    """Return the classes with a decorator in a folder and its subfolders, in the order in which they are imported."""
    sources = ((path, path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py")))
    trees = [ast.parse(text, str(path)) for path, text in sources if f"\n@{decorator}\n" in text]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    found = [_entry(node) for node in classes if any(ast.unparse(each) == decorator for each in node.decorator_list)]
    return {entry.name: entry for entry in found}


def _entry(definition: ast.ClassDef) -> Listed:
    constants = {
        ast.unparse(line.target): line.value.value
        for line in definition.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant)
    }
    summary = (ast.get_docstring(definition) or "").partition("\n")[0]
    return Listed(str(constants["name"]), summary, str(constants.get("env_id", "")))
