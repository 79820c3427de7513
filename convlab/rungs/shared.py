"""A convolution: one kernel for all positions."""

import jax
from jaxtyping import Array

from convlab.ops.conv import conv
from convlab.rungs.layout import Arrays, Layout, Tying
from convlab.rungs.mixed import Mixed
from convlab.rungs.periodic import Periodic
from convlab.rungs.start import Start


class Shared(Tying):
    """One kernel for all positions: `V[a,b,c,d]`."""

    name = "conv"
    freer = (Periodic, Mixed)
    has_groups = True
    has_noise = False

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return (1,) * layout.ndim

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"kernel": layout.kernel_shape}

    def start(self, key: jax.Array, layout: Layout, spec: Start) -> Arrays:
        return {"kernel": spec.kernel_init(key, layout.kernel_shape, spec.dtype)}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return conv(x, arrays["kernel"], layout.window, layout.groups, **options)

    def kernels(self, arrays: Arrays, layout: Layout) -> Array:
        return layout.zero_dead_taps(arrays["kernel"][(None,) * layout.ndim])

    def lift(self, v: Array, layout: Layout) -> Arrays:
        return {"kernel": v[(0,) * layout.ndim]}

    def project(self, v: Array, layout: Layout) -> Arrays:
        return {name: array[(0,) * layout.ndim] for name, array in super().project(v, layout).items()}
