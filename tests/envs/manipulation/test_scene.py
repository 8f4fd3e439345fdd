import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from metarl.envs.manipulation.scene import quaternions

QUARTERS = [
    Rotation.from_euler(axis, angle, degrees=True).as_matrix() for axis in "xyz" for angle in (0, 90, -90, 180, 270)
]


@pytest.mark.parametrize("matrices", [Rotation.random(500, rng=0).as_matrix(), np.stack(QUARTERS)])
def test_quaternions_are_those_of_scipy(matrices: np.ndarray) -> None:
    expected = Rotation.from_matrix(matrices).as_quat()
    assert np.allclose(quaternions(torch.from_numpy(matrices)).numpy(), expected, rtol=0, atol=1e-15)
    flat = torch.from_numpy(matrices.reshape(-1, 9))
    assert np.allclose(quaternions(flat).numpy(), expected, rtol=0, atol=1e-15)
