"""Words that belong together across a distance, and tones that rise and fall at any pitch."""

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
from convlab.tasks.task import Task, deviation, one_by_one


def distance(length: int, apart: int | jax.Array, vocabulary: int) -> Task:
    r"""Which of two nouns follows the verb, a given number of words away: "dog bites man" or "man bites dog".

    $$w_p = 0, \quad w_{p + \ell} = 1 + y, \quad w_{p - \ell} = 2 - y, \quad \text{all others} = f,
      \qquad p \sim U, \quad y \sim U\{0, 1\}, \quad f \sim U\{3 \ldots\}$$

    around a circle of n words, one-hot: word 0 is the verb, 1 and 2 are the nouns, and one filler f fills the rest of a text.

    Symmetries: rotations, and fillers exchanged. The nouns exchanged turn the class, and leave the bag of all windows of up to
    l words as it is, text by text: such a window holds one of the three marked words at most, and the same filler stands around
    all of them. (Of fillers that differ, windows that overlap could be put together like a puzzle, and tell the order.)

    Predicted: circular convolutions and global pooling give both classes the same scores, exactly, if they see at most l words;
    with l + 1 they can be right everywhere. Bags of words are at chance at every l. Kernels of their own at every place need
    not see both words, as they know where on the circle a noun is, but they and dense layers need examples of every place.

    Args:
      length: n, words of a text, at least 3 l: then the nouns are l words apart the other way round, too.
      apart: l; may be traced, and is then not checked.
      vocabulary: Words there are, at least 4.

    Raises:
      ValueError: The text is too short, l is below 1, or fewer than 4 words.

    Example:
      >>> x, y = distance(9, 3, 5).sample(jax.random.key(0), 3)
      >>> x.shape, x.sum(1).astype(int)[:, :3].tolist()
      ((3, 9, 5), [[1, 1, 1], [1, 1, 1], [1, 1, 1]])

    Reference: of the question, discussions of convolutions over text; the law is ours.
    """
    n, words = as_integer("length", length), as_integer("vocabulary", vocabulary, least=4)
    known = check.is_known(apart)
    away = as_integer("apart", apart) if known else apart
    if known and n < 3 * away:
        raise ValueError(f"length is {n} but a verb and two nouns {away} words from it need a circle of {3 * away} at least")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, where, rest = jax.random.split(key, 3)
        y = jax.random.randint(which, (), 0, 2)
        places = (jax.random.randint(where, (), 0, n) + jnp.array([0, 1, -1]) * away) % n
        text = jnp.full(n, jax.random.randint(rest, (), 3, words)).at[places].set(jnp.stack([0, 1 + y, 2 - y]))
        return jax.nn.one_hot(text, words), y

    return Task(f"distance {away}" if known else "distance", (n, words), ("1 follows", "2 follows"), one_by_one(draw))


