# mypy: ignore-errors
# (Kernels are written in Warp's own language, which its Python types do not describe.)
"""Our own kernels for the MuJoCo Warp engine, and a correction to one of MuJoCo Warp's."""

import mujoco
import warp as wp
from mujoco_warp._src import collision_primitive
from mujoco_warp._src.collision_primitive_core import mat23f, plane_sphere

wp.set_module_options({"enable_backward": False})

# Threshold beyond which MuJoCo considers a state bad.
LARGEST = float(mujoco.mjMAXVAL)


@wp.func
def _plane_capsule(
    normal: wp.vec3, place: wp.vec3, centre: wp.vec3, axis: wp.vec3, radius: float, half_length: float
) -> tuple[wp.vec2, mat23f, wp.mat33]:
    along = axis - normal * wp.dot(normal, axis)
    length = wp.length(along)
    # An upright capsule has no direction in the plane; MuJoCo takes x.
    tangent = wp.where(length > 1e-6, along / length, wp.vec3(1.0, 0.0, 0.0))
    near, near_point = plane_sphere(normal, place, centre + axis * half_length, radius)
    far, far_point = plane_sphere(normal, place, centre - axis * half_length, radius)
    return (
        wp.vec2(near, far),
        mat23f(near_point[0], near_point[1], near_point[2], far_point[0], far_point[1], far_point[2]),
        wp.matrix_from_rows(normal, tangent, wp.cross(normal, tangent)),
    )


def lay_tangents_along_capsules() -> None:
    """Make contacts of capsules with planes equal to MuJoCo's, in kernels that MuJoCo Warp has not built yet.

    MuJoCo lays the first friction direction along the capsule. So does MuJoCo Warp 4.0, but within 30 degrees of the
    normal it takes a fixed direction, and pyramidal friction differs with it.
    """
    collision_primitive.plane_capsule = _plane_capsule


@wp.kernel
def place(
    mask: wp.array[bool],
    start_qpos: wp.array2d[float],
    start_qvel: wp.array2d[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    broken: wp.array[bool],
):
    """Set the state of the worlds in ``mask``, and mark them as valid."""
    world = wp.tid()
    if mask[world]:
        broken[world] = False
        for i in range(qpos.shape[1]):
            qpos[world, i] = start_qpos[world, i]
        for i in range(qvel.shape[1]):
            qvel[world, i] = start_qvel[world, i]


@wp.kernel
def judge(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    qacc: wp.array2d[float],
    bad: wp.array[bool],
    broken: wp.array[bool],
):
    """Mark worlds with a NaN or too large a number, as ``mj_step`` does."""
    world = wp.tid()
    # "not <=", because a NaN is not greater either.
    for i in range(qpos.shape[1]):
        if not wp.abs(qpos[world, i]) <= LARGEST:
            bad[world] = True
    for i in range(qvel.shape[1]):
        if not wp.abs(qvel[world, i]) <= LARGEST or not wp.abs(qacc[world, i]) <= LARGEST:
            bad[world] = True
    if bad[world]:
        broken[world] = True


@wp.kernel
def copy_centres(
    mask: wp.array[bool], chosen: bool, subtree_com: wp.array2d[wp.vec3], centre_of_mass: wp.array[wp.vec3]
):
    """Copy the centre of mass of the worlds whose ``mask`` equals ``chosen``."""
    world = wp.tid()
    if mask[world] == chosen:
        centre_of_mass[world] = subtree_com[world, 0]


@wp.kernel
def note_needs(pairs: wp.array[int], contacts: wp.array[int], rows: wp.array[int], needs: wp.array[int]):
    """Raise ``needs`` to the contacts needed by all worlds together and the constraints needed by any of them."""
    world = wp.tid()
    if world == 0:
        needs[0] = wp.max(needs[0], wp.max(pairs[0], contacts[0]))
    if rows[world] > needs[1]:
        wp.atomic_max(needs, 1, rows[world])
