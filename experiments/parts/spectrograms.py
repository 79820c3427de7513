"""Waves and their spectrograms, on an axis of log-frequency and on one of linear frequency."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlab import tasks

LOG, LINEAR, WAVE = "log-frequency", "linear frequency", "wave"
HOP, CYCLES, WIDTH, PER_OCTAVE, MARGIN = 32, 4, 64, 8, 3  # samples a step; cycles or samples a window; bins; bins at both ends


@dataclasses.dataclass(frozen=True)
class Waves:
    """The properties of the waves.

    Args:
      samples: The number of samples of a wave.
      lowest: The lowest frequency, in cycles per sample.
      octaves: The range of frequencies, in octaves. The lower half of it is "low".
      noise: The standard deviation of the noise. Tones have amplitude 1.
    """

    samples: int = 512
    lowest: float = 0.03
    octaves: float = 3.5
    noise: float = 0.5

    def axis(self, kind: str, finer: int = 1) -> tuple[np.ndarray, Any]:
        """Return the frequencies of an axis, and the widths of their windows."""
        bins = int(PER_OCTAVE * self.octaves) + 2 * MARGIN
        log = self.lowest * 2 ** ((np.arange(bins + 1) - MARGIN) / PER_OCTAVE)
        if kind == LOG:
            return log, np.round(CYCLES / log).astype(int)
        return np.linspace(log[0], log[-1], bins * finer + 1), WIDTH


def tones(config: Waves, rise: float, shifts: Sequence[int], seed: int) -> np.ndarray:
    """Return tones that rise by `rise` octaves, shifted by the given numbers of bins.

    They are low before the shift, and have no noise.
    """
    draw = np.random.default_rng(seed)
    middle, phase = draw.uniform(0, 0.5) + rise / 2, draw.uniform()
    t = (np.arange(config.samples) + 0.5) / config.samples - 0.5
    heights = middle + np.array(shifts)[:, None] / PER_OCTAVE + rise * t
    waves = np.sin(2 * np.pi * (np.cumsum(config.lowest * 2**heights, 1) + phase))
    return waves[..., None].astype(np.float32)


@functools.cache
def transform(config: Waves, kind: str, finer: int = 1) -> Callable[[jax.Array], jax.Array]:
    """Return the function from waves to spectrograms on an axis."""
    return jax.jit(lambda x: tasks.spectrogram(x, *config.axis(kind, finer), HOP))


def heard(waves: np.ndarray, config: Waves, kind: str) -> np.ndarray:
    """Return the input of a network: the waves, or their spectrograms."""
    return waves if kind == WAVE else np.asarray(transform(config, kind)(jnp.asarray(waves)))
