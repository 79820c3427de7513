"""Tasks on sequences: the order of distant words, and the rise or fall of a tone."""

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
from convlab.tasks.task import Task, check_noise, make_sampler


def word_order(length: int, distance: int | jax.Array, vocabulary: int) -> Task:
    r"""Make a task that asks for the order of two nouns around a verb, as in "dog bites man".

    A text is a circle of n words. The verb is word 0 and stands at a uniform position p. The nouns are words 1 and 2. One noun
    stands l words after the verb and the other l words before it. All other positions hold the same filler word f, drawn
    separately for every text:

    $$w_p = 0, \quad w_{p + l} = 1 + y, \quad w_{p - l} = 2 - y, \quad w_i = f \text{ elsewhere},
      \qquad p \sim U\{0 \ldots n - 1\}, \quad y \sim U\{0, 1\}, \quad f \sim U\{3 \ldots v - 1\}$$

    An image holds the n words as one-hot vectors of v channels. The label y is 0 if word 1 follows the verb, and 1 if word 2
    does.

    Symmetries: A rotation of the circle leaves the label unchanged, and so does another filler. Exchanging the two nouns
    exchanges the labels.

    Predicted accuracy: A circular convolution with global pooling sees a text as a bag of windows, without their positions. If
    windows have at most l words, each holds at most one of the verb and the nouns. Its other words are fillers. Exchanging the
    nouns then gives the same bag, so that the network has the same scores for both classes. It is at chance if its receptive
    field has at most l words. If it has l + 1 or more, a window holds the verb and the noun after it, and perfect accuracy is
    possible. A bag of single words is at chance for every l. Locally connected and dense layers depend on the position of a
    noun on the circle. So they can solve the task without a window that holds two of the three words. But they need texts with
    the verb at every position.

    All fillers of a text are equal because different ones would reveal the order: overlapping windows could be assembled like
    the pieces of a puzzle.

    Args:
      length: The number of words n of a text. It is at least 3 l, so that the nouns are at least l words apart in both
        directions.
      distance: The number of words l from the verb to each noun, 1 for neighbours. It may be a tracer, which is not checked.
      vocabulary: The number of different words v, at least 4.

    Raises:
      ValueError: The text is too short, `distance` is below 1, or there are fewer than 4 words.
      TypeError: An argument is not an integer.

    Example:
      >>> x, y = word_order(9, 3, 5).sample(jax.random.key(0), 3)
      >>> x.shape, x.sum(1).astype(int)[:, :3].tolist()
      ((3, 9, 5), [[1, 1, 1], [1, 1, 1], [1, 1, 1]])

    Reference: Discussions of convolutions over text, for the question. The distribution is ours.
    """
    n, words = as_integer("length", length), as_integer("vocabulary", vocabulary, least=4)
    is_concrete = check.is_concrete(distance)
    offset = as_integer("distance", distance) if is_concrete else distance
    if is_concrete and n < 3 * offset:
        raise ValueError(f"length is {n}; a verb and two nouns {offset} words from it need a circle of at least {3 * offset}")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, verb_key, filler_key = jax.random.split(key, 3)
        y = jax.random.randint(class_key, (), 0, 2)
        positions = (jax.random.randint(verb_key, (), 0, n) + jnp.array([0, 1, -1]) * offset) % n
        text = jnp.full(n, jax.random.randint(filler_key, (), 3, words)).at[positions].set(jnp.stack([0, 1 + y, 2 - y]))
        return jax.nn.one_hot(text, words), y

    name = f"word order, distance {offset}" if is_concrete else "word order"
    return Task(name, (n, words), ("1 follows", "2 follows"), make_sampler(draw))


