"""Test what a trained network says about images that it is called on."""

import json
import warnings

import numpy as np
import optax
import pytest
from flax import nnx

import convlab as cl
from convlab.data import disk

X = np.random.default_rng(0).integers(0, 256, (40, 7, 5, 1)).astype(np.uint8)
Y = np.arange(40) % 2
CONFIG = cl.Config(steps=1, batch_size=8, evaluations=1, progress=False)


def trained(images, **options):
    """Train a small perceptron for one step."""
    return cl.fit(cl.models.MLP((7, 5, 1), 2, (), rngs=nnx.Rngs(0)), (images, Y), CONFIG, **options)


@pytest.fixture(scope="module")
def on_bytes():
    """Train on bytes from 0 to 255."""
    return trained(X)


@pytest.fixture(scope="module")
def on_fractions():
    """Train on floats from 0 to 1."""
    return trained(X / 255)


# --- values that are not finite ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value, kind", [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_images_that_are_not_finite_raise_an_error_that_names_the_first(on_fractions, value, kind):
    images = X / 255
    images[[3, 8], 2, 1] = value
    calls = [on_fractions.predict, on_fractions.predict_proba, on_fractions.logits, lambda x: on_fractions.evaluate(x, Y)]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^images\[3\] contains {kind}; needs finite pixels$"):
            call(images)


@pytest.mark.slow
def test_network_with_relu_and_a_mean_gives_no_answer_for_nan():
    """XLA may compute max(NaN, 0) = 0 on CPU if it adds up many pixels afterwards."""
    model = cl.models.Pyramid((12, 12, 1), 2, (3, 4), rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).random((40, 12, 12, 1))
    fitted = cl.fit(model, (images, Y), CONFIG)
    images[3, 2, 2] = np.nan
    with pytest.raises(ValueError, match=r"images\[3\] contains NaN"):
        fitted.predict(images)


# --- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images, has_warning",
    [
        (X, False),
        (X // 16, False),  # dark images
        (X[:1] * 0, False),
        (X / 255, True),
        (X > 127, True),
        ((X > 127).astype(np.uint8), True),
        (X * 2.0, True),
        (X - 128.0, True),
    ],
    ids=["bytes", "dark", "black", "fractions", "booleans", "0 and 1", "above 255", "below 0"],
)
def test_network_of_bytes_warns_of_images_in_other_units(on_bytes, images, has_warning):
    assert on_bytes.pixel_range == (X.min(), X.max())
    assert warnings_of(on_bytes, images) == has_warning


@pytest.mark.parametrize(
    "images, has_warning",
    [(X / 255, False), (X > 127, False), (X / 255 - 1, False), (X / 2550, False), (X, True), (2.0 * X, True), (-1.0 * X, True)],
    ids=["fractions", "booleans", "shifted", "dark", "bytes", "above 255", "negative"],
)
def test_network_of_fractions_warns_of_images_in_other_units(on_fractions, images, has_warning):
    assert warnings_of(on_fractions, images) == has_warning


def warnings_of(fitted, images):
    """Return True if all calls warn once, at the line of the call, and False if none does."""
    found = []
    for call in (fitted.predict, fitted.predict_proba, fitted.logits, lambda x: fitted.evaluate(x, Y[: len(x)])):
        with warnings.catch_warnings(record=True, action="always") as caught:
            call(images)
        found.append([str(warning.message) for warning in caught])
        assert all(warning.filename == __file__ for warning in caught)
    low, high = fitted.pixel_range
    got = f"images have pixels from {float(images.min()):g} to {float(images.max()):g}, but"
    start = f"{got} the network was trained on {fitted.dtype} images with pixels from {low:g} to {high:g}; needs the same units"
    assert all(message.startswith(start) for messages in found for message in messages)
    assert len({len(messages) for messages in found}) == 1
    return len(found[0]) == 1


# --- saved networks ----------------------------------------------------------------------------------------------------


def test_saved_network_keeps_the_range_of_its_training_pixels(on_bytes, tmp_path):
    on_bytes.save(tmp_path / "net")
    assert cl.Fitted.load(tmp_path / "net").pixel_range == on_bytes.pixel_range
    record = json.loads((tmp_path / "net" / "saved.json").read_text())
    del record["pixel_range"]  # as saved by an earlier release
    with disk.atomic_folder(tmp_path / "old") as part:
        (tmp_path / "net" / "arrays").rename(part / "arrays")
        (part / "saved.json").write_text(json.dumps(record))
    earlier = cl.Fitted.load(tmp_path / "old")
    assert earlier.pixel_range is None
    assert not warnings_of_predict(earlier, X / 255)
    np.testing.assert_array_equal(earlier.logits(X), on_bytes.logits(X))


def warnings_of_predict(fitted, images):
    """Return the warnings of `predict`."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        fitted.predict(images)
    return caught


@pytest.mark.slow
def test_saved_layer_is_loaded_into_a_layer_of_the_same_structure(tmp_path):
    def layer(seed):
        return cl.Conv(1, 1, (1, 2), padding="VALID", rngs=nnx.Rngs(seed))

    x = X / 255
    learnt = cl.fit(layer(0), (x, x[:, :, 1:] - x[:, :, :-1]), CONFIG, loss=optax.squared_error)
    learnt.save(tmp_path / "net")
    with pytest.raises(ValueError, match=r"holds the arrays of Conv, .* as in Fitted.load\(path, model\)"):
        cl.Fitted.load(tmp_path / "net")
    np.testing.assert_array_equal(cl.Fitted.load(tmp_path / "net", layer(1)).logits(x), learnt.logits(x))
