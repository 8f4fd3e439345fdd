import torch

from metarl.numerics.distributions import EDGE, SquashedGaussian


def gaussians(count: int = 5, size: int = 1, seed: int = 0) -> SquashedGaussian:
    stream = torch.Generator().manual_seed(seed)
    mean, log_std = (torch.randn(count, size, generator=stream, dtype=torch.float64) for _ in range(2))
    return SquashedGaussian(mean, 0.3 * log_std)


def test_densities_sum_to_one() -> None:
    points = torch.linspace(-EDGE, EDGE, 400_001, dtype=torch.float64)
    for mean, log_std in zip(*gaussians().tensors(), strict=True):
        density = SquashedGaussian(mean, log_std).log_prob(points[:, None]).exp()
        assert abs(torch.trapezoid(density, points).item() - 1) < 1e-3


def test_the_density_is_that_of_torch() -> None:
    squashed = gaussians(size=3)
    actions = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.9 - 0.95
    normal = torch.distributions.Normal(squashed.mean, squashed.log_std.exp())
    reference = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform()])
    torch.testing.assert_close(squashed.log_prob(actions), reference.log_prob(actions).sum(-1))


def test_samples_are_squashed_gaussian_ones() -> None:
    one = SquashedGaussian(torch.tensor([[0.5, -1.0]]).expand(20_000, 2), torch.tensor([[0.1, -0.5]]).expand(20_000, 2))
    before = one.sample(torch.Generator().manual_seed(0)).atanh()
    torch.testing.assert_close(before.mean(0), torch.tensor([0.5, -1.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(before.std(0).log(), torch.tensor([0.1, -0.5]), atol=0.03, rtol=0)


def test_the_mode_is_the_squashed_mean() -> None:
    torch.testing.assert_close(gaussians().mode(), gaussians().mean.tanh())


def test_extreme_actions_have_finite_densities() -> None:
    wide = SquashedGaussian(torch.tensor([[50.0]]), torch.tensor([[2.0]]))
    actions = wide.sample(torch.Generator().manual_seed(0))
    assert actions.abs().max() < 1
    for extreme in (actions, torch.ones(1, 1), -torch.ones(1, 1)):
        assert wide.log_prob(extreme).isfinite().all()


def test_the_divergence_is_zero_only_from_itself() -> None:
    one, other = gaussians(seed=0), gaussians(seed=1)
    torch.testing.assert_close(one.kl(one), torch.zeros(5, dtype=torch.float64))
    assert (one.kl(other) > 0).all()
