"""Layers and pooling in every implementation that exists in JAX, as contenders of the benchmark."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import lax

import convlab as cl
from experiments.parts.rooflines import STEPS, Shape
from experiments.shared.stopwatch import Contender, compiled

UNIT = "conv, lax"


@dataclasses.dataclass(frozen=True)
class Implementations:
    """The settings of the layers to be timed.

    Args:
      length: The number of steps of the scan.
      networks: The number of networks under `vmap`.
      dense_limit: The number of weights above which the masked dense layer is left out.
    """

    length: int = 2
    networks: int = 8
    dense_limit: int = 2**24


class Layer(NamedTuple):
    """A contender before it is compiled: a function of images and weights, and the weights."""

    name: str
    apply: Callable[[jax.Array, Any], jax.Array]
    weights: Any
    unit: str = UNIT
    convolutions: int = 1  # its arithmetic in units of one convolution


def layers(shape: Shape, dtype: str, dense_limit: int) -> Iterator[Layer]:
    """Yield all layers that run in JAX at one shape."""
    n, side, c, d, k = shape
    window, space = cl.Window((k, k)), (side, side)
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def normal(*size: int) -> jax.Array:
        return jax.random.normal(next(keys), size, dtype) / (k * c**0.5)

    def convolve(x: jax.Array, v: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, v, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shared, local = normal(k, k, c, d), normal(*space, k, k, c, d)
    yield Layer(UNIT, convolve, shared)
    graph, weights = nnx.split(nnx.Conv(c, d, (k, k), use_bias=False, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0)))
    yield Layer("conv, nnx.Conv", lambda x, w: nnx.merge(graph, w)(x), weights)
    for name in ("auto", "canonical", "windows"):
        yield Layer(f"conv, {name}", lambda x, v, name=name: cl.conv(x, v, window, implementation=name), shared)
    for name in ("auto", "blocks", "windows"):
        call = lambda x, v, name=name: cl.locally_connected(x, v, window, implementation=name)  # noqa: E731
        yield Layer(f"local, {name}", call, local)
    module = linen.ConvLocal(d, (k, k), use_bias=False, dtype=dtype, param_dtype=dtype)
    fused = {"params": {"kernel": local.reshape(*space, k * k * c, d)}}
    yield Layer("local, ConvLocal", lambda x, w: module.apply(w, x), fused)  # pyright: ignore[reportArgumentType]
    if (side * side * c) * (side * side * d) <= dense_limit:
        dense = cl.lift_local_to_dense(local, window, space)
        mask = dense != 0
        call = lambda x, w: cl.dense(x, jnp.where(mask, w, 0))  # noqa: E731
        yield Layer("local, masked dense", call, dense)
    yield Layer("tiled, p=2", lambda x, v: cl.tiled(x, v, window), normal(2, 2, k, k, c, d))
    mixed = (normal(4, k, k, c, d), normal(*space, 4))
    wide = "conv, lax, 4 x channels"
    yield Layer(wide, convolve, normal(k, k, c, 4 * d), wide, 4)
    yield Layer("low rank, r=4", lambda x, w: cl.low_rank(x, *w, window), mixed, wide)  # pyright: ignore[reportCallIssue]


def stepped(apply: Callable, step: str) -> Callable:
    """Return the forward pass, or both passes, as a function of images, weights and cotangent."""
    if step == "forward":
        return lambda x, w, g: apply(x, w)

    def both(x: jax.Array, w: Any, g: jax.Array) -> Any:
        h, pull = jax.vjp(apply, x, w)
        return h, pull(g)

    return both


def scanned(apply: Callable, length: int) -> Callable:
    """Return a scan of forward and backward passes that adds the gradients to the inputs."""

    def run(x: jax.Array, w: Any, g: jax.Array) -> Any:
        def body(carry: Any, _: None) -> Any:
            h, gradients = stepped(apply, "both")(*carry, g)
            return jax.tree.map(lambda a, b: a + jnp.asarray(1e-3, a.dtype) * b, carry, tuple(gradients)), h.ravel()[0]

        return lax.scan(body, (x, w), None, length=length)

    return run


def contenders(shape: Shape, dtype: str, config: Implementations) -> Iterator[Contender]:
    """Yield all contenders at one shape."""
    x = jax.random.normal(jax.random.key(1), (shape.n, shape.side, shape.side, shape.c), dtype)
    for layer in layers(shape, dtype, config.dense_limit):
        g = jax.random.normal(jax.random.key(2), jax.eval_shape(layer.apply, x, layer.weights).shape, dtype)
        weights = sum(w.size for w in jax.tree.leaves(layer.weights))
        labels = {"name": layer.name, "unit": layer.unit, "weights": weights, "convolutions": layer.convolutions}
        for step in STEPS:
            yield compiled({**labels, "step": step}, stepped(layer.apply, step), (x, layer.weights, g))
        if layer.name in (UNIT, "conv, auto", "local, auto"):
            scan = scanned(layer.apply, config.length)
            yield compiled({**labels, "step": "scan"}, scan, (x, layer.weights, g), config.length)
            stacked = jax.tree.map(lambda a: jnp.stack([a] * config.networks), (x, layer.weights, g))
            yield compiled({**labels, "step": "vmap"}, jax.vmap(stepped(layer.apply, "both")), stacked, config.networks)


def pool_contenders(pool: str, dtype: str) -> Iterator[Contender]:
    """Yield max and mean pooling over 2x2 windows, ours and the usual forms."""
    n, side, c = map(int, pool.split("x"))
    x = jax.random.normal(jax.random.key(1), (n, side, side, c), dtype)
    window = cl.Window((2, 2), strides=2)

    def blocks(x: jax.Array) -> jax.Array:
        return x.reshape(n, side // 2, 2, side // 2, 2, c)

    forms = {
        "max pool, ours": lambda x, _: cl.max_pool(x, window),
        "max pool, reduce_window": lambda x, _: nnx.max_pool(x, (2, 2), (2, 2)),
        "max pool, reshape": lambda x, _: blocks(x).max((2, 4)),
        "mean pool, ours": lambda x, _: cl.mean_pool(x, window),
        "mean pool, reduce_window": lambda x, _: nnx.avg_pool(x, (2, 2), (2, 2)),
        "mean pool, reshape": lambda x, _: blocks(x).mean((2, 4)),
    }
    for name, apply in forms.items():
        g = jax.random.normal(jax.random.key(2), (n, side // 2, side // 2, c), dtype)
        labels = {"name": name, "unit": f"{name.split(',')[0]}, reduce_window", "weights": 0}
        for step in STEPS:
            yield compiled({**labels, "step": step}, stepped(apply, step), (x, jnp.zeros((0,), dtype), g))
