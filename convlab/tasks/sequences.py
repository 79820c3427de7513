"""Tasks on sequences: words at a distance from each other, and tones that rise or fall."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from convlab import check
from convlab.geometry import Window, as_integer
from convlab.ops.conv import conv
from convlab.tasks.task import Task, deviation, sampler


def distance(length: int, apart: int | jax.Array, vocabulary: int) -> Task:
    r"""Make a task that asks which noun follows the verb at a given distance.

    Texts are like "dog bites man" and "man bites dog":

    $$w_p = 0, \quad w_{p + \ell} = 1 + y, \quad w_{p - \ell} = 2 - y, \quad \text{all others} = f,
      \qquad p \sim U, \quad y \sim U\{0, 1\}, \quad f \sim U\{3 \ldots\}$$

    on a circle of n words, as one-hot vectors. Word 0 is the verb, 1 and 2 are the nouns. The same filler f is at all other
    positions of a text.

    Symmetries: The class does not change under rotations and exchanges of fillers. Exchanging the nouns exchanges the classes,
    but for every text it keeps the bag of all windows of up to l words. Such a window contains at most one of the three words,
    surrounded by the same filler. With different fillers in a text, overlapping windows could be assembled like a puzzle and
    would reveal the order.

    Prediction: Circular convolutions with global pooling give both classes exactly the same scores if their receptive field has
    at most l words. With l + 1 words they can reach perfect accuracy. Bags of words are at chance for every l. Locally
    connected kernels need not see both words, since they know the position of a noun on the circle. But they and dense layers
    need examples of every position.

    Args:
      length: The number of words n of a text, at least 3 l, so that the nouns are at least l words apart in both directions.
      apart: The distance l in words. It may be a tracer, and is then not checked.
      vocabulary: The number of different words, at least 4.

    Raises:
      ValueError: The text is too short, `apart` is below 1, or there are fewer than 4 words.

    Example:
      >>> x, y = distance(9, 3, 5).sample(jax.random.key(0), 3)
      >>> x.shape, x.sum(1).astype(int)[:, :3].tolist()
      ((3, 9, 5), [[1, 1, 1], [1, 1, 1], [1, 1, 1]])

    Reference: Discussions of convolutions over text, for the question. The distribution is ours.
    """
    n, words = as_integer("length", length), as_integer("vocabulary", vocabulary, least=4)
    known = check.is_known(apart)
    offset = as_integer("apart", apart) if known else apart
    if known and n < 3 * offset:
        raise ValueError(f"length is {n}; a verb and two nouns {offset} words from it need a circle of {3 * offset} at least")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, verb_key, filler_key = jax.random.split(key, 3)
        y = jax.random.randint(class_key, (), 0, 2)
        positions = (jax.random.randint(verb_key, (), 0, n) + jnp.array([0, 1, -1]) * offset) % n
        text = jnp.full(n, jax.random.randint(filler_key, (), 3, words)).at[positions].set(jnp.stack([0, 1 + y, 2 - y]))
        return jax.nn.one_hot(text, words), y

    return Task(f"distance {offset}" if known else "distance", (n, words), ("1 follows", "2 follows"), sampler(draw))


def chirps(
    samples: int,
    *,
    lowest: float = 0.02,
    octaves: float = 3.0,
    sweep: float | Sequence[float] = 0.5,
    noise: float = 0.3,
) -> Task:
    r"""Make a task that asks whether a tone rises or falls, or how much it rises.

    $$x_t = \sin \Big( \phi + 2 \pi \int_0^t f \Big) + \sigma \epsilon_t, \qquad
      f(t) = f_0\, 2^{s_y (t / T - 1/2)}, \quad \log_2 f_0 \sim U$$

    Pitches f_0 are limited to octaves that leave room for the wider sweep. The phase phi is uniform.

    Symmetries: The class does not change under shifts in phase and in pitch. A shift in pitch translates the logarithm of the
    frequency, not the frequency. Reversal in time reverses the sweep.

    Prediction: On an axis of log-frequency, kernels that are shared along time and frequency see the same pattern at every
    pitch. On an axis of linear frequency, the slope and the width of the pattern change with pitch. The appropriate rung then
    has separate kernels at each frequency, shared along time. The sign of the slope does not change, so the direction of a tone
    generalises to unseen pitches on linear frequency too. The amount by which it rises does not.

    Args:
      samples: The number of samples T.
      lowest: The lowest frequency, in cycles per sample.
      octaves: The number of octaves from the lowest to the highest frequency, which must be below 0.5 cycles per sample.
      sweep: The number of octaves s by which a tone rises (class 1) or falls (class 0), or a pair with the rise of each class.
      noise: The standard deviation sigma of the noise.

    Raises:
      ValueError: Frequencies reach 0.5 cycles per sample, the sweep is not below `octaves`, or `noise` is negative.

    Example:
      >>> x, y = chirps(64).sample(jax.random.key(0), 3)
      >>> x.shape
      (3, 64, 1)

    Reference: Discussions of convolutions over spectrograms, for the question. The distribution is ours.
    """
    n, sigma = as_integer("samples", samples), deviation(noise)
    rises = tuple(sweep) if isinstance(sweep, Sequence) else (-sweep, sweep)
    widest = max(map(abs, rises))
    if len(rises) != 2 or not rises[0] < rises[1] or not widest < octaves or not 0 < lowest * 2**octaves < 0.5:
        raise ValueError(
            f"lowest is {lowest}, octaves {octaves}, sweep {sweep}; needs a positive sweep, or two that grow, below octaves, "
            "and all frequencies below 0.5 cycles per sample"
        )

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, pitch_key, phase_key, noise_key = jax.random.split(key, 4)
        y = jax.random.randint(class_key, (), 0, 2)
        mean_octave = jax.random.uniform(pitch_key, (), minval=widest / 2, maxval=octaves - widest / 2)
        octave = mean_octave + jnp.array(rises)[y] * ((jnp.arange(n) + 0.5) / n - 0.5)
        angle = 2 * math.pi * (jnp.cumsum(lowest * 2.0**octave) + jax.random.uniform(phase_key))
        return (jnp.sin(angle) + sigma * jax.random.normal(noise_key, (n,)))[:, None], y

    classes = tuple(f"rises {rise:g}" for rise in rises) if isinstance(sweep, Sequence) else ("falls", "rises")
    return Task("chirps", (n, 1), classes, sampler(draw))


def spectrogram(
    x: Float[Array, "n t 1"], frequencies: ArrayLike | Sequence[float], widths: ArrayLike | Sequence[float], hop: int
) -> Float[Array, "n i q 1"]:
    r"""Compute spectrograms, with time along the first spatial axis and frequency along the second.

    $$S_{niq} = \Big| \sum_u h_q(u)\, x_{n,\, s i + u}\, e^{-2 \pi \mathrm{i} f_q u} \Big|$$

    The Hann windows h_q sum to 1. Suppose that neighbouring frequencies have a constant ratio, by which the widths decrease.
    Then a shift in pitch is a translation along the second axis. With equally spaced frequencies it is not.

    Args:
      x: The waves.
      frequencies: The frequencies f, in cycles per sample.
      widths: The number of samples of each window, or one number for all.
      hop: The number of samples s between neighbouring times.

    Raises:
      ValueError: The waves have several channels or are shorter than a window, a width is below 2, or a frequency is not
        between 0 and 0.5.
      TypeError: `x` is not floating.

    Example:
      >>> wave = jnp.sin(2 * math.pi * 0.125 * jnp.arange(64.0)).reshape(1, 64, 1)
      >>> spectrogram(wave, [0.0625, 0.125, 0.25], 32, 16)[0, :, :, 0].argmax(1)
      Array([1, 1, 1], dtype=int32)

    Reference: Brown 1991, Calculation of a constant Q spectral transform, for the scale of frequencies.
    """
    x = check.floating("x", x)
    f, w = np.broadcast_arrays(np.atleast_1d(np.asarray(frequencies, float)), np.asarray(widths))
    if x.ndim != 3 or x.shape[-1] != 1 or f.ndim != 1 or not f.size or w.min() < 2 or w.max() > x.shape[1]:
        raise ValueError(
            f"x has shape {x.shape}, frequencies {f.shape}, and widths are {w} samples; "
            "needs (n, t, 1), one axis of frequencies, and widths of 2 to t"
        )
    if not (0 <= f.min() <= f.max() <= 0.5):
        raise ValueError(f"frequencies are {f.min()} to {f.max()} cycles per sample; needs 0 to 0.5")
    longest = int(w.max())
    u = np.arange(longest)[:, None] - (longest - 1) / 2
    hann = np.where(np.abs(u) < w / 2, 1 + np.cos(2 * np.pi * u / w), 0)
    wave = hann / hann.sum(0) * np.exp(-2j * np.pi * f * u)
    v = jnp.asarray(np.concatenate([wave.real, wave.imag], 1)[:, None], x.dtype)
    h = conv(x, v, Window(longest, as_integer("hop", hop), "VALID"))
    return jnp.hypot(h[..., : len(f)], h[..., len(f) :])[..., None]
