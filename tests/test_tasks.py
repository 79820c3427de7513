"""Test moments, class frequencies, symmetries and label rules of all tasks on many examples."""

import functools
import itertools
import math

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlab import tasks
from convlab.rungs import RUNGS
from convlab.tasks.scenes import BOX

KEY = jax.random.key(3)
EXAMPLES = 4000
TASKS = {
    "random_patch": lambda: tasks.random_patch(5, 3, 0.7, KEY),
    "energy_comparison": lambda: tasks.energy_comparison(3),
    "correlation_sign": lambda: tasks.correlation_sign(14, 5),
    "flipped correlation_sign": lambda: tasks.correlation_sign(14, 5, flip_second_half=True),
    "parity": lambda: tasks.parity(7, 3, 2),
    "nonlinear_process": lambda: tasks.nonlinear_process((11,), (0.7, 3.0), 2.0),
    "gaussian_clone": lambda: tasks.nonlinear_process((7, 5), (0.7, 2.0), 2.0, gaussian_clone=True),
    "red_green": lambda: tasks.red_green(swap_rows=True),
    "coordinate_classification": lambda: tasks.coordinate_classification(7, "uniform"),
    "template_detection": lambda: tasks.template_detection(11, 3, 2, KEY, noise=0.1),
    "flying_pigs": lambda: tasks.flying_pigs(11, 3, 0.5, KEY),
    "word_order": lambda: tasks.word_order(11, 3, 6),
    "chirps": lambda: tasks.chirps(53),
    "random_hierarchy": lambda: tasks.random_hierarchy(2, 2, 3, 2, 1, KEY),
    "linear_teacher": lambda: tasks.linear_teacher("conv", (7, 5), cl.Window((3, 2)), (2, 3), 0.1, KEY),
}


@functools.cache
def task_of(name):
    return TASKS[name]()


@functools.cache
def sampler(name):
    return jax.jit(task_of(name).sample, static_argnums=1)


@functools.cache
def examples_of(name, n=EXAMPLES, seed=0):
    return tuple(map(np.asarray, sampler(name)(jax.random.key(seed), n)))


def sample(build, n, *numbers):
    """Build a task from a key and numbers and sample from it in one compiled program."""
    return tuple(map(np.asarray, compiled_sampler(build, n)(KEY, *numbers)))


@functools.cache
def compiled_sampler(build, n):
    return jax.jit(lambda key, *numbers: build(key, *numbers).sample(key, n))


def four_standard_errors(share, n=EXAMPLES):
    """Return four standard errors of an observed share."""
    return 4 * math.sqrt(share * (1 - share) / n)


QUICK = ("random_patch", "red_green", "linear_teacher")  # other tests cover the other tasks


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TASKS])
def test_examples_are_finite_have_the_declared_shape_and_depend_only_on_the_key(name):
    task, (x, y) = task_of(name), examples_of(name)
    assert x.shape == (EXAMPLES, *task.image_shape)
    assert np.isfinite(x).all()
    fewer = examples_of(name, 11)
    np.testing.assert_allclose(fewer[0], x[:11], atol=1e-5)
    np.testing.assert_allclose(fewer[1], y[:11], atol=1e-5)
    assert not np.array_equal(examples_of(name, seed=1)[0], x)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("linear_teacher", "coordinate_classification")])
def test_classes_are_equally_frequent(name):
    task, (_, y) = task_of(name), examples_of(name)
    share = np.bincount(y, minlength=len(task.classes)) / EXAMPLES
    np.testing.assert_allclose(share, 1 / len(task.classes), atol=four_standard_errors(1 / len(task.classes)))


def test_task_data_has_independent_splits():
    data = tasks.energy_comparison(3).data(0, train=50, test=30, validation=20)
    assert (len(data.train), len(data.test), len(data.validation)) == (50, 30, 20)
    assert not np.array_equal(data.train.images[:20], data.validation.images)
    again = tasks.energy_comparison(3).data(0, train=50, test=30)
    np.testing.assert_array_equal(again.train.images, data.train.images)
    assert data.image_shape == (6, 1)
    with pytest.raises(ValueError, match="has no classes: its target is real"):
        task_of("linear_teacher").data(0, 5, 5)
    with pytest.raises(ValueError, match="train must be at least 1"):
        tasks.energy_comparison(3).data(0, 0, 5)


