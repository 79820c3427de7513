"""Stricter than a convolution: one kernel that is invariant under flips and quarter turns."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from convlab import check
from convlab.convert import counts, gather
from convlab.geometry import as_axes, over_axes
from convlab.ops.conv import conv
from convlab.rungs.layout import Arrays, Layout, Tying
from convlab.rungs.shared import Shared
from convlab.rungs.start import Start


class Symmetric(Tying):
    """One kernel, tied under flips and quarter turns: `U[o,c,d]`, where o is the orbit of tap (a, b).

    Axes of equal size, stride, dilation and padding can be exchanged, all axes can be flipped. The layer is equivariant to
    these symmetries where its output positions lie symmetrically on the image. With stride 1 this holds for 3x3 kernels under
    SAME, and for 4x4 kernels under VALID but not under SAME.
    """

    name = "symmetric"
    freer = (Shared,)
    has_groups = True
    has_noise = False

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return (1,) * layout.ndim

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"kernel": (int(_orbits(layout).max()) + 1, *layout.kernel_shape[-2:])}

    def start(self, key: jax.Array, layout: Layout, spec: Start) -> Arrays:
        kernel = spec.kernel_init(key, layout.kernel_shape, spec.dtype).reshape(-1, *layout.kernel_shape[-2:])
        return {"kernel": kernel[np.unique(_orbits(layout), return_index=True)[1]]}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return conv(x, arrays["kernel"][_orbits(layout)], layout.window, layout.groups, **options)

    def kernels(self, arrays: Arrays, layout: Layout) -> Array:
        return layout.zero_dead_taps(arrays["kernel"][_orbits(layout)][(None,) * layout.ndim])

    def project(self, v: Array, layout: Layout) -> Arrays:
        r"""Find the nearest symmetric kernel: $(S^\top G S)^+ S^\top E^\top E' V'$.

        S copies the value of an orbit to its taps, and G = E^T E counts positions. Without the counts it is no projection.
        """
        spread = np.eye(int(_orbits(layout).max()) + 1)[_orbits(layout).ravel()]
        gram = functools.reduce(np.kron, [counts(axis, 1, 1)[0, 0] for axis in layout.axes])
        gathered = gather(v, *layout.where, self.tile(layout)).reshape(len(gram), *layout.kernel_shape[-2:])
        solve = jnp.asarray(np.linalg.pinv(spread.T @ gram @ spread, hermitian=True) @ spread.T, v.dtype)
        return {"kernel": jnp.tensordot(solve, gathered, 1, precision=jax.lax.Precision.HIGHEST)}

    def dead(self, layout: Layout) -> int:
        live = over_axes(np.logical_and, [np.asarray((axis.reads >= 0).any(0)) for axis in layout.axes])
        count, *sizes = self.shapes(layout)["kernel"]
        return (count - len(np.unique(_orbits(layout)[live]))) * math.prod(sizes)


@functools.lru_cache(maxsize=256)  # an eager layer asks at every call
def _orbits(layout: Layout) -> np.ndarray:
    """Return the number of the orbit of each tap: (*window)."""
    sizes = layout.kernel_shape[:-2]
    check.shape_fits("the orbits of kernel_size", len(sizes), *sizes)
    steps = [as_axes(name, getattr(layout.window, name), len(sizes)) for name in ("strides", "dilation")]
    kinds = [*zip(sizes, *steps, layout.window.with_ndim(len(sizes)).paddings, strict=True)]
    away = np.stack(np.meshgrid(*(np.abs(2 * np.arange(size) - (size - 1)) for size in sizes), indexing="ij"))
    for kind in {*kinds}:  # sort the distances along axes that can be exchanged
        axes = [axis for axis, other in enumerate(kinds) if other == kind]
        away[axes] = np.sort(away[axes], axis=0)
    return np.unique(away.reshape(len(sizes), -1), axis=1, return_inverse=True)[1].reshape(sizes)
