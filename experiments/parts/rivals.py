"""One training step of the same networks in convlab and in stock JAX, for the comparison with PyTorch."""

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import train
from experiments.shared.stopwatch import Contender

RATE, MOMENTUM = 0.01, 0.9


class Network(NamedTuple):
    """A network that every library builds.

    It has convolutions, each with batch norm if set, activation and 2x2 max pooling, then dense layers.
    """

    batch: int
    image_shape: tuple[int, int, int]
    stages: tuple[tuple[int, int, str], ...]  # channels, side of the kernel, padding
    head: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = False


NETWORKS = {
    "LeNet": Network(128, (28, 28, 1), ((6, 5, "SAME"), (16, 5, "VALID")), (120, 84, 10)),
    "Three": Network(128, (32, 32, 3), tuple((d, 3, "SAME") for d in (32, 64, 128)), (10,), batch_norm=True),
    "Net": Network(64, (32, 32, 3), ((16, 3, "SAME"), (8, 3, "SAME")), (32, 2), "tanh"),
}


class Three(cl.models.Stack):
    """The largest of the networks: three 3x3 layers with batch norm."""

    def __init__(self, network: Network, rngs: nnx.Rngs):
        shape, stages, connections = network.image_shape, [], cl.models.Connections()
        for d, side, _ in network.stages:
            stages.append(
                cl.models.Stage(shape, d, side, connections=connections, batch_norm=True, pool=cl.max_pool, rngs=rngs)
            )
            shape = stages[-1].output_shape
        self.stages, self.head = nnx.List(stages), cl.models.Head(shape, network.head, rngs=rngs)


def convlab_model(name: str, rngs: nnx.Rngs) -> cl.models.Stack:
    """Build a network with convlab."""
    network = NETWORKS[name]
    if name == "LeNet":
        return cl.models.LeNet(network.image_shape, network.head[-1], rngs=rngs)
    return Three(network, rngs) if name == "Three" else cl.models.Net(network.image_shape, network.head[-1], rngs=rngs)


def layers(network: Network, library: Any) -> Iterator[Any]:
    """Yield a network's layers, built by a library's own constructors."""
    _, side, c = network.image_shape
    for d, size, padding in network.stages:
        yield library.conv(c, d, size, padding)
        if network.batch_norm:
            yield library.norm(d)
        yield getattr(library, network.activation)()
        yield library.pool()
        c, side = d, (side if padding == "SAME" else side - size + 1) // 2
    yield library.flatten()
    widths = (side * side * c, *network.head)
    for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        if number:
            yield getattr(library, network.activation)()
        yield library.dense(before, after)


def stock_model(network: Network, rngs: nnx.Rngs) -> nnx.Module:
    """Build a network of Flax's layers."""
    library = types.SimpleNamespace(
        conv=lambda c, d, size, padding: nnx.Conv(c, d, (size, size), padding=padding, rngs=rngs),
        norm=lambda d: nnx.BatchNorm(d, momentum=0.9, rngs=rngs),
        relu=lambda: nnx.relu,
        tanh=lambda: nnx.tanh,
        pool=lambda: functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2)),
        flatten=lambda: lambda x: x.reshape(len(x), -1),
        dense=lambda c, d: nnx.Linear(c, d, rngs=rngs),
    )
    return nnx.Sequential(*layers(network, library))


def plain_step(apply: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """Return a plain JAX training step, as written without a library."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        parameters, model_state, optimizer_state, key = state

        def loss(parameters: Any) -> Any:
            logits, new_state = apply(parameters, model_state, x, key, True)
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new_state

        (value, new_state), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return (optax.apply_updates(parameters, updates), new_state, optimizer_state, key), value

    return step


def plain_state(network: train.Trainable, optimizer: optax.GradientTransformation) -> Any:
    """Return copies of the arrays that a plain step changes."""
    state = (network.parameters, network.model_state, optimizer.init(network.parameters), jax.random.key(0))
    return jax.tree.map(jnp.copy, state)


def noise(network: Network, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw random images and labels."""
    random = np.random.default_rng(0)
    x = random.standard_normal((images, *network.image_shape), np.float32)
    return x, random.integers(0, network.head[-1], images).astype(np.int32)


def repeated(step: Callable, state: Any, batch: Sequence[Any], steps: int) -> Callable[[], None]:
    """Return a function that runs some steps on one batch and waits."""

    def call() -> None:
        nonlocal state
        for _ in range(steps):
            state, loss = step(state, *batch)
        jax.block_until_ready((state, loss))

    return call


def convlab_contender(name: str, steps: int) -> Contender:
    """Return convlab's training step."""
    network = NETWORKS[name]
    trainable = train.as_trainable(convlab_model(name, nnx.Rngs(0)), network.image_shape)
    optimizer = optax.sgd(1.0, momentum=MOMENTUM)
    state = train.initial_state(trainable, optimizer, 0, train.StepOptions())
    step = functools.partial(train.train_step, apply=trainable.apply, optimizer=optimizer)
    moments = np.zeros(network.image_shape[-1:], np.float32), np.ones(network.image_shape[-1:], np.float32), np.float32(RATE)
    batch = *jax.device_put(noise(network, network.batch)), *moments
    return Contender({"contender": "convlab"}, repeated(step, state, batch, steps), steps)


def stock_contender(name: str, steps: int) -> Contender:
    """Return a handwritten training step of Flax's layers."""
    network, optimizer = NETWORKS[name], optax.sgd(RATE, momentum=MOMENTUM)
    trainable = train.as_trainable(stock_model(network, nnx.Rngs(0)), network.image_shape)
    step, batch = plain_step(trainable.apply, optimizer), jax.device_put(noise(network, network.batch))
    return Contender({"contender": "stock JAX"}, repeated(step, plain_state(trainable, optimizer), batch, steps), steps)
