import math

import torch

from metarl.experiments.few_shot.problems import Characters, Sinusoids, alphabet, written


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sets_of_points_lie_on_one_sinusoid() -> None:
    points = Sinusoids().sets(400, 2, 6, stream())
    x, y = points.flatten(1, 2).double().unbind(-1)
    # y = p sin x + q cos x, by least squares.
    basis = torch.stack([x.sin(), x.cos()], -1)
    found = torch.linalg.lstsq(basis, y.unsqueeze(-1)).solution
    torch.testing.assert_close((basis @ found).squeeze(-1), y, atol=1e-4, rtol=0)
    amplitude, phase = found.squeeze(-1).norm(dim=-1), torch.atan2(-found[:, 1, 0], found[:, 0, 0])
    assert amplitude.min() > 0.09
    assert amplitude.max() < 5.01
    assert phase.min() > -1e-3
    assert phase.max() < math.pi + 1e-3
    assert x.abs().max() <= 5


def test_the_error_of_saying_nothing_is_half_the_mean_square_amplitude() -> None:
    tasks = Sinusoids().draw(4000, stream())
    error = Sinusoids().score(torch.zeros_like(tasks.truth), tasks.truth).mean().item()
    # E[A²] is (5³ - 0.1³) / (3 * 4.9). The sine's mean square is a half up to its ends: x is within [-5, 5].
    assert abs(error - (125 - 0.001) / (3 * 4.9) / 2) < 0.4


def test_tasks_hold_one_example_of_each_character_and_queries_in_order() -> None:
    tasks = Characters().draw(7, stream())
    assert tasks.support.shape == (7, 5, 144)
    assert tasks.query.shape == (7, 25, 144)
    assert tasks.answers.argmax(-1).tolist() == 7 * [[0, 1, 2, 3, 4]]
    assert tasks.truth.argmax(-1)[0].tolist() == [number for number in range(5) for _ in range(5)]
    # No picture is both an example and a query, and none comes twice.
    pictures = torch.cat([tasks.support, tasks.query], 1)
    assert all(len(each.unique(dim=0)) == 30 for each in pictures)


def test_held_out_characters_are_others() -> None:
    train, test = (alphabet(held_out).flatten(0, 1) for held_out in (False, True))
    assert torch.cdist(train[:500], test[:500]).min() > 1e-3


def test_a_stroke_is_dark_on_its_line_only() -> None:
    # A horizontal line through the middle; the shaky hand moves it by about a pixel.
    line = torch.stack([torch.linspace(0.1, 0.9, 5), torch.full((5,), 0.5)], -1)
    pictures = written(line.expand(200, 5, 2), stream()).view(200, 12, 12).mean(0)
    assert pictures[:, 5:7].mean() > 5 * pictures[:, :2].mean()
    assert pictures.max() <= 1
