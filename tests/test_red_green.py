"""Test which paddings leave a network's scores unchanged when the boxes move."""

import functools
import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from networks import filled

import convlab
from convlab import tasks
from experiments import red_green
from experiments.parts.paddings import PADDINGS, Order, knowable

EXACT, CROPPING = ("CIRCULAR", "FULL"), ("VALID", "SAME")
ROUNDING, VISIBLE = 1e-5, 1e-2  # score changes: at most rounding, at least visible


@functools.cache
def images(swap_rows=False):
    return tasks.red_green(swap_rows=swap_rows).data(0, train=37, test=29, validation=31).with_standardisation("none")


@functools.cache
def compiled_network(padding, use_bias=False):
    """Return the network as a compiled function, and its Gaussian parameters."""
    definition, start = nnx.split(filled(lambda: Order(padding, 0, use_bias=use_bias), deviation=0.1))
    return jax.jit(lambda state, x: nnx.merge(definition, state)(x)), start


@functools.cache
def trained():
    """Return parameters trained with FULL padding, which fit every padding."""
    recipe = convlab.Config(steps=6, batch_size=19, learning_rate=0.01, evaluations=1, progress=False)
    definition, start = nnx.split(Order("FULL", 0))
    state = nnx.state(convlab.fit(nnx.merge(definition, start), images(), recipe).model())
    moved = jax.tree.map(lambda before, after: float(abs(before - after).max()), start, state)
    assert min(jax.tree.leaves(moved)) > 1e-3
    return state


def changes(padding, state=None, *, use_bias=False, black=0.0, rows=None):
    """Return each image's largest score change when its boxes move.

    They move to the rows of the other class, or by `rows` if it is given.
    """
    apply, start = compiled_network(padding, use_bias)
    still = images().test.images
    moved = images(swap_rows=True).test.images if rows is None else np.roll(still, rows, 1)
    scores, after = (np.asarray(apply(start if state is None else state, x + np.float32(black))) for x in (still, moved))
    assert scores.std(0).min() > VISIBLE  # scores depend on the image
    return np.abs(scores - after).max(1)


@pytest.mark.parametrize("padding", EXACT)
def test_paddings_that_crop_nothing_score_moved_boxes_equally(padding):
    assert changes(padding).max() < ROUNDING


@pytest.mark.parametrize("padding", CROPPING)
def test_paddings_that_crop_change_the_scores_of_moved_boxes(padding):
    assert np.median(changes(padding)) > VISIBLE


@pytest.mark.slow
def test_trained_network_shows_the_same_effect_of_padding():
    largest = {padding: changes(padding, trained()) for padding in PADDINGS}
    assert max(largest[padding].max() for padding in EXACT) < ROUNDING
    assert min(np.median(largest[padding]) for padding in CROPPING) > VISIBLE


@pytest.mark.parametrize("violation", [{"use_bias": True}, {"black": -0.3}, {"rows": 4}])
def test_full_padding_hides_rows_only_without_bias_with_black_zero_and_shifts_by_strides(violation):
    assert np.median(changes("FULL", **violation)) > VISIBLE


@pytest.mark.parametrize("violation, hides_rows", [({"use_bias": True}, True), ({"black": -0.3}, True), ({"rows": 4}, False)])
def test_circular_padding_hides_rows_whenever_shifts_are_multiples_of_strides(violation, hides_rows):
    differences = changes("CIRCULAR", **violation)
    assert differences.max() < ROUNDING if hides_rows else np.median(differences) > VISIBLE


def test_experiment_uses_raw_images_and_the_same_images_with_swapped_rows():
    still, moved = red_green.sample_data(red_green.SMOKE, 1)
    assert (still.mean.tolist(), still.std.tolist()) == ([0] * 3, [1] * 3)
    for split in ("train", "validation", "test"):
        usual, swapped = getattr(still, split), getattr(moved, split)
        np.testing.assert_array_equal(np.roll(usual.images, 16, 1), swapped.images)
        np.testing.assert_array_equal(usual.labels, swapped.labels)
    assert not np.array_equal(still.train.images, still.test.images)  # new images, unlike those of the authors


def best_guess_accuracy(key_of):
    """Return the best accuracy of a guess from the key `key_of(red, green)` alone."""
    shares = {}
    for left, label in itertools.product(range(10), range(2)):
        for right in range(left + 5, 28):
            red, green = (right, left) if label else (left, right)
            shares.setdefault(key_of(red, green), [0, 0])[label] += 1 / 20 / (23 - left)
    return sum(map(max, shares.values()))


def test_knowable_accuracy_matches_the_best_guess_for_each_padding():
    def on_a_plane(red, green):
        window = any(max(red, green) - 16 <= begin <= min(red, green) + 3 for begin in range(-16, 32, 8))
        return red < green if window else (red % 8, green % 8)

    assert knowable("FULL") == pytest.approx(best_guess_accuracy(on_a_plane))
    assert knowable("CIRCULAR") == pytest.approx(best_guess_accuracy(lambda red, green: ((green - red) % 32, red % 8)))
    assert 0.5 < knowable("CIRCULAR") < knowable("FULL") < 1
