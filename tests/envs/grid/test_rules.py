from typing import Any

import pytest
import torch
from tensordict import TensorDict

from metarl.envs.grid.rules import HUE, KIND, OBJECT_BITS, RELATIONS, RuleWorlds
from metarl.errors import InputError
from metarl.families.splits import TaskSplit
from metarl.worlds.vector_env import TaskVectorEnv
from tests.envs.grid.test_engine import DOWN, LEFT, RIGHT, STAY, STEPS, UP, USE, Cell, drawn, random_actions, worlds

FAMILY = RuleWorlds(distractors=1)
BESIDE, ABOVE, RIGHT_OF, BELOW, LEFT_OF = range(5)
MOVER, TARGET, DISTRACTOR = (0, 0), (1, 3), (2, 5)
# The mover at (1, 1), the target at (3, 3), the distractor at (5, 1).
TASK: dict[str, Any] = {
    "relation": BESIDE,
    "objects": [MOVER, TARGET, DISTRACTOR],
    "cells": [(1, 1), (3, 3), (5, 1)],
}
# With a fusion: the mover's first form at (1, 1), its partner at (1, 4), the target at (5, 5).
FUSION = RuleWorlds(fusions=1, distractors=0)
FORM, FUSED, PARTNER = (3, 1), (4, 2), (5, 0)
FUSION_TASK: dict[str, Any] = {
    "relation": LEFT_OF,
    "objects": [FORM, FUSED, PARTNER, TARGET],
    "cells": [(1, 1), (1, 4), (5, 5)],
}


