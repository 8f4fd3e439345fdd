"""PPO on chunks of trials: truncated backpropagation through the memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.agents.in_context.memory_ppo import MemoryPpoLearner
from metarl.devices.transfer import read
from metarl.errors import InputError
from metarl.rollouts.trials import Trials
from tests.agents.in_context.test_images import IMAGES, MAKERS, trial
from tests.agents.in_context.test_trial_ppo import made
from tests.agents.language.models import memory_settings
from tests.fakes import EchoFamily


def gradients(learner: MemoryPpoLearner, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(learner.network.parameters()), materialize_grads=True))


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory", list(MEMORIES))
@pytest.mark.parametrize("steps", [1, 3, 4, 100])
def test_chunks_have_the_losses_of_their_trials(memory: str, steps: int) -> None:
    # Trials of unequal lengths; with one step a memory may change in place.
    learner, rollouts = made(**memory_settings(memory), bptt_steps=steps, episode_discount=0.5)
    trials = Trials.of(rollouts)
    chunks = learner.chunks(trials)
    assert len(chunks.rewards) == 6 * -(-trials.valid.shape[1] // steps)
    (_, whole), (_, parts) = learner.loss(trials), learner.loss_of_chunks(chunks)
    assert read(parts) == pytest.approx(read(whole), rel=1e-4, abs=1e-5)


def test_a_chunk_as_long_as_a_trial_has_its_gradients() -> None:
    learner, rollouts = made(bptt_steps=3 * EchoFamily().horizon)
    trials = Trials.of(rollouts)
    chunks = learner.chunks(trials)
    close(*(gradients(learner, loss) for loss in (learner.loss_of_chunks(chunks)[0], learner.loss(trials)[0])))


def test_gradients_end_where_a_chunk_begins() -> None:
    learner, rollouts = made(bptt_steps=4, normalize_advantages=False)
    # By hand: three chunks read one after another, the memory detached between them, and the terms of the loss.
    trials = Trials.of(rollouts).padded(12)
    inputs, memory = learner.trial_inputs(trials), learner.network.initial(6)
    outputs: list[tuple[Any, Tensor]] = []
    for start in (0, 4, 8):
        memory = {name: value.detach() for name, value in memory.items()}
        distribution, values, memory = learner.network(inputs[:, start : start + 4], memory)
        outputs.append((distribution, values))
    log_probs = torch.cat(
        [each.log_prob(trials.actions[:, 4 * i : 4 * i + 4]) for i, (each, _) in enumerate(outputs)], 1
    )
    values = torch.cat([each for _, each in outputs], 1) * learner._share_ahead(trials)
    advantages = learner.advantages(trials, values.detach())
    gain = (log_probs - log_probs.detach()).exp() * advantages
    errors = (values - values.detach() - advantages).square()
    entropies = torch.cat([each.entropy() for each, _ in outputs], 1)
    config = learner.config
    terms = 0.5 * config.value_weight * errors - gain - config.entropy_weight * entropies
    expected = gradients(learner, terms[trials.valid].mean())
    close(gradients(learner, learner.loss_of_chunks(learner.chunks(trials))[0]), expected)
    whole = gradients(learner, learner.loss(trials)[0])
    assert any((one - other).abs().max() > 1e-5 for one, other in zip(whole, expected, strict=True))


def test_chunks_after_the_ends_of_trials_change_nothing() -> None:
    learner, rollouts = made(bptt_steps=2)
    chunks = learner.chunks(Trials.of(rollouts))
    counted = chunks.trials.valid.any(-1)
    assert not counted.all()
    all_of_them, some = chunks[torch.arange(len(counted))], chunks[counted.nonzero().squeeze(-1)]
    close(*(gradients(learner, learner.loss_of_chunks(each)[0]) for each in (all_of_them, some)))


def test_no_minibatch_has_only_chunks_after_the_ends_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, rollouts = made(bptt_steps=1, minibatches=64, epochs=1)
    counted = int(learner.chunks(Trials.of(rollouts)).trials.valid.any(-1).sum())
    sizes: list[int] = []
    loss = learner.loss_of_chunks
    monkeypatch.setattr(
        learner, "loss_of_chunks", lambda part: sizes.append(int(part.trials.valid.sum())) or loss(part)
    )
    learner.update(rollouts)
    assert min(sizes) > 0
    assert sum(sizes) == counted


def test_chunks_are_no_longer_than_the_longest_trial() -> None:
    learner, rollouts = made(bptt_steps=4000)
    chunks = learner.chunks(Trials.of(rollouts))
    assert chunks.rewards.shape == Trials.of(rollouts).rewards.shape[:1]
    close(
        *(
            gradients(learner, loss)
            for loss in (learner.loss_of_chunks(chunks)[0], learner.loss(Trials.of(rollouts))[0])
        )
    )


def test_an_update_takes_its_minibatches_from_all_chunks() -> None:
    learner, rollouts = made(bptt_steps=4, minibatches=5, epochs=2)
    learner.update(rollouts)
    assert {int(entry["step"]) for entry in learner.state_dict()["moments"].values()} == {10}


@pytest.mark.parametrize("name", ["rl2", "hyper-rl2"])
def test_chunks_of_images_train_the_encoder(name: str) -> None:
    learner: MemoryPpoLearner = MAKERS[name](bptt_steps=3)
    trials = Trials.of(trial(learner, IMAGES))
    loss, metrics = learner.loss_of_chunks(learner.chunks(trials))
    assert read(metrics) == pytest.approx(read(learner.loss(trials)[1]), rel=1e-4, abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None and value.grad.any() for value in learner.inputs.encoder.parameters())


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(InputError, match="bptt_steps must be 0 or more"):
        made(bptt_steps=-1)
