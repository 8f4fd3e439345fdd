"""The routes: a task's whole life, and what is refused on the way, with status and line."""

import json
from typing import Any

import numpy as np
import pytest

from metarl.serving.app import Limits
from metarl.worlds.numpy_env import TaskEnv
from tests.serving.serving import UNKNOWN, Server, lived, same, served
from tests.serving.test_rebuilding import make_env


def outcome(task: str, **changes: Any) -> dict[str, Any]:
    """Return the feedback of one step of 2D navigation, with changes."""
    step = {"reward": -1.0, "terminated": False, "truncated": False, "next_observation": [0.1, 0.0]}
    return {"task": task, **step, **changes}


def test_a_task_is_submitted_executed_answered_listed_and_deleted(maml: str, url: str) -> None:
    with served(maml, url) as server:
        check_a_life(server, make_env(maml))


def check_a_life(server: Server, env: TaskEnv) -> None:
    made = server.post("/tasks", description="reach the goal", seed=3)
    assert made.status_code == 201
    task = made.json()["id"]
    action = server.post("/execute_task", task=task, observation=[0.0, 0.0]).json()
    assert (action["episode"], action["step"], len(action["action"])) == (0, 0, 2)
    assert np.abs(action["action"]).max() <= np.float32(0.1)  # the env's own units
    told = server.post("/feedback", **outcome(task)).json()
    assert (told["ended"], told["returns"], told["adapted"]) == (False, None, False)
    assert server.http.get(f"/tasks/{task}").json()["waiting_for"] == "action"
    server.post("/execute_task", task=task)  # at what feedback gave
    assert server.http.get(f"/tasks/{task}").json()["waiting_for"] == "feedback"
    told = server.post("/feedback", **outcome(task, truncated=True)).json()
    assert (told["ended"], told["returns"], told["adapted"], told["step"]) == (True, [-2.0], False, 1)
    lived(server.client.open(task), env, 0)  # the second of two episodes that training adapts to
    state = server.http.get(f"/tasks/{task}").json()
    assert (state["episodes"], state["adaptation_steps"], state["waiting_for"]) == (2, 1, "observation")
    assert [each["adaptation_steps"] for each in state["history"]] == [0, 0]
    (listed,) = server.http.get("/tasks").json()
    assert listed == {key: state[key] for key in listed}
    assert server.http.delete(f"/tasks/{task}").status_code == 204
    assert server.http.get("/tasks").json() == []
    assert server.http.get(f"/tasks/{task}").status_code == 404


def test_adaptation_changes_the_actions(server: Server, maml: str) -> None:
    env = make_env(maml)
    task, other = (server.client.task(seed=5, adapt_after=count) for count in (1, 9))
    first, second = ([lived(each, env, 0, seed=4) for _ in range(2)] for each in (task, other))
    assert same(first[0], second[0])
    assert same(second[0], second[1])  # the same draws
    assert not same(first[0], first[1])


def test_deterministic_episodes_do_not_depend_on_the_seed(server: Server, maml: str) -> None:
    env = make_env(maml)
    drawn = [lived(server.client.task(seed=seed), env, 0) for seed in (1, 2)]
    modes = [lived(server.client.task(seed=seed), env, 0, deterministic=True) for seed in (1, 2)]
    assert not same(*drawn)
    assert same(*modes)


def test_episodes_side_by_side_end_on_their_own(server: Server) -> None:
    task = server.client.task(episodes=2, adapt_after=2)
    assert np.shape(task.act(np.zeros((2, 2)))) == (2, 2)
    after = np.zeros((2, 2))
    assert not task.feedback([1.0, 2.0], [True, False], [False, False], after).ended
    task.act()
    told = task.feedback([50.0, 3.0], [False, False], [False, True], after)
    assert (told.ended, told.returns, told.adapted) == (True, [1.0, 5.0], True)
    (episode,) = task.state()["history"]
    assert episode["steps"] == 3


def test_what_is_sent_again_is_not_taken_twice(server: Server) -> None:
    task = server.client.task().id
    asked = {"task": task, "observation": [0.0, 0.0]}
    first, second = (server.post("/execute_task", **asked).json() for _ in range(2))
    assert first == second
    for end in (False, True):
        given = outcome(task, truncated=end, episode=0, step=int(end))
        told = [server.post("/feedback", **given).json() for _ in range(2)]
        assert told[0] == told[1]
        assert told[0]["ended"] is end
        if not end:
            server.post("/execute_task", task=task)
    assert server.http.get(f"/tasks/{task}").json()["steps"] == 2


