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
HOP, CYCLES, WIDTH, PER_OCTAVE, MARGIN = 32, 4, 64, 8, 3  # samples; cycles of a window; samples of one; bins; bins at both ends


@dataclasses.dataclass(frozen=True)
class Waves:
    """What the waves are like.

    Args:
      samples: Of a wave.
      lowest: Lowest frequency, in cycles a sample.
      octaves: From there to the highest; the lower half of them is low.
      noise: Standard deviation, beside tones of amplitude 1.
    """

    samples: int = 512
    lowest: float = 0.03
    octaves: float = 3.5
    noise: float = 0.5

    def axis(self, kind: str, finer: int = 1) -> tuple[np.ndarray, Any]:
        """Frequencies of an axis, and the widths of their windows."""
        bins = int(PER_OCTAVE * self.octaves) + 2 * MARGIN
        log = self.lowest * 2 ** ((np.arange(bins + 1) - MARGIN) / PER_OCTAVE)
        if kind == LOG:
            return log, np.round(CYCLES / log).astype(int)
        return np.linspace(log[0], log[-1], bins * finer + 1), WIDTH


def tones(config: Waves, rise: float, shifts: Sequence[int], seed: int) -> np.ndarray:
    """A tone that rises by so many octaves, or none, low, and as much higher as so many bins; without noise."""
    draw = np.random.default_rng(seed)
    middle, phase = draw.uniform(0, 0.5) + rise / 2, draw.uniform()
    t = (np.arange(config.samples) + 0.5) / config.samples - 0.5
    heights = middle + np.array(shifts)[:, None] / PER_OCTAVE + rise * t
    waves = np.sin(2 * np.pi * (np.cumsum(config.lowest * 2**heights, 1) + phase))
    return waves[..., None].astype(np.float32)


@functools.cache
def transform(config: Waves, kind: str, finer: int = 1) -> Callable[[jax.Array], jax.Array]:
    """What makes of waves the spectrogram of an axis."""
    return jax.jit(lambda x: tasks.spectrogram(x, *config.axis(kind, finer), HOP))


def heard(waves: np.ndarray, config: Waves, kind: str) -> np.ndarray:
    """What a network hears of waves."""
    return waves if kind == WAVE else np.asarray(transform(config, kind)(jnp.asarray(waves)))
