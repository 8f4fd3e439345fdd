import torch
from tensordict import TensorDict

from metarl.experiments.few_shot.by_gradient import GradientSettings, adapted, maml, predictions, reptile
from metarl.experiments.few_shot.problems import Characters, Sinusoids, Tasks
from metarl.networks import init_mlp
from metarl.params import leaf, names


def line(weight: float, bias: float) -> TensorDict:
    """Return the network y = weight x + bias."""
    return TensorDict(
        {"weight_0": torch.tensor([[weight]]).requires_grad_(), "bias_0": torch.tensor([bias]).requires_grad_()}
    )


def test_an_inner_step_and_the_slope_through_it_by_hand() -> None:
    # One point (2, 3) of one task: the error w 2 + b - 3 is -2 at w = 0, b = 1, and the slopes are 2 error (2, 1).
    params, problem = line(0.0, 1.0), Sinusoids()
    point = torch.tensor([[[2.0]]]), torch.tensor([[[3.0]]])
    own = adapted(problem, params, Tasks(*point, *point), GradientSettings(0.1, 1, 0.0, 0), graph=True)
    torch.testing.assert_close(own["weight_0"][0], torch.tensor([[0.8]]))  # 0 - 0.1 * 2 * -2 * 2
    torch.testing.assert_close(own["bias_0"][0], torch.tensor([1.4]))
    # After the step the error is 0: -2 (1 - 0.1 * 2 * 5); one of a fourth of the step size leaves three fourths of it.
    settings = GradientSettings(0.025, 1, 0.0, 0)
    own = adapted(problem, params, Tasks(*point, *point), settings, graph=True)
    loss = problem.loss(predictions(own, point[0]), point[1]).sum()
    (slope,) = torch.autograd.grad(loss, [params["bias_0"]])
    # The loss is (0.75 error)²: its slope by b is 0.75² of 2 error.
    torch.testing.assert_close(slope, torch.tensor([0.75**2 * 2 * -2.0]))


def test_maml_descends_its_queries_and_reptile_moves_to_what_was_adapted() -> None:
    problem, stream = Sinusoids(), torch.Generator().manual_seed(0)
    tasks = problem.draw(50, torch.Generator().manual_seed(1))
    for method, settings in (
        (maml, GradientSettings(0.01, 1, 3e-3, 60)),
        (reptile, GradientSettings(0.02, 2, 1.0, 60)),
    ):
        error = problem.score(method(problem, settings, stream)(tasks), tasks.truth).mean()
        untrained = predictions(init_mlp([1, 40, 40, 1], stream).expand(50), tasks.query)
        assert error < problem.score(untrained, tasks.truth).mean()


def test_reptile_takes_the_mean_of_the_adapted_parameters() -> None:
    problem = Characters()
    settings = GradientSettings(0.5, 1, 1.0, 1)  # all the way, once
    stream = torch.Generator().manual_seed(0)
    predict = reptile(problem, settings, stream)
    stream.manual_seed(0)
    params = leaf(init_mlp([problem.inputs, 40, 40, problem.outputs], stream))
    tasks = problem.draw(25, stream)
    both = torch.cat([tasks.support, tasks.query], 1), torch.cat([tasks.answers, tasks.truth], 1)
    own = adapted(problem, params, Tasks(*both, *both), settings, graph=False)
    moved = leaf(TensorDict({name: own[name].mean(0) for name in names(own)}))
    asked = problem.draw(3, stream, held_out=True)
    expected = predictions(adapted(problem, moved, asked, settings, graph=False), asked.query)
    torch.testing.assert_close(predict(asked), expected, rtol=1e-3, atol=1e-4)
