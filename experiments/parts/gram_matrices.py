"""Gram matrices of one layer of random kernels and ReLU, and what they tend to as the layer grows: the arc-cosine kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl


def windows(images: np.ndarray) -> jax.Array:
    """The window of every position, and a one for the bias: (n, positions, taps)."""
    p = cl.unfold(jnp.asarray(images), cl.Window((3, 3), 2))
    p = p.reshape(len(p), -1, np.prod(p.shape[3:]))
    return jnp.concatenate([p, jnp.ones_like(p[..., :1])], -1)


def arc_cosine(p: jax.Array, q: jax.Array) -> jax.Array:
    """Expected product of ReLU responses, over Gaussian kernels, of the windows p with the windows q: (of p, of q)."""
    lengths = jnp.linalg.norm(p, axis=-1)[..., :, None] * jnp.linalg.norm(q, axis=-1)[..., None, :]
    cosine = jnp.clip(p @ jnp.swapaxes(q, -1, -2) / lengths, -1, 1)
    angle = jnp.arccos(cosine)
    return lengths / (2 * jnp.pi) * (jnp.sqrt(1 - cosine**2) + (jnp.pi - angle) * cosine)


@jax.jit
def limits(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Gram matrices of infinite width, read out at every position and in the mean."""
    every = jnp.mean(jax.lax.map(lambda q: arc_cosine(q, q), jnp.swapaxes(p, 0, 1)), 0)
    flat = p.reshape(-1, p.shape[-1])
    mean = jax.lax.map(lambda x: arc_cosine(x, flat).mean(0).reshape(len(p), -1).mean(1), p)
    return every, mean


@functools.partial(jax.jit, static_argnames="width")
def products(p: jax.Array, key: jax.Array, width: int) -> tuple[jax.Array, ...]:
    """Sums over random kernels of the products of two images' responses: every position, its mean, a kernel each."""

    def add(sums: tuple[jax.Array, ...], key: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        first, second = jax.random.split(key)
        shared, own = (jax.random.normal(first, p.shape[-1:]), jax.random.normal(second, p.shape[1:]))
        h, free = jax.nn.relu(p @ shared), jax.nn.relu(jnp.einsum("nia,ia->ni", p, own))
        pooled = h.mean(1)
        each = h @ h.T / h.shape[1], pooled[:, None] * pooled, free @ free.T / h.shape[1]
        return jax.tree.map(jnp.add, sums, each), None

    return jax.lax.scan(add, (jnp.zeros((len(p), len(p))),) * 3, jax.random.split(key, width))[0]
