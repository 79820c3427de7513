"""Gram matrices of random kernels with ReLU, and the arc-cosine kernel as their limit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl


def windows(images: np.ndarray) -> jax.Array:
    """Return the window of every position, with a one for the bias: (n, positions, taps)."""
    p = cl.unfold(jnp.asarray(images), cl.Window((3, 3), 2))
    p = p.reshape(len(p), -1, np.prod(p.shape[3:]))
    return jnp.concatenate([p, jnp.ones_like(p[..., :1])], -1)


def arc_cosine(p: jax.Array, q: jax.Array) -> jax.Array:
    """Return the expected products of ReLU responses to windows p and q, (of p, of q).

    The expectation is over Gaussian kernels.
    """
    lengths = jnp.linalg.norm(p, axis=-1)[..., :, None] * jnp.linalg.norm(q, axis=-1)[..., None, :]
    cosine = jnp.clip(p @ jnp.swapaxes(q, -1, -2) / lengths, -1, 1)
    angle = jnp.arccos(cosine)
    return lengths / (2 * jnp.pi) * (jnp.sqrt(1 - cosine**2) + (jnp.pi - angle) * cosine)


@jax.jit
def limits(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the Gram matrices of infinite width for a read-out of every position, and of the mean."""
    at_positions = jnp.mean(jax.lax.map(lambda q: arc_cosine(q, q), jnp.swapaxes(p, 0, 1)), 0)
    flat = p.reshape(-1, p.shape[-1])
    mean = jax.lax.map(lambda x: arc_cosine(x, flat).mean(0).reshape(len(p), -1).mean(1), p)
    return at_positions, mean


@functools.partial(jax.jit, static_argnames="width")
def products(p: jax.Array, key: jax.Array, width: int) -> tuple[jax.Array, ...]:
    """Sum the products of two images' responses over random kernels.

    The sums are those of a read-out of every position, of the mean over positions, and of every position with a different
    kernel at each.
    """

    def add(sums: tuple[jax.Array, ...], key: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        first, second = jax.random.split(key)
        shared, untied = (jax.random.normal(first, p.shape[-1:]), jax.random.normal(second, p.shape[1:]))
        h, free = jax.nn.relu(p @ shared), jax.nn.relu(jnp.einsum("nia,ia->ni", p, untied))
        pooled = h.mean(1)
        terms = h @ h.T / h.shape[1], pooled[:, None] * pooled, free @ free.T / h.shape[1]
        return jax.tree.map(jnp.add, sums, terms), None

    return jax.lax.scan(add, (jnp.zeros((len(p), len(p))),) * 3, jax.random.split(key, width))[0]