# --- signals ---------------------------------------------------------------------------------------------------------


def test_random_patch_holds_the_signed_unit_signal_in_noise_of_the_requested_deviation():
    x, y = examples_of("random_patch")
    patches = x.reshape(EXAMPLES, 5, 3) * (2 * y - 1)[:, None, None]
    mean = patches.mean((0, 1))
    np.testing.assert_allclose(np.linalg.norm(5 * mean), 1, atol=5 * 0.8 * 4 / math.sqrt(5 * EXAMPLES))
    np.testing.assert_allclose(patches.mean(0), np.broadcast_to(mean, (5, 3)), atol=4 * 0.8 / math.sqrt(EXAMPLES))
    signal = 5 * mean / np.linalg.norm(5 * mean)
    across = patches - (patches @ signal)[..., None] * signal  # the part orthogonal to the signal is noise
    np.testing.assert_allclose(across.var() * 3 / 2, 0.49, rtol=0.03)
    energy = ((patches @ signal) ** 2).sum(1).mean()
    np.testing.assert_allclose(energy, 5 * 0.49 + 1, rtol=0.04)


def test_without_noise_one_patch_is_the_signal_and_the_others_are_zero():
    x, y = sample(lambda key: tasks.random_patch(5, 3, 0.0, key), 200)
    norms = np.linalg.norm(x.reshape(200, 5, 3), axis=-1)
    np.testing.assert_allclose(np.sort(norms, 1), np.broadcast_to([0, 0, 0, 0, 1.0], (200, 5)), atol=1e-6)
    assert set(norms.argmax(1)) == set(range(5))
    signals = x.reshape(200, 5, 3).sum(1) * (2 * y - 1)[:, None]
    np.testing.assert_allclose(signals, np.broadcast_to(signals[0], (200, 3)), atol=1e-6)


def test_halves_of_the_noise_differ_between_classes_only_in_energy():
    x, y = examples_of("energy_comparison")
    energy = (x[..., 0].reshape(EXAMPLES, 2, 3) ** 2).sum(-1)
    np.testing.assert_array_equal(energy[:, 0] > energy[:, 1], y == 1)
    np.testing.assert_allclose(x.mean(0), 0, atol=4 / math.sqrt(EXAMPLES))
    assert abs(np.corrcoef(x[:, 0, 0], y)[0, 1]) < 4 / math.sqrt(EXAMPLES)


@pytest.mark.parametrize("flip_second_half", [False, True])
def test_label_is_correlated_with_products_of_pixels_only_at_the_distance_of_the_task(flip_second_half):
    x, y = examples_of("flipped correlation_sign" if flip_second_half else "correlation_sign")
    s = np.where(flip_second_half & (np.arange(14) >= 7), -1, 1)
    first, second = x[..., 0], x[:, (np.arange(14) + 5) % 14, 0]
    np.testing.assert_array_equal((s * first * second).sum(1) > 0, y == 1)
    np.testing.assert_allclose(x.T[0] @ x[..., 0] / EXAMPLES, np.eye(14), atol=5 / math.sqrt(EXAMPLES))
    # The sum of sign times a product of two pixels has mean 0 and variance 1 unless the pixels are a pair.
    sign = (2 * y - 1) / math.sqrt(EXAMPLES)
    for distance in range(8):
        score = (sign[:, None] * x[..., 0] * np.roll(x[..., 0], -distance, 1)).sum(0) * s
        assert (score > 8).all() if distance == 5 else (abs(score) < 5 * 2**0.5).all()


def test_shift_by_half_the_circle_exchanges_labels_only_with_a_flipped_second_half():
    for flip_second_half in (False, True):
        x, y = (array[:200] for array in examples_of("flipped correlation_sign" if flip_second_half else "correlation_sign"))
        s = np.where(flip_second_half & (np.arange(14) >= 7), -1, 1)
        shifted = np.roll(x[..., 0], 7, 1)
        again = (s * shifted * np.roll(shifted, -5, 1)).sum(1) > 0
        np.testing.assert_array_equal(again, (y == 1) != flip_second_half)


