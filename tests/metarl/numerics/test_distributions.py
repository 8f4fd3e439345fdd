import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from metarl.numerics.distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical

SEEDS = st.integers(0, 10_000)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))


def random_gaussian(size: tuple[int, ...], stream: torch.Generator) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(size, generator=stream), torch.randn(size, generator=stream) / 2)


def torch_gaussian(ours: DiagonalGaussian) -> Independent:
    return Independent(Normal(ours.mean, ours.log_std.exp()), 1)


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_gaussian_log_prob_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    ours, actions = random_gaussian(size, stream), torch.randn(size, generator=stream)
    torch.testing.assert_close(ours.log_prob(actions), torch_gaussian(ours).log_prob(actions), rtol=1e-4, atol=1e-4)


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_gaussian_kl_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    one, other = random_gaussian(size, stream), random_gaussian(size, stream)
    expected = kl_divergence(torch_gaussian(one), torch_gaussian(other))
    torch.testing.assert_close(one.kl(other), expected, rtol=1e-4, atol=1e-4)


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_gaussian_kl_is_never_negative(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    assert (random_gaussian(size, stream).kl(random_gaussian(size, stream)) >= 0).all()


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_categorical_log_prob_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    ours = Categorical(3 * torch.randn(size, generator=stream))
    actions = torch.randint(size[-1], size[:-1], generator=stream)
    torch.testing.assert_close(ours.log_prob(actions), TorchCategorical(logits=ours.logits).log_prob(actions))


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_categorical_kl_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    one, other = (Categorical(torch.randn(size, generator=stream)) for _ in range(2))
    expected = kl_divergence(TorchCategorical(logits=one.logits), TorchCategorical(logits=other.logits))
    torch.testing.assert_close(one.kl(other), expected, rtol=1e-4, atol=1e-5)


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_categorical_kl_is_never_negative(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    one, other = (Categorical(torch.randn(size, generator=stream)) for _ in range(2))
    assert (one.kl(other) >= -1e-6).all()


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_gaussian_entropy_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    ours = random_gaussian(size, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ours.entropy(), torch_gaussian(ours).entropy(), rtol=1e-5, atol=1e-5)


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_categorical_entropy_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    ours = Categorical(3 * torch.randn(size, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(ours.entropy(), TorchCategorical(logits=ours.logits).entropy(), rtol=1e-5, atol=1e-6)


def test_one_deviation_for_all_means_gives_each_its_entropy() -> None:
    mean, log_std = torch.randn(2, 5, 3), torch.randn(3)
    spread = DiagonalGaussian(mean, log_std.expand_as(mean))
    assert DiagonalGaussian(mean, log_std).entropy().shape == (2, 5)
    torch.testing.assert_close(DiagonalGaussian(mean, log_std).entropy(), spread.entropy())


def test_gaussian_log_prob_sums_over_action_dimensions() -> None:
    # At the mean of three unit Gaussians: 3 · -½ log 2π, not the mean of the three terms.
    unit = DiagonalGaussian(torch.zeros(3), torch.zeros(3))
    assert unit.log_prob(torch.zeros(3)).item() == pytest.approx(-1.5 * math.log(2 * math.pi))


def test_gaussian_kl_by_hand() -> None:
    # KL(N(1, 1) || N(0, 2²)) = log 2 + (1 + 1) / (2·4) - ½ = log 2 - ¼, in each of two dimensions.
    one = DiagonalGaussian(torch.ones(2), torch.zeros(2))
    other = DiagonalGaussian(torch.zeros(2), torch.full((2,), math.log(2)))
    assert one.kl(other).item() == pytest.approx(2 * (math.log(2) - 0.25), abs=1e-6)


def test_kl_goes_from_self_to_other() -> None:
    # KL(p||q) with p = (½, ½), q = (¼, ¾): ½ log 2 + ½ log ⅔ = ½ log 4/3. The other way round it is not the same.
    p, q = Categorical(torch.tensor([0.5, 0.5]).log()), Categorical(torch.tensor([0.25, 0.75]).log())
    assert p.kl(q).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)
    assert q.kl(p).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), abs=1e-6)


@pytest.mark.parametrize("kind", [DiagonalGaussian, Categorical])
def test_kl_to_itself_is_zero(kind: type) -> None:
    tensors = [torch.randn(4, 3) for _ in range(2 if kind is DiagonalGaussian else 1)]
    torch.testing.assert_close(kind(*tensors).kl(kind(*tensors)), torch.zeros(4))


def test_gaussian_log_std_broadcasts_over_observations() -> None:
    mean, log_std = torch.randn(2, 5, 3), torch.randn(2, 1, 3)
    actions = torch.randn(2, 5, 3)
    spread = DiagonalGaussian(mean, log_std.expand(2, 5, 3))
    torch.testing.assert_close(DiagonalGaussian(mean, log_std).log_prob(actions), spread.log_prob(actions))


def test_logits_need_no_normalisation() -> None:
    logits, actions = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(Categorical(logits + 10).log_prob(actions), Categorical(logits).log_prob(actions))


def test_gaussian_samples_have_the_right_moments() -> None:
    # Standard errors at 40,000 draws: 2/200 = 0.01 of the mean, 2/√80000 = 0.007 of the deviation; four of each.
    draws = DiagonalGaussian(torch.full((40_000, 1), 3.0), torch.full((1, 1), math.log(2))).sample(
        torch.Generator().manual_seed(0)
    )
    assert draws.mean().item() == pytest.approx(3, abs=0.04)
    assert draws.std().item() == pytest.approx(2, abs=0.03)


def test_categorical_samples_have_the_right_frequencies() -> None:
    chances = torch.tensor([0.1, 0.2, 0.7])
    draws = Categorical(chances.log().expand(40_000, 3)).sample(torch.Generator().manual_seed(0))
    # Largest standard error √(0.7·0.3/40000) = 0.0023; four of them.
    torch.testing.assert_close(draws.bincount(minlength=3) / 40_000, chances, atol=0.0092, rtol=0)


@pytest.mark.parametrize(
    "distribution", [DiagonalGaussian(torch.zeros(50, 2), torch.zeros(50, 2)), Categorical(torch.zeros(50, 4))]
)
def test_the_same_generator_state_gives_the_same_sample(distribution: DiagonalGaussian | Categorical) -> None:
    one, other = (distribution.sample(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, other)


def test_gaussian_mode_is_the_mean() -> None:
    assert DiagonalGaussian(torch.tensor([1.0, -2.0]), torch.zeros(2)).mode().tolist() == [1.0, -2.0]


def test_categorical_mode_is_the_likeliest_action() -> None:
    assert Categorical(torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])).mode().tolist() == [1, 0]


