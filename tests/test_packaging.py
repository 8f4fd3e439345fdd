"""The folders at the root are one package, metarl: for setuptools, for type checkers and for who imports it."""

import ast
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
INSIDE = ("envs", "agents", "serving", "experiments")
TOP = ("metarl", *INSIDE)


def package_folders() -> dict[str, str]:
    """Return every folder of code, by the package it is."""
    found = {}
    tops = [top for top in ROOT.iterdir() if top.name not in ("tests", "build") and not top.name.startswith(".")]
    for path in sorted(path for top in tops for path in top.glob("**/__init__.py")):
        parts = path.parent.relative_to(ROOT).parts
        name = ".".join(parts if parts[0] == "metarl" else ("metarl", *parts))
        found[name] = "/".join(parts)
    return found


def test_the_folders_at_the_root_are_those_we_know() -> None:
    assert {folder.split("/")[0] for folder in package_folders().values()} == set(TOP)


def test_the_listed_packages_are_the_folders_of_code() -> None:
    assert set(SETUPTOOLS["packages"]) == set(package_folders())


def test_every_folder_at_the_root_is_mapped_to_its_package() -> None:
    expected = {"metarl": "metarl", **{f"metarl.{folder}": folder for folder in INSIDE}}
    assert SETUPTOOLS["package-dir"] == expected


def test_every_package_is_imported_from_its_folder() -> None:
    for name, folder in package_folders().items():
        file = import_module(name).__file__
        assert file is not None
        assert Path(file).resolve().parent == ROOT / folder


def test_readers_without_our_settings_find_every_folder_inside_the_package() -> None:
    links = [ROOT / "metarl" / folder for folder in INSIDE]
    assert all(link.is_symlink() for link in links)
    assert [link.resolve() for link in links] == [ROOT / folder for folder in INSIDE]


def test_ruff_bans_every_bare_name() -> None:
    assert set(PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == set(INSIDE)


def test_the_package_is_typed() -> None:
    assert (ROOT / "metarl" / "py.typed").exists()
    assert "py.typed" in SETUPTOOLS["package-data"]["metarl"]


def test_the_installed_version_is_the_projects() -> None:
    assert version("metarl-gym") == PROJECT["project"]["version"]


def test_the_command_is_the_command_line() -> None:
    (command,) = entry_points(group="console_scripts", name="metarl")
    assert command.value == PROJECT["project"]["scripts"]["metarl"]
    assert callable(command.load())


# Extras whose packages our modules import.
IMPORTED = ("docs", "gpu", "hub", "language", "metaworld", "minari", "serve", "tensorboard")
# Packages that others import for us, by a name in a setting or a URL.
NAMED = {"psycopg", "uvloop", "httptools", "ipykernel", "mkdocs-material", "mkdocstrings", "accelerate", "gguf"}
DISTRIBUTIONS = {
    "huggingface_hub": "huggingface-hub",
    "prometheus_client": "prometheus-client",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "warp": "warp-lang",
    "mujoco_warp": "mujoco-warp",
    "stable_baselines3": "stable-baselines3",
}


def third_party_imports() -> set[str]:
    found = set()
    for path in (path for folder in TOP for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"metarl"}


def test_what_is_imported_is_what_is_declared() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *(line for name in IMPORTED for line in extras[name])]
    declared = {re.split(r"[>=\[]", line)[0] for line in lines} - NAMED
    assert {DISTRIBUTIONS.get(name, name) for name in third_party_imports()} == declared


def test_every_declared_dependency_is_pinned() -> None:
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.split(r"[>=\[]", line)[0].lower().replace("-", "_") for line in declared} - {"metarl_gym"}
    assert names <= {name.replace("-", "_") for name in pinned}