def test_parity_depends_on_all_bits_of_its_pattern_and_on_no_others():
    x, y = examples_of("parity")
    assert set(np.unique(x)) == {-1.0, 1.0}
    np.testing.assert_array_equal(x[:, 2:5, 0].prod(1) > 0, y == 1)
    for bits in ((2,), (3,), (2, 4), (0, 2, 3), (2, 3, 4, 5)):  # no other set of bits predicts the label
        assert abs(np.mean(x[:, bits, 0].prod(1) * (2 * y - 1))) < 4 / math.sqrt(EXAMPLES)


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [(11,), (7, 5)])
@pytest.mark.parametrize("gaussian_clone", [False, True])
def test_process_and_clone_share_a_covariance_but_only_the_process_has_a_fourth_cumulant(space, gaussian_clone):
    lengths, gain, n = (0.8, 2.5), 2.0, 8_000
    x, y = sample(lambda key: tasks.nonlinear_process(space, lengths, gain, gaussian_clone=gaussian_clone), n)
    for label, length in enumerate(lengths):
        of_class = x[y == label, ..., 0]
        np.testing.assert_allclose(of_class.mean(), 0, atol=0.05)
        axes = tuple(range(1, of_class.ndim))
        shifted = [np.roll(of_class, by, axes) for by in np.ndindex(*space)]
        measured = np.array([np.mean(of_class * other) for other in shifted]).reshape(space)
        np.testing.assert_allclose(measured, tasks.process_covariance(space, length, gain), atol=0.04)
        kurtosis = np.mean(of_class**4) / np.mean(of_class**2) ** 2 - 3
        assert abs(kurtosis) < 0.15 if gaussian_clone else kurtosis < -1


def test_smooth_covariance_on_a_plane_is_the_product_of_two_on_lines():
    plane, (one, two) = (
        tasks.process_covariance((13, 11), 1.3, power=2.0),
        (tasks.process_covariance((n,), 1.3, power=2.0) for n in (13, 11)),
    )
    np.testing.assert_allclose(plane, np.outer(one, two), atol=1e-6)
    np.testing.assert_allclose(one[:3], np.exp(-((np.arange(3) / 1.3) ** 2)), atol=1e-6)


def test_covariances_are_symmetric_and_the_gain_lowers_them():
    z, x = tasks.process_covariance((11,), 2.5), tasks.process_covariance((11,), 2.5, 3.0)
    np.testing.assert_allclose(z, np.exp(-np.minimum(np.arange(11), 11 - np.arange(11)) / 2.5), atol=1e-12)
    np.testing.assert_allclose(z[1:], z[1:][::-1])
    assert z[0] == pytest.approx(1)
    assert x[0] == pytest.approx(1)
    assert (x[1:] < z[1:]).all()


# --- scenes ----------------------------------------------------------------------------------------------------------


def red_green(key, swap_rows):
    return tasks.red_green(swap_rows=swap_rows)


def boxes(x):
    """Return the first rows of the red and the green box, and their first columns."""
    return *x.any(2).argmax(1)[:, :2].T, *x.any(1).argmax(1)[:, :2].T


@pytest.mark.parametrize("swap_rows", [False, True])
def test_positions_of_both_boxes_have_the_documented_distribution(swap_rows):
    x, y = sample(red_green, EXAMPLES, swap_rows)
    np.testing.assert_array_equal(x.sum((1, 2)), np.broadcast_to([BOX**2, BOX**2, 0], (EXAMPLES, 3)))
    *rows, red, green = boxes(x > 0)
    for box, (row, column) in enumerate(zip(rows, (red, green), strict=True)):
        at = row[:, None] + np.arange(BOX), column[:, None] + np.arange(BOX)
        assert (x[np.arange(EXAMPLES)[:, None, None], at[0][:, :, None], at[1][:, None], box] == 1).all()
    np.testing.assert_array_equal(red < green, y == 0)
    left, right = np.minimum(red, green), np.maximum(red, green)
    assert set(left) == set(range(10))
    assert (right - left).min() == 5
    assert right.max() == 27
    for label, middle in enumerate((23, 7) if swap_rows else (7, 23)):
        first_rows = set(zip(*(row[y == label].tolist() for row in rows), strict=True))
        assert first_rows == set(itertools.product(range(middle - 4, middle + 4), repeat=2))  # the two rows are independent