def test_categorical_actions_are_int64_without_the_action_axis() -> None:
    draws = Categorical(torch.zeros(2, 3, 4)).sample(torch.Generator())
    assert draws.dtype == torch.int64
    assert draws.shape == (2, 3)


def test_gaussian_samples_are_float32() -> None:
    assert DiagonalGaussian(torch.zeros(2), torch.zeros(2)).sample(torch.Generator()).dtype == torch.float32


def test_map_reaches_every_parameter() -> None:
    doubled = DiagonalGaussian(torch.ones(2), torch.full((2,), 3.0)).map(lambda value: 2 * value)
    assert [tensor.tolist() for tensor in doubled.tensors()] == [[2.0, 2.0], [6.0, 6.0]]


def test_tensors_come_in_the_order_of_the_fields() -> None:
    mean, log_std = torch.zeros(1), torch.ones(1)
    assert [tensor.item() for tensor in DiagonalGaussian(mean, log_std).tensors()] == [0.0, 1.0]


def test_log_prob_is_differentiable_in_the_parameters() -> None:
    # d/dm log N(a; m, 1) = a - m = 2.
    mean = torch.ones(1, requires_grad=True)
    DiagonalGaussian(mean, torch.zeros(1)).log_prob(torch.tensor([3.0])).backward()
    assert mean.grad is not None
    assert mean.grad.item() == pytest.approx(2.0)


@given(SIZES, SEEDS)
@settings(deadline=None, max_examples=30)
def test_bernoulli_is_torchs(size: tuple[int, int, int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    ours, others = (Bernoulli(3 * torch.randn(size, generator=stream)) for _ in range(2))
    one, other = (Independent(TorchBernoulli(logits=each.logits), 1) for each in (ours, others))
    actions = torch.randint(2, size, generator=stream)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(ours.log_prob(actions), one.log_prob(actions.float()), **close)
    torch.testing.assert_close(ours.entropy(), one.entropy(), **close)
    torch.testing.assert_close(ours.kl(others), kl_divergence(one, other), **close)


COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(COUNTS, SEEDS)
@settings(deadline=None, max_examples=30)
def test_a_product_of_categoricals_is_the_sum_of_its_choices(counts: list[int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    logits, others = (3 * torch.randn(2, 3, sum(counts), generator=stream) for _ in range(2))
    ours, other = MultiCategorical.of(logits, counts), MultiCategorical.of(others, counts)
    choices = [[Categorical(piece) for piece in each.split(counts, -1)] for each in (logits, others)]
    actions = torch.stack([choice.sample(stream) for choice in choices[0]], -1)
    log_probs = sum(choice.log_prob(actions[..., index]) for index, choice in enumerate(choices[0]))
    torch.testing.assert_close(ours.log_prob(actions), log_probs)
    torch.testing.assert_close(ours.entropy(), sum(choice.entropy() for choice in choices[0]))
    torch.testing.assert_close(ours.kl(other), sum(one.kl(two) for one, two in zip(*choices, strict=True)))
    assert torch.equal(ours.mode(), torch.stack([choice.mode() for choice in choices[0]], -1))


def test_a_choice_never_takes_an_action_that_it_does_not_have() -> None:
    distribution = MultiCategorical.of(torch.zeros(1000, 2 + 5), [2, 5])
    actions = distribution.sample(torch.Generator().manual_seed(0))
    assert actions.amax(0).tolist() == [1, 4]
    torch.testing.assert_close(distribution.log_prob(actions).exp(), torch.full((1000,), 0.1))


def test_gradients_of_a_product_with_unequal_choices_are_finite() -> None:
    logits = torch.randn(4, 2 + 5, requires_grad=True)
    distribution = MultiCategorical.of(logits, [2, 5])
    (distribution.entropy() + distribution.kl(MultiCategorical.of(torch.zeros(4, 7), [2, 5]))).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_bernoulli_samples_have_the_right_frequencies() -> None:
    distribution = Bernoulli(torch.tensor([0.0, 2.0, -40.0]).expand(20_000, 3))
    found = distribution.sample(torch.Generator().manual_seed(0)).float().mean(0)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.8808, 0.0]), rtol=0, atol=0.01)
