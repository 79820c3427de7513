"""Checks of claims that need a few seconds of training."""

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
    """Train a dense weight, tied in several ways, as its convolution is trained.

    Its gradients are summed over positions before the optimizer, or the optimizer's steps are averaged over positions, or
    nothing is tied. The mean of SGD's steps is that of a learning rate N times smaller, so it gets N times the learning rate.
    """
    space, window = (5, 7), cl.Window((3, 3), padding="CIRCULAR")
    x, target, v = normal(11, *space, 2), normal(11, *space, 3, seed=1), normal(3, 3, 2, 3, seed=2)
    positions = math.prod(space)

    def tie(w: jax.Array) -> jax.Array:
        return cl.lift_conv_to_dense(cl.project_dense_to_conv(w, window, space), window, space)

    def trained(weight: jax.Array, layer, optimizer, before=lambda g: g, after=lambda u: u) -> jax.Array:
        state = optimizer.init(weight)
        gradient = jax.jit(jax.grad(lambda weight: jnp.mean((layer(x, weight) - target) ** 2)))
        for _ in range(steps):
            update, state = optimizer.update(before(gradient(weight)), state)
            weight = weight + after(update)
        return weight

    start = cl.lift_conv_to_dense(v, window, space)
    holds, number = {}, 0.0
    for name, rule, sum_of_steps in (("SGD", optax.sgd, positions), ("Adam", optax.adam, 1)):
        target_w = cl.lift_conv_to_dense(trained(v, lambda x, v: cl.conv(x, v, window), rule(1e-2)), window, space)
        ways = {
            f"{name}'s gradients are summed": trained(start, cl.dense, rule(1e-2), before=lambda g: positions * tie(g)),
            f"{name}'s steps are averaged": trained(start, cl.dense, rule(1e-2 * sum_of_steps), after=tie),
            f"nothing ties {name}'s": trained(start, cl.dense, rule(1e-2)),
        }
        differences = {way: float(jnp.abs(w - target_w).max() / jnp.abs(target_w - start).max()) for way, w in ways.items()}
        holds |= {way: difference < 1e-3 for way, difference in differences.items()}
        number = differences[f"{name}'s steps are averaged"]
    return Finding(holds, number)


def enlarged(name: str) -> tuple[jax.Array, jax.Array]:
    """Return the digits of a split, enlarged from 8 x 8 to 28 x 28 pixels, and their labels.

    Each pixel becomes 3 x 3 pixels, and two pixels of background are added around.
    """
    split = getattr(data.load("digits"), name)
    images = jnp.asarray(split.images).reshape(-1, 8, 8, 1).repeat(3, 1).repeat(3, 2) / 16
    return jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), jnp.asarray(split.labels)


def build(network: str, seed: int) -> nnx.Module:
    """Build a linear classifier of 28 x 28 pixels, or LeNet.

    LeNet is "as printed" by the text, or has ReLUs and max pooling.
    """
    shape, rngs, xavier = (28, 28, 1), nnx.Rngs(seed), nnx.initializers.xavier_uniform()
    if network == "softmax":
        return models.MLP(shape, 10, (), rngs=rngs)
    options = {"activation": nnx.sigmoid, "pool": cl.mean_pool} if network == "as printed" else {}
    return models.LeNet(shape, 10, kernel_init=xavier, rngs=rngs, **options)


@functools.cache
def digits_right(network: str, epochs: int, seeds: int = 3) -> tuple[float, ...]:
    """Return the test accuracies of a network trained as the text trains LeNet.

    It is trained by plain gradient descent at a learning rate of 0.1.

    Enlarged digits replace Fashion-MNIST, which is not part of the package. With a batch of 16 instead of 128, ten epochs have
    890 steps.
    """
    (x, y), (x_test, y_test) = map(enlarged, ("train", "test"))
    graph, _ = nnx.split(build(network, 0))

    @jax.jit
    def step(weights: nnx.State, x: jax.Array, y: jax.Array) -> nnx.State:
        def loss(weights: nnx.State) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, weights)(x), y).mean()

        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights))

    def right(seed: int) -> float:
        weights, draw = nnx.state(build(network, seed)), np.random.default_rng(seed)
        for _ in range(epochs):
            for batch in np.split(draw.permutation(len(x))[: len(x) // 16 * 16], len(x) // 16):
                weights = step(weights, x[batch], y[batch])
        return float((nnx.merge(graph, weights)(x_test).argmax(1) == y_test).mean())

    return tuple(right(seed) for seed in range(seeds))


def lenet_beats_softmax(epochs: int = 10) -> Finding:
    """Check whether LeNet is more accurate than a linear classifier for each of three seeds.

    The number is the accuracy of LeNet as printed.
    """
    softmax, printed, modern = (digits_right(network, epochs) for network in ("softmax", "as printed", "as today"))
    holds = {
        "it has ReLUs and max pooling": min(modern) > max(softmax),
        "it has sigmoids and average pooling": min(printed) > max(softmax),
    }
    return Finding(holds, float(np.mean(printed)))


def relus_and_max_pooling_work_better(epochs: int = 10) -> Finding:
    """Check whether LeNet with ReLUs and max pooling is more accurate than as printed, for each seed.

    The number is the difference of the accuracies, rounded.
    """
    printed, modern = (digits_right(network, epochs) for network in ("as printed", "as today"))
    return one(min(modern) > max(printed), round(float(np.mean(modern) - np.mean(printed)), 1))