def test_scenes_with_swapped_rows_are_the_same_scenes_shifted_by_half_the_image():
    usual, swapped = (sample(red_green, EXAMPLES, swap_rows) for swap_rows in (False, True))
    np.testing.assert_array_equal(usual[1], swapped[1])
    np.testing.assert_array_equal(np.roll(usual[0][:50], 16, 1), swapped[0][:50])


@pytest.mark.parametrize("split", ["uniform", "quadrant"])
def test_label_is_the_number_of_the_pixel_and_held_out_pixels_are_not_in_training(split):
    labels = {}
    for held_out in (False, True):
        task = tasks.coordinate_classification(7, split, held_out=held_out)
        x, y = sample(lambda key, task=task: task, EXAMPLES)
        pixel = np.round((x[:, 0] + 1) * 3).astype(int)
        np.testing.assert_array_equal(pixel[:, 0] * 7 + pixel[:, 1], y)
        labels[held_out] = set(y.tolist())
    assert not labels[False] & labels[True]
    assert labels[False] | labels[True] == set(range(49))
    assert len(labels[True]) == 9
    if split == "quadrant":
        assert labels[True] == {7 * i + j for i in (4, 5, 6) for j in (4, 5, 6)}


def test_template_is_present_in_class_one_only():
    x, y = sample(lambda key: tasks.template_detection(11, 3, 0, key, columns=(2, 4)), 500)
    pattern = np.asarray(jax.random.normal(KEY, (9, 3, 3)))[0]
    match = np.asarray(cl.conv(x, pattern[..., None, None], cl.Window(3, padding="VALID")))[..., 0]
    peak = match.reshape(500, -1)
    is_present = np.abs(peak.max(1) - (pattern**2).sum()) < 1e-4
    np.testing.assert_array_equal(is_present, y == 1)
    assert set(peak[y == 1].argmax(1) % 9) == {2, 3, 4}
    assert set(peak[y == 1].argmax(1) // 9) == set(range(9))


def flying_pigs(key, rho):
    return tasks.flying_pigs(11, 3, rho, key, noise=0.0)


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_rho_sets_how_often_the_half_predicts_the_class(rho):
    jax.eval_shape(lambda key: flying_pigs(key, rho).sample(key, 2), KEY)  # numbers are checked, tracers are not
    x, y = sample(flying_pigs, EXAMPLES, rho)
    rows, columns = (x != 0).any((2, 3)), (x != 0).any((1, 3))
    first = rows.argmax(1)
    upper = first < 5
    assert set(first[upper]) == {0, 1, 2}
    assert set(first[~upper]) == {6, 7, 8}
    assert set(columns.argmax(1)) == set(range(9))
    share = np.mean(upper == (y == 1))
    np.testing.assert_allclose(share, (1 + rho) / 2, atol=four_standard_errors((1 + rho) / 2) + 1e-9)


def test_with_the_same_pattern_only_the_half_predicts_the_class_and_rho_may_be_a_tracer():
    draw = jax.jit(lambda rho, same: tasks.flying_pigs(12, 3, rho, KEY, noise=0.0, same_pattern=same).sample(KEY, 500))
    patterns = np.asarray(jax.random.normal(KEY, (2, 3, 3)))
    for same_pattern in (False, True):
        x, y = map(np.asarray, draw(1.0, same_pattern))
        rows, columns = (x[..., 0] != 0).any(2).argmax(1), (x[..., 0] != 0).any(1).argmax(1)
        np.testing.assert_array_equal(rows < 6, y == 1)
        crops = np.stack([image[i : i + 3, j : j + 3, 0] for image, i, j in zip(x, rows, columns, strict=True)])
        np.testing.assert_array_equal(crops, patterns[0 * y if same_pattern else y])
    x, y = map(np.asarray, draw(0.0, True))
    upper = (x[:, :6] != 0).any((1, 2, 3))
    np.testing.assert_allclose(np.mean(upper == (y == 1)), 0.5, atol=four_standard_errors(0.5, 500))
    assert draw._cache_size() == 1


# --- sequences, hierarchy, teachers ----------------------------------------------------------------------------------


def bag_of_windows(words, size):
    """Return all circular windows of `size` words, sorted, so that positions are lost."""
    windows = np.stack([np.roll(words, -first, -1) for first in range(size)], -1)
    return sorted(map(tuple, windows.tolist()))


def test_text_has_one_verb_two_nouns_and_one_filler_and_its_class_is_the_noun_after_the_verb():
    x, y = examples_of("word_order")
    np.testing.assert_array_equal(x.sum(-1), 1)
    words = x.argmax(-1)
    verb = (words == 0).argmax(1)
    np.testing.assert_array_equal((words == 0).sum(1), 1)
    after, before = (words[np.arange(EXAMPLES), (verb + by) % 11] for by in (3, -3))
    np.testing.assert_array_equal(after, 1 + y)
    np.testing.assert_array_equal(before, 2 - y)
    np.testing.assert_array_equal((words < 3).sum(1), 3)
    filler = words.max(1)
    assert ((words == filler[:, None]).sum(1) == 8).all()
    for value, cases in ((verb, range(11)), (filler, range(3, 6))):
        share = [np.mean(value == case) for case in cases]
        np.testing.assert_allclose(share, 1 / len(cases), atol=four_standard_errors(1 / len(cases)))
        assert all(abs(np.mean(y[value == case]) - 0.5) < four_standard_errors(0.5, 300) for case in cases)


@pytest.mark.parametrize("length, distance", [(9, 3), (11, 3), (13, 1)])
def test_classes_have_equal_bags_of_windows_exactly_up_to_windows_of_the_distance(length, distance):
    words = sample(lambda key: tasks.word_order(length, distance, 6), 20)[0].argmax(-1)
    exchanged = np.where((words == 1) | (words == 2), 3 - words, words)
    for size in range(1, distance + 3):
        for text, other in zip(words, exchanged, strict=True):
            assert (bag_of_windows(text, size) == bag_of_windows(other, size)) == (size <= distance)


def spectrogram(x, *options):
    return np.asarray(jax.jit(lambda x: tasks.spectrogram(x, *options))(x))[..., 0]


def test_tone_rises_or_falls_by_class_within_the_range_of_frequencies():
    x, y = sample(lambda key: tasks.chirps(512, noise=0.0, sweep=1.0), 60)
    frequencies = 0.02 * 2 ** np.linspace(0, 3, 37)
    magnitudes = spectrogram(x, frequencies, np.round(3 / frequencies).astype(int), 16)
    peak = magnitudes.argmax(2)
    rise = peak[:, -1] - peak[:, 0]
    np.testing.assert_array_equal(rise > 0, y == 1)
    assert np.abs(np.abs(rise) - 12 * (1 - 150 / 512)).max() < 4  # an octave, less the windows at both ends


def test_tone_rises_by_the_number_of_octaves_of_its_class():
    task = tasks.chirps(256, noise=0.0, sweep=(-0.25, 0.75))
    x, y = sample(lambda key: task, 60)
    assert task.classes == ("rises -0.25", "rises 0.75")
    phase = np.unwrap(np.angle(np.fft.ifft(np.fft.fft(x[..., 0]) * (np.arange(256) < 128))))
    early, late = (np.diff(phase[:, part]).mean(1) for part in (slice(48, 80), slice(176, 208)))
    np.testing.assert_allclose(2 * np.log2(late / early), np.where(y, 0.75, -0.25), atol=0.1)


def test_pitch_shift_is_a_translation_in_log_frequency_but_not_in_linear_frequency():
    t, up = np.arange(2048), 2 ** (6 / 12)
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (0.05, 0.05 * up)])
    harmonics = tones + np.stack([np.sin(2 * np.pi * f * t) for f in (0.1, 0.1 * up)])
    x = np.concatenate([tones, harmonics])[..., None]
    log, even = 0.02 * 2 ** (np.arange(48) / 12), np.linspace(0.02, 0.3, 48)
    low, high, chord, higher = spectrogram(x, log, np.round(8 / log).astype(int), 256)
    assert np.abs(high[:, 6:] - low[:, :-6]).max() < 0.01
    assert np.abs(higher[:, 6:] - chord[:, :-6]).max() < 0.02
    low, high, chord, higher = spectrogram(x, even, 160, 256)
    by = high.mean(0).argmax() - low.mean(0).argmax()
    assert np.abs(higher[:, by:] - chord[:, :-by]).max() > 0.3  # the overtone moves twice as far


