from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import metarl
from metarl.envs.simulation import rendering
from metarl.errors import InputError
from metarl.experiments.commands.main import main
from metarl.experiments.commands.render import RenderOptions, parse_task, render
from metarl.families.family import make_family
from metarl.run.config import TrainConfig
from tests.runs import small


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return trained runs by family; nothing is to be left in them but videos."""
    folder = tmp_path_factory.mktemp("runs")
    families = {"navigation-2d": 5, "gridnavi": 4, "half-cheetah-vel": 3}
    for family, horizon in families.items():
        metarl.train(small(folder / family, family, iterations=1, horizon=horizon))
    return {family: str(folder / family) for family in families}


def decoded(path: Path) -> np.ndarray:
    """Return the frames of an MP4."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_a_video_is_written(runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "nav.mp4"
    assert main(["render", runs["navigation-2d"], "--task", "goal=0.3,-0.2", "--out", str(out), "--steps", "2"]) == 0
    # Two captions above three pictures: the start, and a frame for each of the 5 steps.
    assert decoded(out).shape == (6, 256 + 48 + 32, 3 * 256 + 2 * 8, 3)
    said = capsys.readouterr().out
    assert "maml-trpo on navigation-2d (maml), trained for 1 iterations" in said
    assert "task goal=0.3,-0.2; actions sampled" in said
    assert [line.split(" return ")[0].strip() for line in said.splitlines() if " return " in line] == [
        "before adaptation",
        "after adaptation step 1",
        "after adaptation step 2",
    ]
    assert said.endswith(f"video     {out} (6 frames, 4 per second)\n")


def test_by_default_it_is_the_first_test_task_and_is_in_the_run(runs: dict[str, str]) -> None:
    said = render(RenderOptions(runs["gridnavi"]))
    video = Path(runs["gridnavi"]) / "adaptation.mp4"
    first = TrainConfig("maml-trpo", "gridnavi").split().held_out_tasks("test", 1)["goal"][0].tolist()
    assert f"task goal={first[0]},{first[1]};" in said
    assert str(video) in said
    assert len(decoded(video)) == 5


def test_a_gif_is_written(runs: dict[str, str], tmp_path: Path) -> None:
    render(RenderOptions(runs["gridnavi"], out=str(tmp_path / "grid.gif"), steps=0))
    with Image.open(tmp_path / "grid.gif") as file:
        assert file.n_frames == 5  # type: ignore[attr-defined]


