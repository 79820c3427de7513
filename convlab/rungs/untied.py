"""Local without sharing: a kernel for every position."""

import jax
from jaxtyping import Array

from convlab.ops.local import locally_connected
from convlab.rungs.by_pixel import ByPixel
from convlab.rungs.layout import Arrays, Layout, Tying
from convlab.rungs.start import Start, draw_kernels


class Untied(Tying):
    """A kernel for every position: `V[i,j,a,b,c,d]`. Dead taps start at zero and stay there."""

    name = "locally_connected"
    freer = (ByPixel,)
    rows = ("kernel",)
    default_bias = "position"
    has_groups = True

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return layout.positions

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"kernel": (*layout.positions, *layout.kernel_shape)}

    def start(self, key: jax.Array, layout: Layout, spec: Start) -> Arrays:
        return {"kernel": layout.zero_dead_taps(draw_kernels(key, layout.positions, layout.kernel_shape, spec))}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return locally_connected(x, arrays["kernel"], layout.window, layout.groups, **options)

    def project(self, v: Array, layout: Layout) -> Arrays:
        """Return the kernels unchanged, since those of a freer rung lie inside the windows."""
        return self.lift(v, layout)