def test_spectrogram_matches_explicit_sums():
    x, hop, longest = np.random.default_rng(0).standard_normal((2, 29, 1)), 3, 11
    lines = ((0.07, 11), (0.19, 8), (0.31, 5))
    expected = np.zeros((2, 1 + (29 - longest) // hop, 3))
    for n, i, q in np.ndindex(expected.shape):
        f, w = lines[q]
        u = np.arange(longest) - (longest - 1) / 2
        hann = np.array([1 + math.cos(2 * math.pi * offset / w) if abs(offset) < w / 2 else 0 for offset in u])
        total = sum(h * x[n, hop * i + k, 0] * np.exp(-2j * math.pi * f * k) for k, h in enumerate(hann / hann.sum()))
        expected[n, i, q] = abs(total)
    np.testing.assert_allclose(spectrogram(x, *zip(*lines, strict=True), hop), expected, atol=1e-6)


def test_symbols_without_their_blanks_determine_the_class():
    levels, s, v, m, gap = 2, 2, 3, 2, 1
    x, y = examples_of("random_hierarchy")
    assert set(np.unique(x.sum(-1))) == {0.0, 1.0}
    symbols = np.where(x.any(-1), x.argmax(-1), -1)
    parents: dict[tuple, set] = {}
    strings = [tuple(row[row >= 0]) for row in symbols]
    assert {len(string) for string in strings} == {s**levels}
    for string, label in zip(strings, y.tolist(), strict=True):
        parents.setdefault(string, set()).add(label)
    assert all(len(labels) == 1 for labels in parents.values())  # the symbols without blanks determine the class
    assert len(parents) == v * m * m**s  # every synonym of every synonym
    width = s * (gap + 1)
    assert ((symbols.reshape(EXAMPLES, -1, gap + 1) >= 0).sum(-1) <= 1).all()  # at most one symbol per group of blanks
    assert ((symbols.reshape(EXAMPLES, width, width) >= 0).any(-1).reshape(EXAMPLES, s, gap + 1).sum(-1) == 1).all()


@pytest.mark.parametrize("rung", RUNGS)
def test_least_squares_recovers_a_teacher_on_its_rung(rung):
    window, space, c, d = cl.Window((3, 2), padding="CIRCULAR"), (4, 6), 1, 2
    x, y = sample(lambda key: tasks.linear_teacher(rung, space, window, (c, d), 0.0, key), 60)
    a, *_ = np.linalg.lstsq(x.reshape(60, -1), y.reshape(60, -1), rcond=None)
    w = np.moveaxis(a.reshape(*space, c, *space, d), (3, 4), (0, 1))
    local = np.asarray(cl.project_dense_to_local(w, window, space))
    is_local = np.allclose(cl.lift_local_to_dense(local, window, space), w, atol=1e-3)
    assert is_local == (rung != "dense")
    flat = local.reshape(24, -1)
    kernels = {"locally_connected": 24, "tiled": 4, "low_rank": 2, "conv": 1}
    if rung in kernels:
        assert np.linalg.matrix_rank(flat, tol=1e-3) == min(kernels[rung], flat.shape[1])
        assert len(np.unique(np.round(flat, 2), axis=0)) == (24 if rung == "low_rank" else kernels[rung])
    least, most = (0.1, 4) if rung == "symmetric" else (0.5, 2)  # a symmetric teacher has only two weights per channel
    assert least < y.var() < most


def test_teacher_noise_has_the_requested_deviation():
    def teacher(key, noise):
        return tasks.linear_teacher("conv", (7,), cl.Window(3), (2, 3), noise, key)

    for noise in (0.3, 0.0):
        jax.eval_shape(lambda key, noise=noise: teacher(key, noise).sample(key, 2), KEY)  # numbers are checked
    noisy, clean = (sample(teacher, 500, noise) for noise in (0.3, 0.0))
    np.testing.assert_array_equal(noisy[0], clean[0])
    np.testing.assert_allclose(np.std(noisy[1] - clean[1]), 0.3, rtol=0.05)


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: tasks.random_patch(5, 3, -1.0, KEY), "noise is -1.0"),
        (lambda: tasks.parity(5, 3, 3), "start is 3; a pattern of 3 bits from there does not fit into 5 bits"),
        (lambda: tasks.correlation_sign(8, 4), "distance is 4 on a circle of 8 pixels"),
        (lambda: tasks.correlation_sign(12, 4), "distance is 4, and 3 steps of it return to the same of 12 pixels"),
        (lambda: tasks.nonlinear_process((5,), (1.0,), 2.0), "at least two lengths"),
        (lambda: tasks.nonlinear_process((5,), (1.0, -2.0), 2.0), "gain 2.0, power 1.0; needs positive numbers"),
        (lambda: tasks.nonlinear_process((5,), (1.0, 2.0), 0.0), "gain 0.0"),
        (lambda: tasks.process_covariance((5,), -1.0), "needs positive numbers"),
        (lambda: tasks.nonlinear_process((5, 5, 5), (1.0, 2.0), 2.0), "one or two axes"),
        (lambda: tasks.coordinate_classification(5, "half"), "split 'half' is unknown"),
        (lambda: tasks.template_detection(5, 3, 1, KEY, columns=(0, 3)), "can begin at 0 to 2 of 5"),
        (lambda: tasks.flying_pigs(5, 3, 0.5, KEY), "at most half the side"),
        (lambda: tasks.word_order(11, 4, 5), "need a circle of at least 12"),
        (lambda: tasks.word_order(11, 3, 3), "vocabulary must be at least 4"),
        (lambda: tasks.chirps(50, lowest_frequency=0.1), "all frequencies below 0.5 cycles"),
        (lambda: tasks.chirps(50, sweep=(0.5, 0.5)), "or two in increasing order"),
        (lambda: tasks.random_hierarchy(2, 2, 3, 4, 1, KEY), "need 12 tuples, but there are 9"),
        (lambda: tasks.linear_teacher("sparse", (5,), cl.Window(3), (1, 1), 0.0, KEY), "rung 'sparse' is unknown"),
        (lambda: tasks.spectrogram(jnp.ones((1, 10, 1)), [0.1], 11, 2), "widths of 2 to t"),
        (lambda: tasks.spectrogram(jnp.ones((1, 10, 1)), [0.1, 0.9], 5, 2), "frequencies are 0.1 to 0.9"),
        (lambda: tasks.spectrogram(jnp.ones((1, 10, 1)), [], 5, 2), "needs .* one axis of frequencies"),
        (lambda: tasks.chirps(50, sweep=(-0.5, 0.5, 1.0)), "or two in increasing order"),
        (lambda: tasks.chirps(50, noise=-1.0), "noise is -1.0"),
        (lambda: tasks.template_detection(5, 3, 1, KEY, noise=math.nan), "noise is nan"),
        (lambda: tasks.template_detection(3, 5, 1, KEY), "5 pixels does not fit into 3"),
        (lambda: tasks.flying_pigs(8, 3, 0.5, KEY, noise=-1.0), "noise is -1.0"),
        (lambda: tasks.linear_teacher("conv", (5,), cl.Window(3), (1, 1), -0.1, KEY), "noise is -0.1"),
        (lambda: tasks.linear_teacher("tiled", (5,), cl.Window(3), (1, 1), 0.1, KEY, period=6), "period .* exceeds"),
        (lambda: tasks.linear_teacher("low_rank", (5,), cl.Window(3), (1, 1), 0.1, KEY, rank=0), "rank must be at least 1"),
        (lambda: tasks.energy_comparison(3).sample(KEY, -1), "n must be at least 0"),
    ],
)
def test_invalid_arguments_raise_errors(build, match):
    with pytest.raises(ValueError, match=match):
        build()
