"""The time that the loop around a training step adds, and the time of several seeds in units of one."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import train
from convlab.data import Data, Split, standardise
from convlab.data.batching import shuffled_indices
from experiments.parts import rivals
from experiments.parts.rivals import NETWORKS
from experiments.shared.command import Rows
from experiments.shared.stopwatch import Contender, interleave

COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Loops:
    """The durations and repetitions of the measurements.

    Args:
      seconds: The time spent on each contender of steps and of seeds, in seconds.
      least: The smallest number of calls of each contender.
      loop_steps: The number of steps in one run of a loop.
      repetitions: The number of runs of each loop.
      seeds: The number of seeds that are trained together for one epoch.
      images: The number of images in an epoch.
    """

    seconds: float = 4.0
    least: int = 7
    loop_steps: int = 300
    repetitions: int = 7
    seeds: int = 8
    images: int = 10_000


def random_data(name: str, images: int) -> Data:
    """Draw random images to train on, stored as bytes as in data sets."""
    network = NETWORKS[name]
    x, y = rivals.noise(network, images)
    split = Split((40 * x + 128).clip(0, 255).astype(np.uint8), y)
    classes = tuple(map(str, range(network.head[-1])))
    return Data("random", split, split.take(np.arange(min(images, 1000))), classes)


def loop_rows(name: str, config: Loops) -> Rows:
    """Time a step of `fit` and of a loop written by hand, on the same batches."""
    network, data = NETWORKS[name], random_data(name, config.images)
    trainable = train.as_trainable(rivals.convlab_model(name, nnx.Rngs(0)), network.image_shape)
    options = {"batch_size": network.batch, "optimizer": "momentum", "schedule": "constant", "learning_rate": rivals.RATE}
    training = cl.Config(steps=config.loop_steps, evaluations=1, progress=False, **options)
    optimizer = optax.sgd(rivals.RATE, momentum=rivals.MOMENTUM)

    def apply(parameters: Any, model_state: Any, x: jax.Array, key: jax.Array, training: bool) -> Any:
        return trainable.apply(parameters, model_state, standardise(x, data.mean, data.std), key, training)

    step = rivals.plain_step(apply, optimizer)

    def by_hand() -> float:
        state = rivals.plain_state(trainable, optimizer)
        images, labels, begin = data.train.images, data.train.labels, 0.0
        for number in range(config.loop_steps):
            indices = shuffled_indices(range(number * network.batch, (number + 1) * network.batch), len(labels), training.seed)
            state, loss = step(state, images[indices], labels[indices])
            if number == 0:  # as in `fit`, the first step does not count: it may compile
                jax.block_until_ready(state)
                begin = time.perf_counter()
        jax.block_until_ready((state, loss))
        return (time.perf_counter() - begin) / (config.loop_steps - 1)

    loops = {"raw JAX loop": by_hand, "fit": lambda: cl.fit(trainable, data, training).step_seconds}
    runs = [{who: loop() for who, loop in loops.items()} for _ in range(1 + config.repetitions)][1:]  # the first warms up
    rows = []
    for who in loops:
        low, median, high = 1e3 * np.quantile([run[who] for run in runs], (0.25, 0.5, 0.75))
        ratio = np.median([run[who] / run["raw JAX loop"] for run in runs])
        row = {"contender": who, "ms": median, "ms_low": low, "ms_high": high, "calls": len(runs)}
        rows.append(row | {"ratio": ratio, "ratio_is": "time to raw JAX loop, in pairs"})
    return rows


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Record the seconds of everything that XLA compiles inside this context."""
    seconds: list[float] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def seed_rows(name: str, config: Loops) -> Rows:
    """Time an epoch of one seed and of several. Compiling happens before."""
    data = random_data(name, config.images)
    training = cl.Config(epochs=1, batch_size=NETWORKS[name].batch, evaluations=1, progress=False)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return rivals.convlab_model(name, rngs)

    calls = {
        "fit, 1 seed": lambda: cl.fit(build(nnx.Rngs(0)), data, training),
        f"fit_seeds, {config.seeds} seeds": lambda: cl.fit_seeds(build, data, training, seeds=range(config.seeds)),
    }
    contenders = []
    for who, call in calls.items():
        with compilations() as seconds:
            call()
        contenders.append(Contender({"contender": who, "compilations": len(seconds)}, call, compile_seconds=sum(seconds)))
    with compilations() as again:
        rows = interleave(contenders, config.seconds, config.least)
    return [
        row | {"ratio": row["ms"] / rows[0]["ms"], "ratio_is": "time to one seed", "compilations_again": len(again)}
        for row in rows
    ]
