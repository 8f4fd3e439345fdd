"""The loss of each metric-based method at a value by hand: two classes, two examples and one query each, on a line."""

import math

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.task_metrics import METRICS, Contrastive, Focal, Matching, Prototypical, Relation, Siamese

SIZE = 8

# On the first axis: class 0 at 0 and 0.4, class 1 at 1 and 2; queries at 0.1 and 1.4.
SUPPORT = torch.tensor([[[0.0], [0.4]], [[1.0], [2.0]]])
QUERY = torch.tensor([[[0.1]], [[1.4]]])
# Unit vectors at these angles: class 0 at 0 and 30 degrees, class 1 at 90 and 120; queries at 0 and 90.
ANGLES, ASKED = torch.tensor([[0.0, 30.0], [90.0, 120.0]]), torch.tensor([[0.0], [90.0]])


def unit(angles: Tensor) -> Tensor:
    return torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], -1)


def test_siamese_pairs() -> None:
    same = [0.1**2, 0.3**2, 0.4**2, 0.6**2]  # of the first query with 0 and 0.4, of the second with 1 and 2
    other = [1 - 0.9, 0.0, 0.0, 0.0]  # short of a margin of 1: only 0.1 and 1 are closer; 1.4 and 0.4 are just there
    expected = sum(same) / 4 + sum(short**2 for short in other) / 4
    assert Siamese(1).loss(SUPPORT, QUERY).item() == pytest.approx(expected, abs=1e-6)


def test_focals_pairs() -> None:
    same = [0.1**2, 0.3**2, 0.4**2, 0.6**2]
    other = [1 / (distance**2 + 0.1) for distance in (0.9, 1.9, 1.4, 1.0)]  # of 0.1 from 1 and 2, of 1.4 from 0 and 0.4
    assert Focal(1).loss(SUPPORT, QUERY).item() == pytest.approx(sum(same) / 4 + sum(other) / 4, rel=1e-5)


def test_prototypes() -> None:
    # Prototypes are 0.2 and 1.5.
    first, second = (
        math.exp(-(own**2)) / (math.exp(-(own**2)) + math.exp(-(far**2))) for own, far in ((0.1, 1.4), (0.1, 1.2))
    )
    assert Prototypical(1).loss(SUPPORT, QUERY).item() == pytest.approx(-(math.log(first) + math.log(second)) / 2)


def attention(asked: float) -> list[float]:
    weights = [math.exp(math.cos(math.radians(angle - asked)) / 0.1) for angle in ANGLES.flatten().tolist()]
    return [weight / sum(weights) for weight in weights]


def test_matching_attention() -> None:
    first, second = sum(attention(0.0)[:2]), sum(attention(90.0)[2:])
    found = Matching(2).loss(unit(ANGLES), 3 * unit(ASKED))  # lengths do not count
    assert found.item() == pytest.approx(-(math.log(first) + math.log(second)) / 2, rel=1e-4)


def test_relation_scores() -> None:
    metric = Relation(SIZE)
    for value in metric.parameters():
        value.data.zero_()
    metric.network.get_parameter("2.bias").data.fill_(math.log(3.0))  # every score is 3/4
    embedded = torch.randn(2, 3, SIZE)
    # Of two classes one is a query's own.
    assert metric.loss(embedded, embedded).item() == pytest.approx((0.25**2 + 0.75**2) / 2)


def test_contrastive_partners() -> None:
    def term(cosine: float, others: list[float]) -> float:
        weights = [math.exp(each / 0.1) for each in (cosine, *others)]
        return -math.log(weights[0] / sum(weights))

    cos = {degrees: math.cos(math.radians(degrees)) for degrees in (0, 30, 60, 90, 120)}
    first = [term(cos[0], [cos[90], cos[120]]), term(cos[30], [cos[90], cos[120]])]
    second = [term(cos[0], [cos[90], cos[60]]), term(cos[30], [cos[90], cos[60]])]
    assert Contrastive(2).loss(unit(ANGLES), unit(ASKED)).item() == pytest.approx(sum(first + second) / 4, rel=1e-4)


@pytest.mark.parametrize("name", METRICS)
def test_a_batch_of_tasks_is_one_after_the_other(name: str) -> None:
    torch.manual_seed(0)
    metric, support, query = METRICS[name](SIZE), torch.randn(3, 4, 2, SIZE), torch.randn(3, 4, 5, SIZE)
    one_by_one = torch.stack([metric.loss(*pair) for pair in zip(support, query, strict=True)]).mean()
    torch.testing.assert_close(metric.loss(support, query), one_by_one)
    scores = torch.stack([metric.scores(*pair) for pair in zip(support, query, strict=True)])
    torch.testing.assert_close(metric.scores(support, query), scores)
    assert scores.shape == (3, 20, 4)


@pytest.mark.parametrize("name", METRICS)
def test_a_single_class_has_a_finite_loss_and_slope(name: str) -> None:
    torch.manual_seed(0)
    support, query = torch.randn(1, 2, SIZE, requires_grad=True), torch.randn(1, 1, SIZE)
    loss = METRICS[name](SIZE).loss(support, query)
    (slope,) = torch.autograd.grad(loss, support)
    assert loss.isfinite()
    assert slope.isfinite().all()


def test_what_is_compared_is_a_direction_where_only_angles_count() -> None:
    embeddings = torch.tensor([[3.0, 4.0]])
    for name, metric in METRICS.items():
        expected = [[0.6, 0.8]] if name in ("matching", "contrastive") else [[3.0, 4.0]]
        torch.testing.assert_close(metric(2).compared(embeddings), torch.tensor(expected))


@pytest.mark.parametrize("name", [name for name in METRICS if name != "relation"])
def test_a_query_on_its_class_scores_best_there(name: str) -> None:
    examples = torch.eye(SIZE)[:5].unsqueeze(1)
    assert METRICS[name](SIZE).scores(examples, examples).argmax(-1).tolist() == [0, 1, 2, 3, 4]
