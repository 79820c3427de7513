"""Test the runs behind the ladder's figure: pairing by seed, reuse of results and tables."""

import dataclasses
import functools
import math

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import convlab as cl
from convlab import train
from convlab.data import Data, Split, permute_pixels
from experiments.parts import ladder_figure, ladder_table, sizes
from experiments.parts.ladder_runs import Runs, run
from experiments.parts.sizes import REORDERED, SHIFTED, Curve, Sizes, curves_of
from experiments.shared.settings import Finished

NETWORKS = {"rungs": ("dense", "convolution"), "reordered": ("convolution",), "features": (3, 4)}
SMALL = Sizes(sizes=(20, 40), steps=(2, 3), seeds=2, **NETWORKS)


def row(network, places, size, seed, accuracy):
    row = {"network": network, "rung": network, "control": "", "places": places, "size": size, "seed": seed, "weights": 7}
    return row | {"accuracy": accuracy, "error": 1 - accuracy, "train_loss": 0.004, "rate": 0.01, "steps": 5, "distinct": size}


def test_rungs_of_a_seed_train_on_the_same_images_and_permuted_images_have_the_same_pixels(monkeypatch, tmp_path):
    draw = np.random.default_rng(0)
    split = Split(draw.integers(0, 17, (30, 5, 6, 1)).astype(np.uint8), np.arange(30) % 3)
    monkeypatch.setattr(sizes.Source, "load", lambda self: Data("made", split, split, tuple("abc")))
    config = dataclasses.replace(SMALL, data="made", margin=2, distances=(2, 0))
    plain, moved = (sizes.training_set(config, 2, reordered, 1, False) for reordered in (False, True))
    assert plain is sizes.training_set(config, 2, False, 1, False)
    assert not np.array_equal(plain.train.images, moved.train.images)
    for one, two in ((plain.train, moved.train), (plain.test, moved.test)):
        np.testing.assert_array_equal(*(np.sort(x.images.reshape(len(x), -1)) for x in (one, two)))
        np.testing.assert_array_equal(one.labels, two.labels)
    assert plain.standardisation == "scale"
    assert len(sizes.images(config).train) == 24  # a fifth is held out
    assert sizes.places(config, 2) == 25
    assert sizes.sizes_of(dataclasses.replace(config, sizes=(20, 40, 49)), Curve("dense", 0)) == [20, 40]
    assert sizes.sizes_of(dataclasses.replace(config, sizes=(20, 49)), Curve("dense", 2, SHIFTED)) == [20]


def test_controls_run_only_at_the_first_distance():
    config = dataclasses.replace(SMALL, distances=(4, 2, 0), shifted=("dense",))
    all_curves = list(curves_of(config))
    assert [curve for curve in all_curves if curve.control] == [Curve("convolution", 4, REORDERED), Curve("dense", 4, SHIFTED)]
    assert len(all_curves) == 2 + 2 * 3


def test_steps_are_doubled_until_the_training_set_is_learnt_or_accuracy_stops_changing(monkeypatch, tmp_path):
    calls = []

    def runs(losses, accuracies):
        made = Runs(dataclasses.replace(SMALL, doublings=2, root=str(tmp_path), rates=()))
        pairs = iter(zip(losses, accuracies, strict=True))

        def trained(curve, size, steps, rate):
            loss, accuracy = next(pairs)
            calls.append(steps)
            return [{"train_loss": loss, "accuracy": accuracy, "steps": steps}]

        monkeypatch.setattr(made, "trained", trained)
        return made.learnt(Curve("dense", 4), 40)[0]["steps"]

    assert runs([0.002], [0.5]) == 3  # learnt at once
    assert runs([0.2, 0.005], [0.5, 0.7]) == 6  # learnt with twice the steps
    assert runs([0.2, 0.1, 0.05], [0.5, 0.7, 0.8]) == 12  # not learnt, and no more doublings
    assert runs([0.2, 0.1], [0.5, 0.503]) == 6  # twice the steps change nothing
    assert calls == [3, 3, 6, 3, 6, 12, 3, 6]


def test_finished_parts_are_reused_unless_the_code_changed(tmp_path):
    path, made = tmp_path / "runs" / "rows.jsonl", []

    def make():
        made.append(1)
        return [{"accuracy": 0.5}]

    for code, count, reused in (("a", 1, False), ("a", 1, True), ("b", 2, False)):
        finished = Finished(path, code)
        assert finished.rows(("conv", 3), make) == [{"accuracy": 0.5}]
        assert (len(made), finished.reused) == (count, reused)
    path.write_text(path.read_text() + '{"code": 7, "pa')  # an incomplete line
    again = Finished(path, "b")
    again.rows(("conv", 3), make)
    assert len(made) == 2
    again.rows(("conv", 4), make)
    assert len(Finished(path, "b").parts) == 2