def test_the_same_options_give_the_same_video(runs: dict[str, str], tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        render(RenderOptions(runs["navigation-2d"], out=str(tmp_path / f"{name}.mp4"), seed=seed))
    one, same, other = (decoded(tmp_path / f"{name}.mp4") for name in ("one", "same", "other"))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_deterministic_actions_are_the_policys_mode(runs: dict[str, str], tmp_path: Path) -> None:
    captions = [
        render(RenderOptions(runs["navigation-2d"], out=str(tmp_path / "nav.mp4"), deterministic=True, seed=seed))
        for seed in (1, 2)
    ]
    before = [text.splitlines()[3] for text in captions]
    assert before[0] == before[1]  # starts and moves of navigation-2d are not random
    assert "actions deterministic" in captions[0]


def test_the_number_of_episodes_matters(runs: dict[str, str], tmp_path: Path) -> None:
    captions = [
        render(RenderOptions(runs["navigation-2d"], out=str(tmp_path / "nav.mp4"), episodes=count)).splitlines()
        for count in (1, 8)
    ]
    before, after = zip(*((lines[3], lines[4]) for lines in captions), strict=True)
    assert before[0] == before[1]
    assert after[0] != after[1]


@pytest.mark.parametrize(
    ("family", "words", "complaint"),
    [
        ("navigation-2d", "--task gaol=0,0", r"takes KEY=VALUE for goal in Box(-0.5, 0.5, (2,), float32)"),
        ("navigation-2d", "--task goal=0,0 speed=1", "each once; not goal=0,0 speed=1"),
        ("navigation-2d", "--task goal=0,0 goal=0,0", "each once; not goal=0,0 goal=0,0"),
        (
            "navigation-2d",
            "--task goal",
            "takes KEY=VALUE for goal in Box(-0.5, 0.5, (2,), float32), each once; not goal",
        ),
        ("navigation-2d", "--task goal=", "goal =  does not fit Box(-0.5, 0.5, (2,), float32)"),
        ("navigation-2d", "--task goal=0.1", "goal = 0.1 does not fit Box(-0.5, 0.5, (2,), float32)"),
        ("navigation-2d", "--task goal=0,0,0", "does not fit Box(-0.5, 0.5, (2,), float32)"),
        ("navigation-2d", "--task goal=near,far", "goal = ['near', 'far'] does not fit Box(-0.5, 0.5, (2,), float32)"),
        ("navigation-2d", "--task goal=0,0.7", "goal = ['0', '0.7'] lies outside Box(-0.5, 0.5, (2,), float32)"),
        ("navigation-2d", "--task goal=0,nan", "goal = ['0', 'nan'] lies outside Box(-0.5, 0.5, (2,), float32)"),
        ("gridnavi", "--task goal=1.5,2", "goal = ['1.5', '2'] lies outside Box(0, 4, (2,), int64)"),
        ("gridnavi", "--task goal=0,0", "there is no task"),
        ("half-cheetah-vel", "--task velocity=9", "velocity = 9 lies outside Box(0.0, 3.0, (), float32)"),
        ("half-cheetah-vel", "--task velocity=fast", "velocity = fast does not fit Box(0.0, 3.0, (), float32)"),
        ("half-cheetah-vel", "--task speed=1", "velocity in Box(0.0, 3.0, (), float32), each once; not speed=1"),
        ("gridnavi", "--steps -1", "steps >= 0 and episodes >= 1, not -1 and 3"),
        ("gridnavi", "--episodes 0", "steps >= 0 and episodes >= 1, not 1 and 0"),
        (
            "gridnavi",
            "--checkpoint worst",
            "--checkpoint takes latest, best or the number of an iteration, not 'worst'",
        ),
        ("gridnavi", "--device toaster", "unknown device 'toaster'"),
        ("gridnavi", "--out grid.avi", "give --out a name with that ending, not grid.avi"),
        ("gridnavi", "--out there/grid.mp4", "there is no folder there for grid.mp4; create it"),
        ("gridnavi", "--tasks 3", "Unrecognized options: --tasks"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    family: str,
    words: str,
    complaint: str,
    runs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = words if "--out" in words else f"{words} --out video.mp4"
    assert main(["render", runs[family], *given.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("metarl: ")
    assert said.err.count("\n") == 1
    assert complaint in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["nowhere"], ["nowhere", "--task", "goal=0,0"]])
def test_a_missing_run_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", *words]) == 2
    assert capsys.readouterr().err == (
        "metarl: there is no run directory nowhere; metarl runs FOLDER lists the runs in a folder\n"
    )


def test_without_opengl_it_is_one_line_and_no_file(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendering, "find_library", lambda name: None)
    assert main(["render", runs["half-cheetah-vel"], "--out", str(tmp_path / "cheetah.mp4")]) == 2
    said = capsys.readouterr().err
    assert "MuJoCo cannot render on this machine (neither EGL nor OSMesa is available); install EGL or OSMesa" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("family", "words", "expected"),
    [
        ("half-cheetah-vel", ["velocity=1.7"], {"velocity": 1.7}),
        ("navigation-2d", ["goal=-0.3,2e-1"], {"goal": [-0.3, 0.2]}),
        ("gridnavi", ["goal=4,3"], {"goal": [4, 3]}),
        ("cartpole-params", ["gravity=9.8", "length=0.5"], {"length": 0.5, "gravity": 9.8}),
        ("bandit", ["probabilities=0,0.25,0.5,0.75,1"], {"probabilities": [0, 0.25, 0.5, 0.75, 1]}),
    ],
)
def test_words_are_a_task(family: str, words: list[str], expected: dict[str, object]) -> None:
    task = parse_task(make_family(family), words)
    assert task.batch_size == torch.Size([1])
    for key, value in expected.items():
        assert torch.allclose(task[key][0].double(), torch.tensor(value).double())


def test_a_long_list_of_ranges_is_one_line() -> None:
    with pytest.raises(InputError) as failure:
        parse_task(make_family("walker2d-rand-params"), ["mass=1"])
    assert "\n" not in str(failure.value)
