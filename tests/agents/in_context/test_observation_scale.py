import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.agents.in_context.observation_scale import ObservationScale


def test_before_anything_is_seen_observations_stay_as_they_are() -> None:
    scale = ObservationScale(2)
    torch.testing.assert_close(scale(torch.tensor([[3.0, -4.0]])), torch.tensor([[3.0, -4.0]]))


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_moments_are_those_of_everything_seen(sizes: list[int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    pieces = [5 * torch.randn(size, 3, generator=stream) + number for number, size in enumerate(sizes)]
    scale = ObservationScale(3)
    for piece in pieces:
        scale.update(piece, torch.ones(len(piece), dtype=torch.bool))
    whole = torch.cat(pieces)
    torch.testing.assert_close(scale.mean, whole.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scale.variance, whole.var(0, correction=0), rtol=1e-4, atol=1e-4)
    assert scale.count == len(whole)


def test_what_comes_after_a_trials_end_does_not_count() -> None:
    scale = ObservationScale(1)
    scale.update(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
    assert (scale.mean.item(), scale.variance.item()) == (2.0, 1.0)


def test_what_never_changes_becomes_zero_and_surprises_are_cut_off() -> None:
    scale = ObservationScale(2)
    scale.update(torch.tensor([[7.0, 0.0], [7.0, 2.0]]), torch.ones(2, dtype=torch.bool))
    assert scale(torch.tensor([7.0, 500.0])).tolist() == [0.0, 10.0]
