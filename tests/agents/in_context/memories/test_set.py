import torch

from tests.agents.in_context.memories.reading import STEPS, TRIALS, made, read


def test_the_order_of_steps_does_not_count() -> None:
    network, inputs = made("set")
    order = torch.randperm(STEPS, generator=torch.Generator().manual_seed(1))
    (one, _), (other, _) = read(network, [inputs]), read(network, [inputs[:, order]])
    torch.testing.assert_close(one[:, -1], other[:, -1])
    assert not torch.allclose(one[:, 3], other[:, 3])


def test_a_memory_is_the_weighted_mean_of_its_steps_and_zero() -> None:
    network, inputs = made("set")
    means, outputs = network.factor(inputs).chunk(2, -1)
    weights = torch.log1p(outputs.exp())
    mean = (weights * means).sum(1) / (1 + weights.sum(1))
    torch.testing.assert_close(read(network, [inputs])[0][:, -1], network.merged(mean))
    assert mean.shape == (TRIALS, network.size)