class Play:
    """One world, and where its agent is."""

    def __init__(self, family: RuleWorlds, task: dict[str, Any]) -> None:
        self.family = family
        self.env: TaskVectorEnv = worlds(family, family.make_task(task))
        self.observation = self.env.reset()[0][0]
        self.cell: Cell = (0, 0)

    def act(self, action: int) -> tuple[float, bool]:
        observations, rewards, terminated, *_ = self.env.step(torch.tensor([action]))
        self.observation = observations[0]
        self.cell = self.cell[0] + STEPS[action][0], self.cell[1] + STEPS[action][1]
        return rewards.item(), bool(terminated)

    def go(self, x: int, y: int) -> None:
        """Move without picking up or putting down; there must be no reward on the way."""
        while self.cell != (x, y):
            dx, dy = x - self.cell[0], y - self.cell[1]
            move = (RIGHT if dx > 0 else LEFT) if dx else (UP if dy > 0 else DOWN)
            assert self.act(move) == (0, False)

    def use_at(self, x: int, y: int) -> tuple[float, bool]:
        self.go(x, y)
        return self.act(USE)

    def bring(self, source: Cell, to: Cell) -> tuple[float, bool]:
        """Pick up at ``source`` and put down at ``to``; return what that gives."""
        assert self.use_at(*source) == (0, False)
        return self.use_at(*to)

    def lying(self) -> dict[Cell, int]:
        """Read the objects' codes from an observation of the map."""
        return {place: code for place, code in self._codes().items() if place[1] < self.family.size}

    def carried(self) -> int:
        return self._codes().get((0, self.family.size), 0)

    def _codes(self) -> dict[Cell, int]:
        size = self.family.size
        planes = self.observation[size**2 :].view(6, size**2 + 1).long()
        codes = (planes * torch.tensor(OBJECT_BITS)[:, None]).sum(0).tolist()
        return {(number % size, number // size): code for number, code in enumerate(codes) if code}


def code(look: Cell) -> int:
    return KIND * (1 + look[0]) + HUE * look[1]


SIDES = {ABOVE: (3, 4), RIGHT_OF: (4, 3), BELOW: (3, 2), LEFT_OF: (2, 3)}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("relation", range(len(RELATIONS)))
def test_only_the_side_that_the_rule_names_fulfils_it(relation: int, side: int) -> None:
    fulfilled = relation in (BESIDE, side)
    play = Play(FAMILY, {**TASK, "relation": relation})
    assert play.bring((1, 1), SIDES[side]) == (float(fulfilled), fulfilled)


@pytest.mark.parametrize("to", [(4, 4), (2, 2), (3, 5), (5, 3), (0, 0)])
def test_a_cell_that_is_no_neighbour_does_not_do(to: Cell) -> None:
    assert Play(FAMILY, TASK).bring((1, 1), to) == (0, False)


def test_neighbours_do_not_reach_around_the_edge() -> None:
    # Cells (6, 2) and (0, 3) have numbers that follow each other.
    play = Play(FAMILY, {**TASK, "cells": [(1, 1), (0, 3), (5, 1)]})
    assert play.bring((1, 1), (6, 2)) == (0, False)


def test_the_target_may_be_brought_to_the_mover() -> None:
    # It then lies right of the mover, which is left of it.
    assert Play(FAMILY, {**TASK, "relation": LEFT_OF}).bring((3, 3), (2, 1)) == (1, True)
    assert Play(FAMILY, {**TASK, "relation": RIGHT_OF}).bring((3, 3), (2, 1)) == (0, False)


def test_a_distractor_fulfils_nothing() -> None:
    assert Play(FAMILY, TASK).bring((5, 1), (3, 2)) == (0, False)
    assert Play(FAMILY, TASK).bring((5, 1), (1, 2)) == (0, False)


def test_mover_and_distractor_are_not_mixed_up() -> None:
    play = Play(FAMILY, TASK)
    assert play.bring((5, 1), (3, 2)) == (0, False)
    assert play.bring((1, 1), (3, 1)) == (0, False)
    assert play.bring((3, 1), (3, 4)) == (1, True)


def test_what_lies_right_at_first_counts_when_something_is_put_down() -> None:
    play = Play(FAMILY, {**TASK, "cells": [(3, 4), (3, 3), (5, 1)]})
    assert play.act(STAY) == (0, False)
    assert play.bring((5, 1), (6, 1)) == (1, True)


def test_carrying_is_not_lying() -> None:
    play = Play(FAMILY, TASK)
    play.use_at(1, 1)
    play.go(3, 2)
    assert play.act(STAY) == (0, False)


def test_the_hand_holds_one_object_and_a_cell_too() -> None:
    play = Play(FAMILY, TASK)
    assert play.lying() == {(1, 1): code(MOVER), (3, 3): code(TARGET), (5, 1): code(DISTRACTOR)}
    play.use_at(1, 1)
    assert (play.carried(), play.lying()) == (code(MOVER), {(3, 3): code(TARGET), (5, 1): code(DISTRACTOR)})
    # On another object nothing can be put down or picked up.
    play.use_at(5, 1)
    assert (play.carried(), play.lying()) == (code(MOVER), {(3, 3): code(TARGET), (5, 1): code(DISTRACTOR)})
    play.use_at(6, 6)
    assert play.carried() == 0
    assert play.lying() == {(6, 6): code(MOVER), (3, 3): code(TARGET), (5, 1): code(DISTRACTOR)}


def test_use_on_an_empty_cell_with_empty_hands_does_nothing() -> None:
    play = Play(FAMILY, TASK)
    before = play.observation
    assert play.act(USE) == (0, False)
    assert torch.equal(play.observation, before)


def test_a_new_episode_puts_everything_back() -> None:
    play = Play(FUSION, FUSION_TASK)
    before = play.observation
    play.bring((1, 1), (1, 3))
    play.use_at(1, 3)
    assert torch.equal(play.env.reset()[0][0], before)


def test_form_and_partner_become_the_next_form() -> None:
    play = Play(FUSION, FUSION_TASK)
    assert play.bring((1, 1), (2, 4)) == (1, False)
    assert play.lying() == {(2, 4): code(FUSED), (5, 5): code(TARGET)}
    assert play.bring((2, 4), (6, 5)) == (0, False)  # right of it, not left
    assert play.bring((6, 5), (4, 5)) == (1, True)


def test_the_partner_may_be_brought_to_the_form() -> None:
    play = Play(FUSION, FUSION_TASK)
    assert play.bring((1, 4), (1, 2)) == (1, False)
    assert play.lying() == {(1, 1): code(FUSED), (5, 5): code(TARGET)}


def test_the_first_form_does_not_do_for_the_target() -> None:
    play = Play(FUSION, FUSION_TASK)
    assert play.bring((1, 1), (4, 5)) == (0, False)
    assert play.lying()[4, 5] == code(FORM)


def test_fusions_follow_each_other() -> None:
    family = RuleWorlds(fusions=2, distractors=0)
    looks = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]  # three forms, two partners, the target
    cells = [(1, 0), (3, 0), (5, 0), (5, 5)]
    play = Play(family, {"relation": ABOVE, "objects": looks, "cells": cells})
    assert play.bring((1, 0), (4, 0)) == (1, False)  # between both partners: only the first is met
    assert play.lying() == {(4, 0): code(looks[1]), (5, 0): code(looks[4]), (5, 5): code(looks[5])}
    assert play.bring((4, 0), (5, 1)) == (1, False)
    assert play.lying() == {(5, 1): code(looks[2]), (5, 5): code(looks[5])}
    assert play.bring((5, 1), (5, 6)) == (1, True)


def test_the_window_shows_what_is_carried() -> None:
    family = RuleWorlds(distractors=1, view=3)
    play = Play(family, TASK)
    play.go(1, 1)
    play.act(USE)
    play.act(UP)
    planes = play.observation.view(7, 10).long()
    weights = torch.tensor([1, *OBJECT_BITS])[:, None]
    assert (planes * weights).sum(0).tolist() == [0] * 9 + [code(MOVER)]


@pytest.mark.parametrize("view", [None, 5])
@pytest.mark.parametrize("fusions", [0, 1])
def test_the_rule_cannot_be_seen(view: int | None, fusions: int) -> None:
    # The same objects in the same cells, under another relation and in other roles, look the same until a reward.
    family, count = RuleWorlds(view=view, fusions=fusions, size=3, distractors=2), 400
    tasks = drawn(family, count)
    forms = fusions + 1
    objects, cells = tasks["objects"], tasks["cells"]
    others = torch.cat([objects[:, :1], objects[:, forms:]], 1).roll(1, 1)  # what lies there, in turned roles
    turned = TensorDict(
        {
            "relation": (tasks["relation"] + 1) % 5,
            "objects": torch.cat([others[:, :1], objects[:, 1:forms], others[:, 1:]], 1),
            "cells": cells.roll(1, 1),
        },
        [count],
    )
    envs, alike = [worlds(family, each) for each in (tasks, turned)], torch.ones(count, dtype=torch.bool)
    assert torch.equal(*(env.reset()[0] for env in envs))
    for actions in random_actions(family, 60, count):
        (one, reward, *_), (other, other_reward, *_) = (env.step(actions) for env in envs)
        fused = sum(state_of(env)["fused"] for env in envs)
        alike &= (reward + other_reward + fused) == 0
        assert torch.equal(one[alike], other[alike])
    assert 0 < alike.sum() < count


def state_of(env: TaskVectorEnv) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = vars(env._dynamics)["_state"]
    return state


@pytest.mark.parametrize("fusions", [0, 1])
def test_objects_differ_and_lie_apart(fusions: int) -> None:
    family = RuleWorlds(fusions=fusions)
    tasks = drawn(family, 300)
    for name in ("objects", "cells"):
        rows = tasks[name].tolist()
        assert all(len({tuple(pair) for pair in row}) == len(row) for row in rows)
    assert tasks["cells"].any(-1).all()
    assert tasks["objects"].flatten(0, 1).unique(dim=0).shape == (56, 2)
    assert tasks["relation"].unique().tolist() == [0, 1, 2, 3, 4]


def test_no_goal_of_training_is_met_in_the_test() -> None:
    def goals(tasks: TensorDict) -> set[tuple[int, ...]]:
        named = torch.cat([tasks["relation"][:, None], tasks["objects"][:, :2].flatten(1)], 1)
        return {tuple(row) for row in named.tolist()}

    split = TaskSplit(RuleWorlds())
    train, test = goals(split.train_tasks(20_000, 0)), goals(split.held_out_tasks("test", 100))
    # 9240 goals are for training; of 20,000 draws each meets about 88 % of them.
    assert len(train) > 7000
    assert not train & test


def test_the_same_rule_in_other_words_is_in_the_same_part() -> None:
    # To bring A above B is to bring B below A.
    tasks, parts = drawn(FAMILY, 500), FAMILY.part_of(drawn(FAMILY, 500), 0)
    opposite = torch.tensor([RELATIONS.index(name) for name in ("beside", "below", "left of", "above", "right of")])
    twins = tasks.clone()
    twins["relation"] = opposite[tasks["relation"]]
    twins["objects"][:, :2], twins["cells"][:, :2] = tasks["objects"][:, :2].flip(1), tasks["cells"][:, :2].flip(1)
    assert torch.equal(FAMILY.part_of(twins, 0), parts)
    one, other = TaskVectorEnv(FAMILY, 500), TaskVectorEnv(FAMILY, 500)
    one.set_tasks(tasks)
    other.set_tasks(twins)
    assert torch.equal(one.reset(seed=0)[0], other.reset(seed=0)[0])
    stream = torch.Generator().manual_seed(1)
    fulfilled = 0
    for _ in range(FAMILY.horizon):
        actions = torch.randint(6, (500,), generator=stream)
        expected = other.step(actions)[:3]
        for found, same in zip(one.step(actions)[:3], expected, strict=True):
            assert torch.equal(found, same)
        fulfilled += int(expected[2].sum())
    assert fulfilled > 0


def test_with_fusions_mover_and_partner_have_parts_of_their_own() -> None:
    family = RuleWorlds(fusions=1)
    tasks = drawn(family, 500)
    twins = tasks.clone()
    twins["objects"][:, [0, 2]] = tasks["objects"][:, [2, 0]]
    assert not torch.equal(family.part_of(twins, 0), family.part_of(tasks, 0))


def test_layout_and_distractors_do_not_decide_the_part() -> None:
    family = RuleWorlds()
    tasks = drawn(family, 500)
    parts = family.part_of(tasks, 0)
    tasks["cells"] = tasks["cells"].roll(1, 0)
    tasks["objects"][:, 2:] = tasks["objects"][:, 2:].roll(1, 0)
    assert torch.equal(family.part_of(tasks, 0), parts)
    assert 0.45 < (family.part_of(tasks, 1) != parts).float().mean() < 0.67


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"objects": [MOVER, MOVER, TARGET]}, "the objects of a task must all differ"),
        ({"cells": [(1, 1), (2, 2), (1, 1)]}, "the cells of a task must all differ"),
        ({"cells": [(1, 1), (2, 2), (0, 0)]}, r"no object can lie at \(0, 0\)"),
        ({"objects": [MOVER, TARGET, (7, 0)]}, "task parameter objects = .* lies outside"),
        ({"relation": 5}, "task parameter relation = 5 lies outside"),
        ({"cells": [(1, 1), (2, 2)]}, "task parameter cells = .* does not fit"),
    ],
)
def test_what_is_no_task(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=f"rule-worlds: {match}"):
        FAMILY.make_task({**TASK, **wrong})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"fusions": -1}, "fusions and distractors must not be negative"),
        ({"distractors": -1}, "fusions and distractors must not be negative"),
        ({"size": 3, "distractors": 7}, "has no room for 0 fusions and 7 distractors"),
        ({"size": 9, "fusions": 18, "distractors": 19}, "has no room for 18 fusions"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, int], match: str) -> None:
    with pytest.raises(InputError, match=f"rule-worlds:? {match}"):
        RuleWorlds(**settings)
