"""Claims that a few seconds of training decide: whether updates are equal, and what the text's LeNet learns."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import data, models
from experiments.checks import Finding, normal, one


def equal_updates(steps: int = 3) -> Finding:
    """Train a dense weight as its convolution is trained, tied in several ways: the difference of what they come to.

    Its gradients are summed over positions before the optimizer sees them, or its steps are averaged after, or nothing is
    done. The mean of SGD's steps is that of a rate N times smaller, so it gets N times the rate.
    """
    space, window = (5, 7), cl.Window((3, 3), padding="CIRCULAR")
    x, target, v = normal(11, *space, 2), normal(11, *space, 3, seed=1), normal(3, 3, 2, 3, seed=2)
    places = math.prod(space)

    def tie(w: jax.Array) -> jax.Array:
        return cl.lift_conv_to_dense(cl.project_dense_to_conv(w, window, space), window, space)

    def trained(weight: jax.Array, layer, rule, before=lambda g: g, after=lambda u: u) -> jax.Array:
        state = rule.init(weight)
        gradient = jax.jit(jax.grad(lambda weight: jnp.mean((layer(x, weight) - target) ** 2)))
        for _ in range(steps):
            update, state = rule.update(before(gradient(weight)), state)
            weight = weight + after(update)
        return weight

    start = cl.lift_conv_to_dense(v, window, space)
    holds, number = {}, 0.0
    for name, rule, sum_of_steps in (("SGD", optax.sgd, places), ("Adam", optax.adam, 1)):
        wanted = cl.lift_conv_to_dense(trained(v, lambda x, v: cl.conv(x, v, window), rule(1e-2)), window, space)
        ways = {
            f"{name}'s gradients are summed": trained(start, cl.dense, rule(1e-2), before=lambda g: places * tie(g)),
            f"{name}'s steps are averaged": trained(start, cl.dense, rule(1e-2 * sum_of_steps), after=tie),
            f"nothing ties {name}'s": trained(start, cl.dense, rule(1e-2)),
        }
        off = {way: float(jnp.abs(w - wanted).max() / jnp.abs(wanted - start).max()) for way, w in ways.items()}
        holds |= {way: difference < 1e-3 for way, difference in off.items()}
        number = off[f"{name}'s steps are averaged"]
    return Finding(holds, number)


def enlarged(name: str) -> tuple[jax.Array, jax.Array]:
    """Digits of a split, of 8 x 8 pixels, as 28 x 28: each pixel three by three, and two of background around."""
    split = getattr(data.load("digits"), name)
    images = jnp.asarray(split.images).reshape(-1, 8, 8, 1).repeat(3, 1).repeat(3, 2) / 16
    return jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), jnp.asarray(split.labels)


def made(network: str, seed: int) -> nnx.Module:
    """A linear classifier of 28 x 28 pixels, or LeNet as the text prints it, or with ReLUs and max pooling."""
    shape, rngs, xavier = (28, 28, 1), nnx.Rngs(seed), nnx.initializers.xavier_uniform()
    if network == "softmax":
        return models.MLP(shape, 10, (), rngs=rngs)
    habits = {"activation": nnx.sigmoid, "pool": cl.mean_pool} if network == "as printed" else {}
    return models.LeNet(shape, 10, kernel_init=xavier, rngs=rngs, **habits)


@functools.cache
def digits_right(network: str, epochs: int, seeds: int = 3) -> tuple[float, ...]:
    """Test accuracies of a network trained as the text trains LeNet, by plain gradient descent at a rate of 0.1.

    Enlarged digits stand in for Fashion-MNIST, which is not part of the package. A batch of 16 instead of 128 makes 890
    steps of ten epochs.
    """
    (x, y), (x_test, y_test) = map(enlarged, ("train", "test"))
    graph, _ = nnx.split(made(network, 0))

    @jax.jit
    def step(weights: nnx.State, x: jax.Array, y: jax.Array) -> nnx.State:
        def loss(weights: nnx.State) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, weights)(x), y).mean()

        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights))

    def right(seed: int) -> float:
        weights, draw = nnx.state(made(network, seed)), np.random.default_rng(seed)
        for _ in range(epochs):
            for batch in np.split(draw.permutation(len(x))[: len(x) // 16 * 16], len(x) // 16):
                weights = step(weights, x[batch], y[batch])
        return float((nnx.merge(graph, weights)(x_test).argmax(1) == y_test).mean())

    return tuple(right(seed) for seed in range(seeds))


def lenet_beats_softmax(epochs: int = 10) -> Finding:
    """Whether LeNet is right more often than a linear classifier, for each of three seeds; how often as printed."""
    softmax, printed, modern = (digits_right(network, epochs) for network in ("softmax", "as printed", "as today"))
    holds = {
        "it has ReLUs and max pooling": min(modern) > max(softmax),
        "it has sigmoids and average pooling": min(printed) > max(softmax),
    }
    return Finding(holds, float(np.mean(printed)))


def relus_and_max_pooling_work_better(epochs: int = 10) -> Finding:
    """Whether LeNet is right more often with ReLUs and max pooling than as printed, for each seed; by how much, rounded."""
    printed, modern = (digits_right(network, epochs) for network in ("as printed", "as today"))
    return one(min(modern) > max(printed), round(float(np.mean(modern) - np.mean(printed)), 1))
