"""Local, and nothing shared: a kernel for every position."""

import jax
from jaxtyping import Array

from convlab.ops.local import locally_connected
from convlab.rungs.by_pixel import ByPixel
from convlab.rungs.layout import Arrays, Layout, Tying
from convlab.rungs.start import Start, draw_kernels


class Untied(Tying):
    """Every position has its own kernel: `V[i,j,a,b,c,d]`; taps that read padding start, and stay, at zero."""

    name = "locally_connected"
    freer = (ByPixel,)
    rows = ("kernel",)
    bias = "position"
    has_groups = True

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return layout.positions

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"kernel": (*layout.positions, *layout.kernel)}

    def start(self, key: jax.Array, layout: Layout, how: Start) -> Arrays:
        return {"kernel": layout.silence(draw_kernels(key, layout.positions, layout.kernel, how))}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return locally_connected(x, arrays["kernel"], layout.window, layout.groups, **options)

    def project(self, v: Array, layout: Layout) -> Arrays:
        """Take the kernels: those of a freer rung are inside the windows already."""
        return self.lift(v, layout)
