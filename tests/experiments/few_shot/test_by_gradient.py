import pytest
import torch
from tensordict import TensorDict

from metarl.experiments.few_shot.by_gradient import GradientSettings, Network, maml, minibatches, reptile
from metarl.experiments.few_shot.problems import Characters, Sinusoids
from metarl.numerics.params import leaf, names


def line(weight: float, bias: float, step_size: float) -> Network:
    """Return the network y = weight x + bias."""
    network = Network(Sinusoids(), GradientSettings(step_size, 1, 0.0, 0), torch.Generator())
    network.params = leaf(TensorDict({"weight_0": torch.tensor([[weight]]), "bias_0": torch.tensor([bias])}))
    return network


def test_an_inner_step_and_the_slope_through_it_by_hand() -> None:
    # One point (2, 3) of one task: the error w 2 + b - 3 is -2 at w = 0, b = 1, and the slopes are 2 error (2, 1).
    point = torch.tensor([[[2.0]]]), torch.tensor([[[3.0]]])
    own = line(0.0, 1.0, 0.1).adapted([point])
    torch.testing.assert_close(own["weight_0"][0], torch.tensor([[0.8]]))  # 0 - 0.1 * 2 * -2 * 2
    torch.testing.assert_close(own["bias_0"][0], torch.tensor([1.4]))
    # After the step the error is 0: -2 (1 - 0.1 * 2 * 5); one of a fourth of the step size leaves three fourths of it.
    network = line(0.0, 1.0, 0.025)
    own = network.adapted([point], graph=True)
    loss = Sinusoids().loss(network.outputs(own, point[0]), point[1]).sum()
    (slope,) = torch.autograd.grad(loss, [network.params["bias_0"]])
    # The loss is (0.75 error)²: its slope by b is 0.75² of 2 error.
    torch.testing.assert_close(slope, torch.tensor([0.75**2 * 2 * -2.0]))


def test_minibatches_hold_every_example_once_in_an_order_of_each_tasks_own() -> None:
    tasks = Characters().draw(4, torch.Generator().manual_seed(0))
    pieces = list(minibatches(tasks, 8, torch.Generator().manual_seed(1)))
    assert [inputs.shape[1] for inputs, _ in pieces] == [8, 8, 8, 6]
    inputs, targets = (torch.cat(parts, 1) for parts in zip(*pieces, strict=True))
    known = torch.cat([tasks.support, tasks.query], 1), torch.cat([tasks.answers, tasks.truth], 1)
    found = torch.cdist(inputs, known[0]).argmin(-1)
    assert torch.equal(found.sort(-1).values, torch.arange(30).expand(4, -1))
    assert len(found.unique(dim=0)) == 4
    assert torch.equal(targets, known[1][torch.arange(4)[:, None], found])


@pytest.mark.parametrize(
    ("method", "settings"),
    [(maml, GradientSettings(0.01, 1, 3e-3, 60)), (reptile, GradientSettings(0.02, 5, 1.0, 60, activation=torch.tanh))],
)
def test_training_makes_adaptation_better(method: type, settings: GradientSettings) -> None:
    problem = Sinusoids()
    tasks = problem.draw(50, torch.Generator().manual_seed(1))
    predict = method(problem, settings, torch.Generator().manual_seed(0))
    untrained = Network(problem, settings, torch.Generator().manual_seed(0)).answers
    error, before = (problem.score(each(tasks), tasks.truth).mean() for each in (predict, untrained))
    assert error < 0.95 * before


def test_reptile_takes_the_mean_of_the_adapted_parameters() -> None:
    problem = Characters()
    settings = GradientSettings(0.5, 1, 1.0, 1)  # all the way, once
    predict = reptile(problem, settings, torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(0)
    network = Network(problem, settings, stream)
    own = network.adapted(minibatches(problem.draw(25, stream), 10, stream))
    network.params = leaf(TensorDict({name: own[name].mean(0) for name in names(own)}))
    asked = problem.draw(3, stream, held_out=True)
    torch.testing.assert_close(predict(asked), network.answers(asked), rtol=1e-3, atol=1e-4)
