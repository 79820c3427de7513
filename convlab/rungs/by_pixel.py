"""The freest rung: a weight for every pair of output position and input pixel."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from convlab.convert import lift_conv_to_dense, lift_local_to_dense, project_dense_to_local, repeat
from convlab.ops.dense import dense
from convlab.rungs.layout import Arrays, Layout, Tying
from convlab.rungs.start import Start, draw_kernels, mix


class ByPixel(Tying):
    """Neither tied nor local: `W[i,j,k,l,c,d]`."""

    name = "dense"
    rows = ("kernel",)
    default_bias = "position"
    by_pixel = True

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return layout.positions

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"kernel": (*layout.positions, *layout.where[1], *layout.kernel_shape[-2:])}

    def fan_in(self, layout: Layout) -> dict[str, int]:
        return {"kernel": math.prod(layout.where[1]) * layout.kernel_shape[-2]}

    def start(self, key: jax.Array, layout: Layout, spec: Start) -> Arrays:
        (window, space), rank = layout.where, layout.ndim
        one = self.shapes(layout)["kernel"][rank:]
        seen = window.live(space).mean(tuple(range(rank, 2 * rank)))[(..., *(None,) * (rank + 2))]

        def common(key: jax.Array) -> Array:
            return lift_conv_to_dense(spec.kernel_init(key, layout.kernel_shape, spec.dtype), window, space)

        def independent(key: jax.Array) -> Array:
            kernels = draw_kernels(key, layout.positions, one, spec._replace(tied_noise=None))
            return kernels * jnp.sqrt(seen).astype(spec.dtype)

        return {"kernel": mix(key, spec.tied_noise, common, independent)}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return dense(x, arrays["kernel"], **options)

    def kernels(self, arrays: Arrays, layout: Layout) -> Array:
        """Return the kernels inside the windows, which are the nearest to weights outside of them."""
        return project_dense_to_local(arrays["kernel"], *layout.where)

    def lift(self, v: Array, layout: Layout) -> Arrays:
        groups = layout.in_features // v.shape[-2]  # a dense layer has no groups
        return {"kernel": lift_local_to_dense(repeat(v, layout.positions), *layout.where, groups)}

    project = lift

    def squared_norm(self, arrays: Arrays, layout: Layout) -> Array:
        return jnp.sum(jnp.real(arrays["kernel"] * jnp.conj(arrays["kernel"])))

    def dead(self, layout: Layout) -> int:
        return 0

    def multiply_adds(self, layout: Layout) -> int:
        return math.prod(self.shapes(layout)["kernel"])
