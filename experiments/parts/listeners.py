"""Networks on waves or spectrograms, and a null model for them: one threshold on one number."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab.data import Split
from convlab.models import MLP
from experiments.parts.spectrograms import LINEAR, LOG, WAVE, Waves, heard


class Listener(nnx.Module):
    """Two layers with ReLUs, the mean over all positions, and a linear read-out."""

    def __init__(self, shape: Sequence[int], sizes: Any, strides: Any, untied: bool, seed: int):
        rngs, space, channels = nnx.Rngs(seed), tuple(shape[:-1]), (shape[-1], 8, 16)
        self.layers = nnx.List([])
        for c, d, size, stride in zip(channels[:-1], channels[1:], sizes, strides, strict=True):
            window = cl.Window(size, stride, "VALID")
            out = window.output_shape(space)
            options: dict[str, Any] = {"strides": stride, "padding": "VALID", "rngs": rngs}
            if untied:
                self.layers.append(cl.Tiled(c, d, size, period=(1, out[1]), **options))
            else:
                self.layers.append(cl.Conv(c, d, size, **options))
            space = out
        self.head = nnx.Linear(channels[-1], 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x.mean(tuple(range(1, x.ndim - 1))))


class Network(NamedTuple):
    """A network: its input, and its builder from an input shape and a seed."""

    hears: str
    build: Callable[[Sequence[int], int], nnx.Module]


def _picture(untied: bool) -> Callable[[Sequence[int], int], nnx.Module]:
    return lambda shape, seed: Listener(shape, ((5, 5), (5, 5)), ((1, 1), (1, 1)), untied, seed)


NULL = "linear read-out"
NETWORKS = {
    "shared, log-frequency": Network(LOG, _picture(False)),
    "shared, linear frequency": Network(LINEAR, _picture(False)),
    "own at each log-frequency": Network(LOG, _picture(True)),
    "own at each linear frequency": Network(LINEAR, _picture(True)),
    "shared, on the wave": Network(WAVE, lambda shape, seed: Listener(shape, (64, 32), (8, 4), False, seed)),
    NULL: Network(LOG, lambda shape, seed: MLP(shape, 2, (), rngs=nnx.Rngs(seed))),
}
PEAKS = {"peak, log-frequency": LOG, "peak, linear frequency": LINEAR}  # one threshold on the peak of the mean spectrum


def by_peak(train: Split, test: Split, config: Waves, kind: str) -> float:
    """Return the accuracy of one threshold on the peak of the mean spectrum, fitted to the training waves."""
    (x, y), (new, truth) = (
        (heard(np.asarray(split.images), config, kind)[..., 0].mean(1).max(1), np.asarray(split.labels))
        for split in (train, test)
    )
    right = {threshold: float(np.mean((x < threshold) == y)) for threshold in x}
    threshold = max(right, key=lambda threshold: abs(right[threshold] - 0.5))
    return float(np.mean(((new < threshold) == truth) == (right[threshold] > 0.5)))
