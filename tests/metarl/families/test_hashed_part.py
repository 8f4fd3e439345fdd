import pytest
import torch

from metarl.families.splits import hashed_part, hashed_text_part

NUMBERS = torch.arange(30_000)


def test_shares_are_60_20_20() -> None:
    # Standard deviation of a share of 30,000: at most 0.003; five of them.
    shares = hashed_part(0, NUMBERS).bincount() / len(NUMBERS)
    assert shares.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.015)


def test_small_families_of_tasks_have_these_shares_too() -> None:
    pairs = torch.cartesian_prod(torch.arange(60), torch.arange(50))
    for seed in range(5):
        shares = hashed_part(seed, pairs).bincount() / len(pairs)
        assert shares.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


@pytest.mark.parametrize("other", [hashed_part(1, NUMBERS), hashed_part(0, NUMBERS + 1), hashed_part(0, -NUMBERS)])
def test_another_seed_or_task_is_another_draw(other: torch.Tensor) -> None:
    # Independent parts are the same with probability 0.36 + 0.04 + 0.04.
    assert (other == hashed_part(0, NUMBERS)).float().mean().item() == pytest.approx(0.44, abs=0.015)


def test_order_matters() -> None:
    one, other = NUMBERS % 173, NUMBERS // 173
    same = hashed_part(0, one, other) == hashed_part(0, other, one)
    assert same.float().mean().item() == pytest.approx(0.44, abs=0.02)


def test_a_part_depends_on_nothing_but_the_task_and_the_seed() -> None:
    parts = hashed_part(7, NUMBERS[:50], NUMBERS[:50].view(50, 1).expand(50, 3))
    alone = [hashed_part(7, row[None], row.expand(1, 3)).item() for row in NUMBERS[:50]]
    assert parts.tolist() == alone


def test_the_parts_never_change() -> None:
    # Splits of runs that were reported depend on them.
    assert hashed_part(0, torch.arange(12)).tolist() == [0, 1, 0, 0, 0, 2, 0, 1, 1, 2, 2, 1]
    assert hashed_part(0, torch.arange(12), torch.arange(12)).tolist() == [0, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0, 1]


def test_small_integers_will_do() -> None:
    assert torch.equal(hashed_part(0, NUMBERS[:100].to(torch.int8)), hashed_part(0, NUMBERS[:100]))


def test_texts_have_the_same_shares_and_parts_that_stay() -> None:
    texts = [str(number) for number in range(30_000)]
    shares = hashed_text_part(0, texts).bincount() / len(texts)
    assert shares.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.015)
    assert hashed_text_part(0, texts[:12]).tolist() == [1, 0, 0, 2, 2, 0, 0, 0, 2, 0, 2, 0]
    assert hashed_text_part(0, texts[5:6]).tolist() == [0]