def test_a_recorded_episode_teaches_a_learner_with_a_memory(rl2: str, url: str) -> None:
    with served(rl2, url) as server:
        task = server.client.task(seed=1)
        told = task.recorded(np.zeros((4, 2)), np.zeros((3, 2)), [1.0, 0.0, 0.5], True)
        assert (told.ended, told.returns, told.step, told.adapted) == (True, [1.5], 2, True)
        known, unknown = task.act([0.0, 0.0]), server.client.task(seed=1).act([0.0, 0.0], seed=9)
        assert known.tolist() != unknown.tolist()
        assert task.state()["history"][0]["recorded"]
        answer = server.post("/tasks", adapt_after=2)
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "rl2 adapts after every episode; leave adapt_after out",
        )


def test_every_request_is_counted(maml: str, url: str) -> None:
    with served(maml, url) as server:
        lived(server.client.task(), make_env(maml), 0)
        text = server.http.get("/metrics").text
    assert 'metarl_requests_total{route="/execute_task",status="200"} 6.0' in text
    assert "metarl_episodes_total 1.0" in text
    assert "metarl_open_tasks 1.0" in text


def test_health_says_what_is_served(server: Server) -> None:
    found = server.client.health()
    assert (found["status"], found["learner"], found["family"]) == ("ok", "maml-trpo", "navigation-2d")
    assert found["observation"].startswith("Box(")


HUGE = [[0.0, 0.0]] * 3
SHAPE, TYPE, NAN = "must have the shape", "must be numbers", "has a number that is NaN"
REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("/execute_task", {"task": UNKNOWN, "observation": [0, 0]}, 404, "there is no task 000"),
    ("/execute_task", {"task": "../../etc/passwd", "observation": [0, 0]}, 422, "task: String should match"),
    ("/execute_task", {}, 409, "an episode starts with its first observation"),
    ("/execute_task", {"observation": [0.0, 0.0, 0.0]}, 422, r"observation must have the shape [2], not [3]"),
    ("/execute_task", {"observation": HUGE}, 422, SHAPE),
    ("/execute_task", {"observation": [[0.0], [0.0, 1.0]]}, 422, TYPE),
    ("/execute_task", {"observation": ["0", "0"]}, 422, TYPE),
    ("/execute_task", {"observation": [True, False]}, 422, TYPE),
    ("/execute_task", {"observation": [1e300, 0]}, 422, NAN),
    ("/execute_task", {"observation": [10**400, 0]}, 422, TYPE),
    ("/execute_task", {"observation": [0, 0], "seed": -1}, 422, "seed: "),
    ("/execute_task", {"observation": [0, 0], "greedy": True}, 422, "greedy: Extra inputs are not permitted"),
    ("/feedback", outcome(""), 409, "no action waits for its outcome"),
    ("/feedback", outcome("", episode=3), 409, "this is about step 0 of episode 3; the task is at step 0 of episode 0"),
    ("/feedback", {"reward": 1.0}, 422, "give reward, terminated, truncated and next_observation"),
    ("/feedback", {"recorded": {}}, 422, "recorded.observations: Field required"),
    (
        "/feedback",
        {"recorded": {"observations": HUGE, "actions": HUGE[:2], "rewards": [0, 0], "terminated": True}},
        422,
        "maml-trpo adapts to its own actions only",
    ),
    ("/tasks", {"parameters": {"speed": 1}}, 422, "a task needs the parameters ['goal'], not ['speed']"),
    ("/tasks", {"parameters": {"goal": [9, 10**400]}}, 422, "task parameter goal"),
    ("/tasks", {"episodes": 0}, 422, "episodes: "),
    ("/tasks", {"description": "a\0b"}, 422, "description: "),
]


@pytest.mark.parametrize(("path", "content", "status", "line"), REFUSED)
def test_bad_requests_are_refused_in_one_line(
    path: str, content: dict[str, Any], status: int, line: str, server: Server
) -> None:
    task = server.client.task().id
    if path != "/tasks":
        content = {**content, "task": content.get("task") or task}
    answer = server.post(path, **content)
    assert answer.status_code == status
    assert line in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert server.http.get(f"/tasks/{task}").json()["waiting_for"] == "observation"  # nothing has changed


OUTCOMES: list[tuple[dict[str, Any], int, str]] = [
    ({"reward": [1.0]}, 422, "reward must be a single number"),
    ({"reward": 1e300}, 422, "reward has a number that is NaN"),
    ({"terminated": 1}, 422, "terminated must be a single boolean"),
    ({"next_observation": [0.0]}, 422, "next_observation must have the shape [2], not [1]"),
    ({"step": 4}, 409, "this is about step 4 of episode 0; the task is at step 0 of episode 0"),
]


