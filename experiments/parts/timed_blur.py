"""The time of one varying blur: by a low-rank layer, by Fourier transforms, and by a kernel per pixel."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import convlab as cl
from convlab import algebra
from experiments.parts.photographs import Lens
from experiments.shared.stopwatch import compiled, interleave

LAYER, FOURIER, WINDOWS = "low-rank layer", "Fourier transforms", "a kernel per pixel"


def by_fourier(x: Float[Array, "k l 1"], spectra: Float[Array, "r u v"], weights: Float[Array, "i j r"]) -> Array:
    """Blur a scene without padding, by a product of Fourier transforms for every kernel.

    Args:
      x: The scene.
      spectra: The transforms of the kernels, conjugated for a cross-correlation.
      weights: The weights of the kernels at every position.
    """
    parts = jnp.fft.irfft2(jnp.fft.rfft2(x[..., 0]) * spectra, x.shape[:2])
    return jnp.einsum("rij,ijr->ij", parts[:, : weights.shape[0], : weights.shape[1]], weights)[..., None]


def timed_blurs(lens: Lens, ranks: tuple[int, ...], side: int, seconds: float) -> list[dict[str, Any]]:
    """Return one row with the median time per method and rank, for one picture of side x side pixels."""
    lens = dataclasses.replace(lens, field=side)
    psfs, positions = lens.known()
    x = jax.random.normal(jax.random.key(0), (lens.scene, lens.scene, 1))
    contenders = []
    for rank in ranks:
        layer = algebra.varying_blur(psfs, positions, (lens.scene,) * 2, lens.window, rank=rank).layer
        basis, weights = layer.basis[...], layer.weights[...]
        spectra = jnp.conj(jnp.fft.rfft2(basis[..., 0, 0], (lens.scene,) * 2))
        contenders += [
            compiled({"method": LAYER, "rank": rank}, lambda x, u, w: cl.low_rank(x, u, w, lens.window), (x, basis, weights)),
            compiled({"method": FOURIER, "rank": rank}, by_fourier, (x, spectra, weights)),
        ]
    kernels = lens.kernels()
    windows = compiled({"method": WINDOWS, "rank": None}, lambda x, v: cl.locally_connected(x, v, lens.window), (x, kernels))
    rows = interleave([*contenders, windows], seconds, 3)
    return [{name: row[name] for name in ("method", "rank", "ms")} for row in rows]