def chirps(
    samples: int,
    *,
    lowest: float = 0.02,
    octaves: float = 3.0,
    sweep: float | Sequence[float] = 0.5,
    noise: float = 0.3,
) -> Task:
    r"""Whether a tone rises or falls, or how much it rises, at any pitch.

    $$x_t = \sin \Big( \phi + 2 \pi \int_0^t f \Big) + \sigma \epsilon_t, \qquad
      f(t) = f_0\, 2^{s_y (t / T - 1/2)}, \quad \log_2 f_0 \sim U$$

    over the octaves that leave room for the wider sweep; phi is uniform.

    Symmetries: shifts in phase, and of pitch: one of log-frequency, not of frequency. Time turned round turns the sweep.

    Predicted: kernels tied along time and along log-frequency see one pattern; along linear frequency the slope and the width
    of the pattern change with pitch, and kernels of their own at each frequency, tied along time, are the rung for that. The
    sign of the slope stays, so that the direction can be told along linear frequency at pitches that were never heard, but
    how much a tone rises cannot.

    Args:
      samples: T.
      lowest: Lowest frequency, in cycles a sample.
      octaves: From the lowest to the highest, which stays below half a cycle a sample.
      sweep: s, octaves that a tone rises (class 1) or falls (class 0); or the octaves that those of each class rise.
      noise: sigma.

    Raises:
      ValueError: Frequencies reach half a cycle a sample, the sweep has no room, or a negative noise.

    Example:
      >>> x, y = chirps(64).sample(jax.random.key(0), 3)
      >>> x.shape
      (3, 64, 1)

    Reference: of the question, discussions of convolutions over spectrograms; the law is ours.
    """
    n, sigma = as_integer("samples", samples), deviation(noise)
    rises = tuple(sweep) if isinstance(sweep, Sequence) else (-sweep, sweep)
    widest = max(map(abs, rises))
    if len(rises) != 2 or not rises[0] < rises[1] or not widest < octaves or not 0 < lowest * 2**octaves < 0.5:
        raise ValueError(
            f"lowest is {lowest}, octaves {octaves}, sweep {sweep}; needs a positive sweep, or two that grow, below octaves, "
            "and all frequencies below 0.5 cycles"
        )

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, pitch, phase, rest = jax.random.split(key, 4)
        y = jax.random.randint(which, (), 0, 2)
        middle = jax.random.uniform(pitch, (), minval=widest / 2, maxval=octaves - widest / 2)
        height = middle + jnp.array(rises)[y] * ((jnp.arange(n) + 0.5) / n - 0.5)
        angle = 2 * math.pi * (jnp.cumsum(lowest * 2.0**height) + jax.random.uniform(phase))
        return (jnp.sin(angle) + sigma * jax.random.normal(rest, (n,)))[:, None], y

    classes = tuple(f"rises {rise:g}" for rise in rises) if isinstance(sweep, Sequence) else ("falls", "rises")
    return Task("chirps", (n, 1), classes, one_by_one(draw))


def spectrogram(
    x: Float[Array, "n t 1"], frequencies: ArrayLike | Sequence[float], widths: ArrayLike | Sequence[float], hop: int
) -> Float[Array, "n i q 1"]:
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
      ValueError: The waves have several channels or are shorter than a window, a width is below 2, or a frequency beyond 0
        to 0.5.
      TypeError: `x` is not floating.

    Example:
      >>> wave = jnp.sin(2 * math.pi * 0.125 * jnp.arange(64.0)).reshape(1, 64, 1)
      >>> spectrogram(wave, [0.0625, 0.125, 0.25], 32, 16)[0, :, :, 0].argmax(1)
      Array([1, 1, 1], dtype=int32)

    Reference: of the scale, Brown 1991, Calculation of a constant Q spectral transform.
    """
    x = check.floating("x", x)
    f, w = np.broadcast_arrays(np.atleast_1d(np.asarray(frequencies, float)), np.asarray(widths))
    if x.ndim != 3 or x.shape[-1] != 1 or f.ndim != 1 or not f.size or w.min() < 2 or w.max() > x.shape[1]:
        raise ValueError(
            f"x has shape {x.shape}, frequencies {f.shape}, and windows are {w} samples; needs (n, t, 1), one, and 2 to t"
        )
    if not (0 <= f.min() <= f.max() <= 0.5):
        raise ValueError(f"frequencies are {f.min()} to {f.max()} cycles a sample; needs 0 to 0.5")
    longest = int(w.max())
    u = np.arange(longest)[:, None] - (longest - 1) / 2
    hann = np.where(np.abs(u) < w / 2, 1 + np.cos(2 * np.pi * u / w), 0)
    wave = hann / hann.sum(0) * np.exp(-2j * np.pi * f * u)
    v = jnp.asarray(np.concatenate([wave.real, wave.imag], 1)[:, None], x.dtype)
    h = conv(x, v, Window(longest, as_integer("hop", hop), "VALID"))
    return jnp.hypot(h[..., : len(f)], h[..., len(f) :])[..., None]