@pytest.mark.parametrize(("changes", "status", "line"), OUTCOMES)
def test_a_bad_outcome_is_refused_and_the_right_one_taken_then(
    changes: dict[str, Any], status: int, line: str, server: Server
) -> None:
    task = server.client.task().id
    server.post("/execute_task", task=task, observation=[0.0, 0.0])
    answer = server.post("/feedback", **outcome(task, **changes))
    assert (answer.status_code, line in answer.json()["detail"]) == (status, True)
    assert server.post("/feedback", **outcome(task)).status_code == 200


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"observation": [0.5, 0.5]}, "the observation is not this step's"),
        ({"deterministic": True}, "this episode began with another deterministic"),
        ({"seed": 1}, "this episode began with another seed"),
    ],
)
def test_an_episode_goes_on_as_it_began(content: dict[str, Any], line: str, server: Server) -> None:
    task = server.client.task().id
    server.post("/execute_task", task=task, observation=[0.0, 0.0])
    answers = [server.post("/execute_task", task=task, **content)]  # before the outcome, and after it
    server.post("/feedback", **outcome(task))
    answers.append(server.post("/execute_task", task=task, **content))
    assert [answer.status_code for answer in answers] == [409, 409]
    assert all(line in answer.json()["detail"] for answer in answers)


def test_a_step_is_answered_alike_with_and_without_the_framework(server: Server) -> None:
    answers = []
    for kind in ("application/json", "application/json; charset=utf-8"):
        task = server.client.task(seed=1).id
        for path, content in (("/execute_task", {"task": task, "observation": [0, 0]}), ("/feedback", outcome(task))):
            answer = server.http.post(path, content=json.dumps(content), headers={"content-type": kind})
            answers.append((answer.status_code, answer.text.replace(task, ""), answer.headers["content-type"]))
    assert answers[:2] == answers[2:]
    assert answers[0][0] == 200


def test_json_that_is_none_is_refused(server: Server) -> None:
    task = server.client.task().id
    not_a_number = b'{"task": "%s", "observation": [NaN, 0]}' % task.encode()
    for body, status in ((b"{", 400), (b"[" * 100_000, 400), (b"\xff", 400), (not_a_number, 422)):
        answer = server.http.post("/execute_task", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status
        assert answer.json()["detail"]


def test_an_episode_ends_at_the_horizon(server: Server) -> None:
    task = server.client.task()
    task.act([0.0, 0.0])
    for _ in range(5):
        task.feedback(0.0, False, False, [0.0, 0.0])
        task.act()
    answer = server.post("/feedback", **outcome(task.id))
    assert (answer.status_code, "horizon of 6: set truncated" in answer.json()["detail"]) == (422, True)
    assert server.post("/feedback", **outcome(task.id, truncated=True)).json()["ended"]


def test_rewards_that_adaptation_cannot_bear_leave_the_learner_as_it_was(server: Server) -> None:
    task = server.client.task(adapt_after=1)
    task.act([0.0, 0.0], deterministic=True)
    task.feedback(3e38, False, False, [0.0, 0.0])
    task.act()
    told = task.feedback(-3e38, True, False, [0.0, 0.0])
    assert told.ended
    assert not told.adapted
    assert told.problem is not None
    assert np.isfinite(task.act([0.0, 0.0])).all()


def test_only_so_many_tasks_are_kept(maml: str, url: str) -> None:
    with served(maml, url, max_tasks=1) as server:
        server.client.task()
        answer = server.post("/tasks")
        assert (answer.status_code, answer.json()["detail"]) == (
            409,
            "there are 1 tasks, the most that this server keeps; delete some, or raise --max-tasks",
        )


def test_a_token_is_needed_where_there_is_one(maml: str, url: str) -> None:
    with served(maml, url, Limits(token="secret")) as server:
        assert server.client.task().state()["episodes"] == 0
        del server.http.headers["Authorization"]
        for wrong in ("", "secret", "Bearer wrong", "Bearer secret2"):
            answer = server.http.get("/tasks", headers={"Authorization": wrong})
            assert answer.status_code == 401
            assert "the token is wrong or missing" in answer.json()["detail"]
        assert [server.http.get(path).status_code for path in ("/", "/health", "/openapi.json")] == [200] * 3
        assert [server.http.get(path).status_code for path in ("/metrics", "/events", "/nothing")] == [401] * 3


def test_one_address_makes_only_so_many_requests_a_second(maml: str, url: str) -> None:
    with served(maml, url, Limits(rate=5)) as server:
        answers = [server.http.get("/openapi.json") for _ in range(30)]
        late = [answer for answer in answers if answer.status_code == 429]
        assert late
        assert "more than 5 requests in a second" in late[0].json()["detail"]


def test_a_body_is_no_larger_than_a_whole_episode(server: Server) -> None:
    answer = server.http.post("/tasks", json={"description": "x" * 10**7})
    assert (answer.status_code, "the body is larger than" in answer.json()["detail"]) == (413, True)
    pieces = (b"x" * 2**16 for _ in range(100))  # whose length is not said before
    assert server.http.post("/tasks", content=pieces).status_code == 413
