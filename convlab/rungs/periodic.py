"""Between local and shared: kernels that repeat every few positions."""

import dataclasses

import jax
from jaxtyping import Array

from convlab import check
from convlab.geometry import Size, as_axes
from convlab.ops.tiled import tiled
from convlab.rungs.layout import Arrays, Layout, Tying
from convlab.rungs.start import Start, draw_kernels
from convlab.rungs.untied import Untied


@dataclasses.dataclass(frozen=True)
class Periodic(Tying):
    """Kernels that repeat every `period` positions along each axis: `V[i%p,j%q,a,b,c,d]`."""

    name = "tiled"
    freer = (Untied,)

    period: Size = 2

    def holds(self, other: Tying) -> bool:
        assert isinstance(other, Periodic)
        pairs = zip(self._sides, other._sides, strict=True)
        return all(p % q == 0 for p, q in pairs)

    def comparable(self, layout: Layout, freer: bool) -> str:
        sides = zip(self._sides, layout.positions, strict=True)
        periods = [[q for q in range(1, n + 1) if (q % p if freer else p % q) == 0] for p, n in sides]
        relation = "a multiple" if freer else "a divisor"
        axes = [
            f"{relation} of {p} ({', '.join(map(str, known[:6]))}{', ...' * (len(known) > 6)}) along axis {axis}"
            for axis, (p, known) in enumerate(zip(self._sides, periods, strict=True))
        ]
        return f"period must be {' and '.join(axes)}"

    @property
    def _sides(self) -> tuple[int, ...]:
        assert isinstance(self.period, tuple)
        return self.period

    def validated(self, layout: Layout) -> "Periodic":
        period = as_axes("period", self.period, layout.ndim)
        if layout.space is not None:
            check.period(period, *layout.where)
        return Periodic(period)

    def clipped(self, layout: Layout) -> "Periodic":
        return Periodic(tuple(map(min, as_axes("period", self.period, layout.ndim), layout.positions)))

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return self._sides

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"kernel": (*self._sides, *layout.kernel_shape)}

    def start(self, key: jax.Array, layout: Layout, spec: Start) -> Arrays:
        return {"kernel": draw_kernels(key, self._sides, layout.kernel_shape, spec)}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return tiled(x, arrays["kernel"], layout.window, **options)

    def kernels(self, arrays: Arrays, layout: Layout) -> Array:
        return layout.zero_dead_taps(arrays["kernel"])