def test_reordered_pixels_change_what_a_convolution_learns_but_not_what_a_dense_network_learns():
    draw = np.random.default_rng(0)
    split = Split(draw.standard_normal((24, 5, 6, 1)).astype(np.float32), np.arange(24) % 3)
    data, key = Data("made", split, split, tuple("abc")), jax.random.key(3)
    reorder = functools.partial(permute_pixels, key=key, ndim=2)
    config = cl.Config(steps=5, batch_size=8, evaluations=1, progress=False)
    adam = optax.adam(1e-2, eps=1e-4)  # above rounding errors of zero gradients, such as those of biases before a norm
    for connectivity, same in (("dense", True), ("conv", False)):
        model = cl.models.Pyramid((5, 6, 1), 3, (3, 4), connectivity=connectivity, rngs=nnx.Rngs(0))
        expected = train.fit(model, data, config, optimizer=adam).logits(split.images)
        if same:  # W[i, j, k, l, c, d]: the pixels k, l that are read
            kernel = model.stages[0].layer.kernel
            read = np.asarray(kernel[...]).reshape(5, 6, 5, 6, -1)
            kernel.set_value(np.asarray(reorder(read)).reshape(kernel[...].shape))
        logits = train.fit(model, data.map(reorder), config, optimizer=adam).logits(np.asarray(reorder(split.images)))
        assert np.allclose(logits, expected, atol=1e-3) == same


def test_prices_are_paired_by_seed_and_omit_needs_outside_the_tried_sizes():
    config = dataclasses.replace(SMALL, sizes=(40, 800))
    needed = {("dense", 9): {0: 100.0, 1: 400.0}, ("linear", 9): {0: math.inf, 1: 50.0}, ("tiled 2", 9): {0: 40.0, 1: 90.0}}
    prices = ladder_table.prices(needed | {("convolution", 9): {0: 50.0, 1: 200.0}}, config)
    assert list(prices) == [("dense", 9)]
    assert [prices["dense", 9][name] for name in ("price", "price_low", "price_high")] == pytest.approx([2, 2, 2])
    assert ladder_table.prices(needed, config) == {}


def test_exponents_are_fitted_per_seed_to_needs_within_the_tried_sizes():
    powers = (0.4, 0.5, 0.6)
    needed = {("dense", places): {s: 30.0 * places**power for s, power in enumerate(powers)} for places in (1, 9, 25, 81)}
    config = dataclasses.replace(SMALL, sizes=(50, 800), rungs=("dense", "convolution"), seeds=3)
    growth = ladder_table.exponents(needed, config)  # at one position, 30 examples are fewer than the smallest size
    assert list(growth) == ["dense"]
    assert growth["dense"]["exponent"] == pytest.approx(0.5)
    assert growth["dense"]["exponent_high"] == pytest.approx(0.5 + 4.3027 * 0.1 / 3**0.5, abs=1e-3)


def test_shown_needs_count_the_seeds_outside_the_tried_sizes():
    sizes = [50, 800]
    assert ladder_table.shown({0: 100.0, 1: 400.0}, sizes) == "200"
    assert ladder_table.shown({0: math.inf, 1: math.inf}, sizes) == "over 800"
    assert ladder_table.shown({0: math.inf, 1: 400.0}, sizes) == "over 800 for 1 of 2 seeds"
    assert ladder_table.shown({0: 50.0, 1: 50.0}, sizes) == "at most 50"


def test_table_names_its_rows_like_the_figure_and_marks_targets_not_reached():
    rows = [
        row(network, places, size, seed, accuracy)
        for places in (81, 1)
        for network, accuracies in (("dense", (0.3, 0.5)), ("convolution", (0.85, 0.95)))
        for size, accuracy in zip((100, 400), accuracies, strict=True)
        for seed in range(2)
    ]
    config = dataclasses.replace(SMALL, sizes=(100, 400), target=0.9)
    lines = ladder_table.table(rows, config)
    assert [line["network"] for line in lines] == ["dense", "convolution"] * 2
    assert [line["examples_needed"] for line in lines] == ["over 400", "200"] * 2
    assert not any("price" in line for line in lines)  # dense did not reach the target, and the convolution's price is one
    assert lines[1]["error_at_400"] == pytest.approx(0.05)
    figure = ladder_figure.draw(rows, config)
    assert [axis.get_title() for axis in figure.axes] == ["images at 81 places", "images at one place"]
    assert {"dense", "convolution"} <= {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def test_inconsistent_configuration_raises_an_error():
    for change, words in (
        ({"steps": (2,)}, "one number of steps for each size"),
        ({"rungs": ("dens",)}, "rungs .'dens'. are unknown"),
        ({"distances": (5, 0)}, "do not lie between 0 and margin, 4 pixels"),
    ):
        with pytest.raises(ValueError, match=words):
            run(dataclasses.replace(SMALL, **change))
