"""Ways to bring images to a training step, and their times."""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

import convlab as cl
from convlab import train
from convlab.data import Data, batches

LOAD = """
import json, resource, sys, time
import convlab as cl
import tensorflow_datasets.core
options = json.loads(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.perf_counter()
data = cl.load(**options)
seconds = time.perf_counter() - begin
for images, labels in cl.data.batches(data.train, 128, stop=100):
    pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, (after - before) / 1e3]))
"""


def load_alone(options: dict[str, Any]) -> tuple[float, float]:
    """Load a data set in a new process and read 100 batches.

    Returns the load time in s and the growth of resident memory in MB.
    """
    command = [sys.executable, "-c", LOAD, json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    return tuple(json.loads(run.stdout.splitlines()[-1]))


def loop(steps: int, data: Data, feed: Iterator[tuple[Any, Any]]) -> Callable[[], None]:
    """Return a function that takes some training steps of a small network on the batches of `feed`."""
    model = cl.models.Pyramid(data.image_shape, len(data.classes), (8, 16), rngs=nnx.Rngs(0))
    model, optimizer = train.as_trainable(model, data.image_shape), train.OPTIMIZERS["adam"](0.0)
    state = train.initial_state(model, optimizer, 0, train.StepOptions())
    step = functools.partial(train.train_step, apply=model.apply, optimizer=optimizer)

    def run() -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = step(state, *next(feed), data.mean, data.std, 1e-3)
        jax.block_until_ready(state)

    return run


def forever(batch: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield one batch again and again."""
    while True:
        yield batch


def reading(data: Data, batch_size: int, seconds: float) -> float:
    """Measure the images per second of reading shuffled batches."""
    feed = batches(data.train, batch_size)
    next(feed)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or count == 0:
        count += len(next(feed)[1])
    return count / (time.perf_counter() - begin)