def chirps(
    samples: int,
    *,
    lowest_frequency: float = 0.02,
    octaves: float = 3.0,
    sweep: float | Sequence[float] = 0.5,
    noise: float = 0.3,
) -> Task:
    r"""Make a task that asks whether the pitch of a noisy tone rises or falls.

    $$x_t = \sin \Big( \phi + 2 \pi \sum_{u \le t} f_u \Big) + \sigma \epsilon_t, \qquad
      f_u = f_0\, 2^{s_y ((u + 1/2) / T - 1/2)}, \quad \epsilon_t \sim N(0, 1)$$

    An image is a wave of T samples with one channel. In class y, its log-frequency rises linearly by s_y octaves from the first
    sample to the last, or falls if s_y is negative. The frequency f_0 in the middle is the pitch of the tone. Its logarithm is
    uniform over the range in which every sweep stays between the lowest frequency and `octaves` above it. The phase phi is
    uniform.

    The label is 1 if the tone rises and 0 if it falls. With a pair of sweeps, the label says which of the two it is.

    Symmetries: Another phase or pitch leaves the label unchanged. On an axis of log-frequency, another pitch translates the
    tone. On an axis of linear frequency, it scales the tone. Reversing the time exchanges rising and falling.

    Predicted accuracy of networks that read a `spectrogram`: Kernels that are shared along time and log-frequency see the same
    pattern at every pitch. Their accuracy is therefore the same at pitches that do not occur in training. On an axis of linear
    frequency, the slope and the width of the pattern grow with the pitch. The appropriate rung there shares kernels along time
    and has a separate kernel at each frequency. Shared kernels on this axis still generalise the direction of a tone to unseen
    pitches, since a slope has the same sign at every pitch. They do not generalise the amount of its rise.

    Args:
      samples: The number of samples T.
      lowest_frequency: The lowest frequency, in cycles per sample.
      octaves: The number of octaves from the lowest to the highest frequency, which must be below 0.5 cycles per sample.
      sweep: The number of octaves s by which a tone rises (class 1) or falls (class 0), or a pair with the rise of each class.
      noise: The standard deviation sigma of the noise. The tone has an amplitude of 1.

    Raises:
      ValueError: Frequencies reach 0.5 cycles per sample, a sweep does not fit into `octaves`, the sweeps of the classes are
        not in increasing order, or `noise` is negative or not finite.
      TypeError: `samples` is not an integer.

    Example:
      >>> x, y = chirps(64).sample(jax.random.key(0), 3)
      >>> x.shape
      (3, 64, 1)

    Reference: Discussions of convolutions over spectrograms, for the question. The distribution is ours.
    """
    n, sigma = as_integer("samples", samples), check_noise(noise)
    for name, number in {"lowest_frequency": lowest_frequency, "octaves": octaves}.items():
        check.number(name, number)
    is_pair = isinstance(sweep, Sequence)
    rises = tuple(check.number("sweep", rise) for rise in check.sequence("sweep", sweep if is_pair else [sweep], "numbers"))
    rises = rises if is_pair else (-rises[0], rises[0])
    widest = max(map(abs, rises), default=0)
    if (
        len(rises) != 2
        or not rises[0] < rises[1]
        or not widest < octaves
        or not (octaves < 1000 and 0 < lowest_frequency * 2**octaves < 0.5)
    ):
        raise ValueError(
            f"lowest_frequency is {lowest_frequency}, octaves {octaves}, sweep {sweep}; needs a positive sweep, or two in "
            "increasing order, below octaves, and all frequencies below 0.5 cycles per sample"
        )

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, pitch_key, phase_key, noise_key = jax.random.split(key, 4)
        y = jax.random.randint(class_key, (), 0, 2)
        mean_octave = jax.random.uniform(pitch_key, (), minval=widest / 2, maxval=octaves - widest / 2)
        octave = mean_octave + jnp.array(rises)[y] * ((jnp.arange(n) + 0.5) / n - 0.5)
        angle = 2 * math.pi * (jnp.cumsum(lowest_frequency * 2.0**octave) + jax.random.uniform(phase_key))
        return (jnp.sin(angle) + sigma * jax.random.normal(noise_key, (n,)))[:, None], y

    classes = tuple(f"rises {rise:g}" for rise in rises) if is_pair else ("falls", "rises")
    return Task("chirps", (n, 1), classes, make_sampler(draw))


def spectrogram(
    x: Float[Array, "n t 1"], frequencies: ArrayLike | Sequence[float], widths: ArrayLike | Sequence[float], hop: int
) -> Float[Array, "n i q 1"]:
    r"""Compute spectrograms, with time along the first spatial axis and frequency along the second.

    $$S_{niq} = \Big| \sum_u h_q(u)\, x_{n,\, s i + u}\, e^{-2 \pi \mathrm{i} f_q u} \Big|$$

    where h_q is a Hann window whose samples sum to 1. If the ratio of neighbouring frequencies is constant and the widths are
    proportional to 1 / f, a change of pitch is a translation along the second axis. With equally spaced frequencies it is not.

    Args:
      x: The waves.
      frequencies: The frequencies f, in cycles per sample.
      widths: The widths of the Hann windows in samples, one for each frequency or one for all.
      hop: The number of samples s between neighbouring times.

    Raises:
      ValueError: The waves have several channels or are shorter than a window, a width is below 2, a frequency is not between 0
        and 0.5, or `hop` is below 1.
      TypeError: `x` is not floating, or `hop` is not an integer.

    Example:
      >>> wave = jnp.sin(2 * math.pi * 0.125 * jnp.arange(64.0)).reshape(1, 64, 1)
      >>> spectrogram(wave, [0.0625, 0.125, 0.25], 32, 16)[0, :, :, 0].argmax(1)
      Array([1, 1, 1], dtype=int32)

    Reference: Brown 1991, Calculation of a constant Q spectral transform, for the scale of frequencies.
    """
    x = check.floating("x", x)
    arguments = {"frequencies": frequencies, "widths": widths}
    f, w = (np.atleast_1d(check.as_floats(name, value)) for name, value in arguments.items())
    if not (np.isfinite(f).all() and np.isfinite(w).all()):
        raise ValueError("frequencies and widths must be finite")
    if f.size != w.size and w.size != 1:
        raise ValueError(f"widths has {w.size} entries but frequencies {f.size}; needs one for each or one for all")
    w = np.broadcast_to(w, f.shape) if w.size == 1 else w
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
