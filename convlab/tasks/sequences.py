"""Words that belong together across a distance, and tones that rise and fall at any pitch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from convlab import check
from convlab.geometry import Window, as_integer
from convlab.ops.conv import conv
from convlab.tasks.task import Task, one_by_one, side


def distance(length: int, apart: int, vocabulary: int) -> Task:
    r"""Whether two marked words agree that stand a given number of words apart: a dial for text-like sequences.

    $$y = [\, w_p = w_{p + \ell} \,], \qquad w_p, w_{p + \ell} \sim U\{0, 1\}, \quad \text{other words} \sim U\{2 \ldots\}$$

    at a uniform place p; words are one-hot.

    Symmetries: shifts of the pair, words 0 and 1 exchanged, all others permuted.

    Predicted: a network of convolutions and global pooling needs a receptive field of more than l words; below that it stays at
    chance, as either word alone says nothing. A dense network needs examples of the pair at every place.

    Args:
      length: Words of a sequence.
      apart: l.
      vocabulary: Words there are, at least 3.

    Raises:
      ValueError: The pair does not fit, or fewer than 3 words.

    Example:
      >>> x, y = distance(9, 4, 5).sample(jax.random.key(0), 3)
      >>> x.shape, x[..., :2].sum((1, 2)).tolist()
      ((3, 9, 5), [2.0, 2.0, 2.0])

    Reference: of the question, discussions of convolutions over text; the law is ours.
    """
    n, words = as_integer("length", length), as_integer("vocabulary", vocabulary, least=3)
    if not 1 <= apart < n:
        raise ValueError(f"apart is {apart} but a sequence of {n} words has pairs from 1 to {n - 1} apart")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        pair, where, others = jax.random.split(key, 3)
        first, second = jax.random.randint(pair, (2,), 0, 2)
        p = jax.random.randint(where, (), 0, n - apart)
        text = jax.random.randint(others, (n,), 2, words).at[jnp.stack([p, p + apart])].set(jnp.stack([first, second]))
        return jax.nn.one_hot(text, words), (first == second).astype(jnp.int32)

    return Task(f"distance {apart}", (n, words), ("differ", "agree"), one_by_one(draw))


def chirps(samples: int, *, lowest: float = 0.02, octaves: float = 3.0, sweep: float = 0.5, noise: float = 0.3) -> Task:
    r"""Whether a tone rises or falls, at any pitch.

    $$x_t = \sin \Big( \phi + 2 \pi \int_0^t f \Big) + \sigma \epsilon_t, \qquad
      f(t) = f_0\, 2^{\pm s (t / T - 1/2)}, \quad \log_2 f_0 \sim U$$

    over the octaves that leave room for the sweep; phi is uniform.

    Symmetries: shifts in phase, and of pitch: one of log-frequency, not of frequency. Time turned round exchanges the classes.

    Predicted: kernels tied along time and along log-frequency see one pattern; along linear frequency the slope and the width
    of the pattern change with pitch, and kernels of their own at each frequency, tied along time, are the rung for that.

    Args:
      samples: T.
      lowest: Lowest frequency, in cycles a sample.
      octaves: From the lowest to the highest, which stays below half a cycle a sample.
      sweep: s, octaves that a tone rises or falls.
      noise: sigma.

    Raises:
      ValueError: Frequencies reach half a cycle a sample, or the sweep has no room.

    Example:
      >>> x, y = chirps(64).sample(jax.random.key(0), 3)
      >>> x.shape
      (3, 64, 1)
    """
    n = as_integer("samples", samples)
    if not 0 < sweep < octaves or not 0 < lowest * 2**octaves < 0.5:
        raise ValueError(
            f"lowest is {lowest}, octaves {octaves}, sweep {sweep}; needs a sweep below the octaves, all below 0.5 cycles"
        )

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, pitch, phase, rest = jax.random.split(key, 4)
        y = jax.random.randint(which, (), 0, 2)
        middle = jax.random.uniform(pitch, (), minval=sweep / 2, maxval=octaves - sweep / 2)
        height = middle + side(y) * sweep * ((jnp.arange(n) + 0.5) / n - 0.5)
        angle = 2 * math.pi * (jnp.cumsum(lowest * 2.0**height) + jax.random.uniform(phase))
        return (jnp.sin(angle) + noise * jax.random.normal(rest, (n,)))[:, None], y

    return Task("chirps", (n, 1), ("falls", "rises"), one_by_one(draw))


def spectrogram(x: Float[Array, "n t 1"], frequencies: ArrayLike, widths: ArrayLike, hop: int) -> Float[Array, "n i q 1"]:
    r"""Show which frequencies sound when: time along the first axis, frequency along the second.

    $$S_{niq} = \Big| \sum_u h_q(u)\, x_{n,\, s i + u}\, e^{-2 \pi \mathrm{i} f_q u} \Big|$$

    with Hann windows h_q that sum to 1. Of frequencies that grow by a factor, with widths that fall by it, a shift of pitch is
    a translation along the second axis; of equally spaced ones it is not.

    Args:
      x: Waves.
      frequencies: f, in cycles a sample.
      widths: Samples of each window, or of all.
      hop: s, samples between neighbouring times.

    Raises:
      ValueError: The waves have several channels, are shorter than a window, or a width is below 2.
      TypeError: `x` is not floating.

    Example:
      >>> wave = jnp.sin(2 * math.pi * 0.125 * jnp.arange(64.0)).reshape(1, 64, 1)
      >>> spectrogram(wave, [0.0625, 0.125, 0.25], 32, 16)[0, :, :, 0].argmax(1)
      Array([1, 1, 1], dtype=int32)

    Reference: of the scale, Brown 1991, Calculation of a constant Q spectral transform.
    """
    x = check.floating("x", x)
    f, w = np.broadcast_arrays(np.atleast_1d(np.asarray(frequencies, float)), np.asarray(widths))
    if x.ndim != 3 or x.shape[-1] != 1 or f.ndim != 1 or w.min() < 2 or w.max() > x.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and windows have {w.min()} to {w.max()} samples; needs (n, t, 1), and 2 to t samples"
        )
    longest = int(w.max())
    u = np.arange(longest)[:, None] - (longest - 1) / 2
    hann = np.where(np.abs(u) < w / 2, 1 + np.cos(2 * np.pi * u / w), 0)
    wave = hann / hann.sum(0) * np.exp(-2j * np.pi * f * u)
    v = jnp.asarray(np.concatenate([wave.real, wave.imag], 1)[:, None], x.dtype)
    h = conv(x, v, Window(longest, as_integer("hop", hop), "VALID"))
    return jnp.hypot(h[..., : len(f)], h[..., len(f) :])[..., None]
