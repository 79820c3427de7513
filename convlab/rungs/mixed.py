"""Between local and shared: every position mixes the same few kernels with weights of its own."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from convlab.convert import lift_low_rank_to_local, project_local_to_low_rank, repeat
from convlab.geometry import as_integer
from convlab.ops.low_rank import low_rank
from convlab.rungs.layout import Arrays, Layout, Tying, dead_entries
from convlab.rungs.start import Start, draw_kernels, mix
from convlab.rungs.untied import Untied


@dataclasses.dataclass(frozen=True)
class Mixed(Tying):
    """A mixture of `rank` kernels at every position: `U[r,a,b,c,d]` with weights `w[i,j,r]`.

    The projection is the nearest in the norm of the kernels, not of the dense matrix, and is not linear. The kernels of a
    mixture keep their values at dead taps, since setting them to zero would raise the rank.
    """

    name = "low_rank"
    freer = (Untied,)
    arrays = ("basis", "weights")
    rows = ("weights",)
    is_linear = False

    rank: int = 2

    def holds(self, other: Tying) -> bool:
        assert isinstance(other, Mixed)
        return self.rank >= other.rank

    def validated(self, layout: Layout) -> "Mixed":
        return Mixed(as_integer("rank", self.rank))

    def clipped(self, layout: Layout) -> "Mixed":
        return Mixed(min(self.rank, math.prod(layout.positions), math.prod(layout.kernel_shape)))

    def tile(self, layout: Layout) -> tuple[int, ...]:
        return layout.positions

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        return {"basis": (self.rank, *layout.kernel_shape), "weights": (*layout.positions, self.rank)}

    def fan_in(self, layout: Layout) -> dict[str, int]:
        return super().fan_in(layout) | {"weights": self.rank}

    def start(self, key: jax.Array, layout: Layout, spec: Start) -> Arrays:
        first, second = jax.random.split(key)
        basis = draw_kernels(first, (self.rank,), layout.kernel_shape, spec._replace(tied_noise=None))
        shape = self.shapes(layout)["weights"]
        weights = mix(
            second,
            spec.tied_noise,
            lambda key: jax.random.normal(key, (self.rank,), spec.dtype),
            lambda key: jax.random.normal(key, shape, spec.dtype),
        )
        weights = jnp.broadcast_to(weights, shape)
        return {"basis": basis, "weights": weights / jnp.linalg.norm(weights, axis=-1, keepdims=True)}

    def apply(self, x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
        return low_rank(x, arrays["basis"], arrays["weights"], layout.window, **options)

    def kernels(self, arrays: Arrays, layout: Layout) -> Array:
        return lift_low_rank_to_local(arrays["basis"], arrays["weights"])

    def lift(self, v: Array, layout: Layout) -> Arrays:
        return self._one(v[(0,) * layout.ndim], layout) if math.prod(v.shape[: layout.ndim]) == 1 else self.project(v, layout)

    def project(self, v: Array, layout: Layout) -> Arrays:
        """Find the nearest mixture in the norm of the kernels of all positions."""
        parts = project_local_to_low_rank(repeat(v, layout.positions), self.rank)
        return dict(zip(self.arrays, parts, strict=True))

    def _one(self, kernel: Array, layout: Layout) -> Arrays:
        """Write one kernel as a mixture with other kernels of zero.

        The weights are cosines, so that the other kernels can learn different things.
        """
        basis = jnp.zeros((self.rank, *kernel.shape), kernel.dtype).at[0].set(kernel)
        positions, wave = math.prod(layout.positions), np.arange(self.rank)
        weights = np.cos(np.pi / positions * (np.arange(positions)[:, None] + 0.5) * wave) * np.where(wave, 2**0.5, 1)
        return {"basis": basis, "weights": jnp.asarray(weights.reshape(*layout.positions, -1), kernel.dtype)}

    def dead(self, layout: Layout) -> int:
        return self.rank * dead_entries(layout, (1,) * layout.ndim)

    def multiply_adds(self, layout: Layout) -> int:
        mixing = math.prod(layout.positions) * layout.out_features
        return self.rank * (super().multiply_adds(layout) + mixing)
