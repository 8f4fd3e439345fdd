"""The scripts complete what the command line knows; those of shells that are not installed are only read."""

import shutil
import subprocess
from pathlib import Path

import pytest

from metarl.errors import InputError
from metarl.experiments.commands.completion import SHELLS, run, script
from metarl.experiments.commands.main import COMMANDS
from metarl.experiments.published import MODULES
from metarl.listing import listed_families, listed_learners

EXPECTED = [
    (["metarl", ""], set(COMMANDS)),
    (["metarl", "tr"], {"train"}),
    (["metarl", "train", "maml-"], {"maml-trpo", "maml-ppo", "maml-vpg"}),
    (["metarl", "train", "rl2", "grid"], {"gridnavi", "gridnavi-image"}),
    (["metarl", "train", "rl2", "gridnavi", "--hidden"], {"--hidden-size"}),
    (["metarl", "train", "maml-trpo", "gridnavi", "--max-k"], {"--max-kl"}),
    (["metarl", "train", "maml-trpo", "gridnavi", "--seed", "1", "--entit"], {"--entity"}),
    (["metarl", "train", "--published", "dqn"], {name for name in MODULES if name.startswith("dqn")}),
    (["metarl", "families", ""], {"show"}),
    (["metarl", "families", "show", "ant-d"], {"ant-dir"}),
    (["metarl", "evaluate", "runs/nav", "--st"], {"--steps"}),
    (["metarl", "completion", "f"], {"fish"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file with the script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (folder / shell).write_text(script(shell))
    return {shell: folder / shell for shell in SHELLS}


def offered(shell: str, file: Path, words: list[str]) -> set[str]:
    """Return what a shell offers for the last of some words."""
    quoted = " ".join(f"'{word}'" for word in words)
    asked = {
        "bash": f"source {file}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _metarl; "
        "printf '%s\\n' ${COMPREPLY[@]}",
        "fish": f"source {file}; complete -C '{' '.join(words)}'",
    }[shell]
    found = subprocess.run([shell, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert found.stderr == ""
    return {line.split("\t")[0] for line in found.stdout.split("\n") if line}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_offers_what_fits(shell: str, scripts: dict[str, Path]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}: apt-get install {shell}")
    assert [offered(shell, scripts[shell], words) for words, _ in EXPECTED] == [expected for _, expected in EXPECTED]


def test_zsh_takes_the_script(scripts: dict[str, Path]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh: apt-get install zsh")
    asked = f"autoload -U compinit && compinit -u -D; source {scripts['zsh']}; print ${{_comps[metarl]}}"
    found = subprocess.run(["zsh", "-f", "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert "_metarl" in found.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_holds_every_name(shell: str, scripts: dict[str, Path]) -> None:
    words = set(scripts[shell].read_text().replace("'", " ").replace('"', " ").split())
    assert {*COMMANDS, *listed_learners(), *listed_families(), *MODULES} <= words


@pytest.mark.parametrize("words", [[], ["csh"], ["bash", "zsh"]])
def test_another_shell_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match=r"metarl completion takes the name of one shell \(bash, zsh, fish\), not "):
        run(words)
