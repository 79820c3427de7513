"""Test random transforms: possible results, their distribution and independence between images."""

import collections
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.stats
from assertions import close
from compiled import compiled

from convlab.data import chain, permute_pixels, random_crop, random_flip, random_shift

SPACES = [(7,), (7, 5), (5, 3, 7)]  # unequal primes
CHANNELS = 2
DRAWS = 4000
SIGNIFICANCE = 1e-3  # p-value below which a distribution is rejected; keys are fixed, so tests are deterministic
SHIFTS = list(zip(SPACES, [(2,), (1, 3), (1, 0, 2)], strict=True))
CROPS = [  # space, pad, window
    ((7,), (2,), (5,)),
    ((7,), (0,), (3,)),
    ((7, 5), (1, 3), (7, 5)),
    ((7, 5), (0, 2), (5, 7)),
    ((5, 3, 7), (1, 0, 2), (5, 2, 11)),
]
ALL = [
    functools.partial(random_shift, max_shift=2),
    functools.partial(random_crop, pad=1),
    functools.partial(random_crop, pad=1, mode="reflect"),
    functools.partial(random_flip, axis=0),
]
names = pytest.mark.parametrize("f", ALL, ids=["shift", "crop", "reflect", "flip"])


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def window(image, origin, space, padding):
    """Read a window whose first pixel is `origin`, with a padding mode of the oracle."""
    out = np.zeros((*space, image.shape[-1]), image.dtype)
    for position in np.ndindex(*space):
        pixel = [oracle.outside(o + k, n, padding) for o, k, n in zip(origin, position, image.shape, strict=False)]
        if None not in pixel:
            out[position] = image[tuple(pixel)]
    return out


def shifts(image, by):
    """Return the image shifted by every offset up to `by`, as {image bytes: offset}."""
    offsets = itertools.product(*(range(-most, most + 1) for most in by))
    return {window(image, [-d for d in offset], image.shape[:-1], "ZERO").tobytes(): offset for offset in offsets}


def crops(image, pad, space, padding):
    """Return every window of the padded image, as {window bytes: origin}."""
    sizes = zip(image.shape, pad, space, strict=False)
    origins = itertools.product(*(range(-extra, large + extra - small + 1) for large, extra, small in sizes))
    return {window(image, origin, space, padding).tobytes(): origin for origin in origins}


def look_up(images, admissible):
    """Return the offset or origin of each image, all of which must be admissible."""
    return [admissible[image.tobytes()] for image in np.asarray(images)]


def assert_uniform(draws, admissible):
    counts = collections.Counter(draws)
    assert set(counts) == set(admissible.values())
    assert len(counts) == len(admissible)
    if len(counts) > 1:
        assert scipy.stats.chisquare(list(counts.values())).pvalue > SIGNIFICANCE


def assert_neighbours_draw_independently(draws):
    """Assert that neighbouring images are transformed independently."""
    number = {value: k for k, value in enumerate(sorted(set(draws)))}
    table = np.zeros((len(number), len(number)))
    for first, second in zip(draws[::2], draws[1::2], strict=True):
        table[number[first], number[second]] += 1
    assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def copies(image):
    return np.broadcast_to(image, (DRAWS, *image.shape))


# --- random_shift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("space", "by"), SHIFTS)
def test_every_image_is_shifted_by_an_admissible_offset_and_keeps_its_dtype(space, by, dtype):
    images = (40 * gaussian(13, *space, CHANNELS) + 128).astype(dtype)
    moved = np.asarray(random_shift(images, jax.random.key(1), max_shift=by))
    assert moved.dtype == dtype
    for before, after in zip(images, moved, strict=True):
        assert after.tobytes() in shifts(before, by)


@pytest.mark.parametrize(("space", "by"), SHIFTS)
def test_all_shifts_are_equally_likely(space, by):
    image = gaussian(*space, CHANNELS)
    admissible = shifts(image, by)
    assert len(admissible) == np.prod([2 * most + 1 for most in by])
    draws = look_up(random_shift(copies(image), jax.random.key(2), max_shift=by), admissible)
    assert_uniform(draws, admissible)
    assert_neighbours_draw_independently(draws)


def test_one_number_shifts_along_all_axes_and_zero_shifts_nothing():
    images, key = gaussian(13, 7, 5, CHANNELS), jax.random.key(0)
    chex.assert_trees_all_equal(random_shift(images, key, max_shift=2), random_shift(images, key, max_shift=(2, 2)))
    chex.assert_trees_all_equal(random_shift(images, key, max_shift=0), jnp.asarray(images))


def test_shift_by_the_full_size_empties_the_image():
    image = gaussian(3, CHANNELS)
    moved = np.asarray(random_shift(copies(image), jax.random.key(0), max_shift=3))
    empty = (moved == 0).all((1, 2)).mean()
    assert abs(empty - 2 / 7) < 0.1


# --- random_crop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize(("space", "pad", "size"), CROPS)
def test_every_crop_is_a_window_of_its_padded_image_and_keeps_the_dtype(space, pad, size, mode, dtype):
    images = (40 * gaussian(13, *space, CHANNELS) + 128).astype(dtype)
    cut = np.asarray(random_crop(images, jax.random.key(1), pad=pad, space=size, mode=mode))
    assert cut.dtype == dtype
    assert cut.shape == (13, *size, CHANNELS)
    for before, after in zip(images, cut, strict=True):
        assert after.tobytes() in crops(before, pad, size, mode.upper())


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize(("space", "pad", "size"), CROPS)
def test_all_windows_are_equally_likely(space, pad, size, mode):
    image = gaussian(*space, CHANNELS)
    admissible = crops(image, pad, size, mode.upper())
    axes = zip(space, pad, size, strict=True)
    assert len(admissible) == np.prod([large + 2 * extra - small + 1 for large, extra, small in axes])
    draws = look_up(random_crop(copies(image), jax.random.key(2), pad=pad, space=size, mode=mode), admissible)
    assert_uniform(draws, admissible)
    assert_neighbours_draw_independently(draws)


@pytest.mark.parametrize(("space", "by"), SHIFTS)
def test_crop_of_the_original_size_has_the_distribution_of_a_shift(space, by):
    image = gaussian(*space, CHANNELS)
    admissible = shifts(image, by)
    shifted = collections.Counter(look_up(random_shift(copies(image), jax.random.key(3), max_shift=by), admissible))
    cropped = collections.Counter(look_up(random_crop(copies(image), jax.random.key(4), pad=by), admissible))
    assert set(shifted) == set(cropped)
    table = [[counts[offset] for offset in shifted] for counts in (shifted, cropped)]
    assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def test_crop_of_the_full_padded_image_is_deterministic():
    images = gaussian(13, 7, 5, CHANNELS)
    for mode, numpy in (("zero", "constant"), ("reflect", "reflect")):
        cropped = random_crop(images, jax.random.key(0), pad=(1, 3), space=(9, 11), mode=mode)
        np.testing.assert_array_equal(cropped, np.pad(images, [(0, 0), (1, 1), (3, 3), (0, 0)], mode=numpy))


# --- random_flip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("space", "axis"), [(s, a) for s in SPACES for a in range(-len(s), len(s))])
def test_each_image_is_mirrored_along_the_axis_or_unchanged_and_keeps_its_dtype(space, axis, dtype):
    images = (40 * gaussian(13, *space, CHANNELS) + 128).astype(dtype)
    mirrored_axis = axis if axis >= 0 else len(space) + axis
    mirrored = images.copy()
    for pixel in np.ndindex(*space):
        opposite = tuple(n - 1 - p if k == mirrored_axis else p for k, (p, n) in enumerate(zip(pixel, space, strict=True)))
        mirrored[(slice(None), *pixel)] = images[(slice(None), *opposite)]
    flipped = np.asarray(random_flip(images, jax.random.key(1), axis=axis))
    assert flipped.dtype == dtype
    changed = [not np.array_equal(a, b) for a, b in zip(images, flipped, strict=True)]
    assert 0 < sum(changed) < len(images)
    for k, which in enumerate(changed):
        np.testing.assert_array_equal(flipped[k], mirrored[k] if which else images[k])
    np.testing.assert_array_equal(random_flip(images, jax.random.key(1), axis=axis, probability=1), mirrored)
    np.testing.assert_array_equal(random_flip(images, jax.random.key(1), axis=axis, probability=0), images)


def test_flip_is_left_to_right_by_default():
    images, key = gaussian(13, 7, 5, CHANNELS), jax.random.key(0)
    np.testing.assert_array_equal(random_flip(images, key, probability=1), images[:, :, ::-1])


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_fraction_of_flipped_images_matches_the_probability(probability):
    image = gaussian(7, 5, CHANNELS)
    admissible = {image.tobytes(): False, image[:, ::-1].tobytes(): True}
    draws = look_up(random_flip(copies(image), jax.random.key(2), probability=probability), admissible)
    assert scipy.stats.binomtest(sum(draws), len(draws), probability).pvalue > SIGNIFICANCE
    assert_neighbours_draw_independently(draws)


# --- all ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@names
def test_floats_keep_their_dtype(f, dtype):
    images = jax.ShapeDtypeStruct((3, 7, 5, CHANNELS), dtype)
    assert jax.eval_shape(f, images, jax.random.key(0)).dtype == dtype


@names
def test_equal_keys_give_equal_results_and_another_key_a_different_one(f):
    images = gaussian(13, 7, 5, CHANNELS)
    chex.assert_trees_all_equal(f(images, jax.random.key(1)), f(images, jax.random.key(1)), f(images, jax.random.PRNGKey(1)))
    assert not np.array_equal(f(images, jax.random.key(1)), f(images, jax.random.key(2)))


@names
def test_one_compilation_serves_all_keys(f):
    images, keys = gaussian(13, 7, 5, CHANNELS), jax.random.split(jax.random.key(1), 5)
    chex.clear_trace_counter()
    once = jax.jit(chex.assert_max_traces(lambda x, key: f(x, key), n=1))
    for key in keys:
        chex.assert_trees_all_close(once(images, key), f(images, key), atol=1e-6)


@names
def test_vmap_over_keys_matches_separate_calls(f):
    images, keys = gaussian(13, 7, 5, CHANNELS), jax.random.split(jax.random.key(1), 3)
    together = jax.jit(jax.vmap(f, (None, 0)))(images, keys)
    chex.assert_trees_all_close(together, np.stack([f(images, key) for key in keys]), atol=1e-6)


@compiled
def moved(images, key, by, ndim):
    """Return shifted, cropped and flipped images."""
    cropped = random_crop(images, key, pad=by, mode="reflect", ndim=ndim)
    return random_shift(images, key, max_shift=by, ndim=ndim), cropped, random_flip(images, key, ndim=ndim)


@pytest.mark.parametrize("batch", [(), (13,), (2, 13), (2, 1, 7)])
@pytest.mark.parametrize(("space", "by"), SHIFTS)
def test_any_number_of_batch_axes_is_supported(batch, space, by):
    ndim, key = len(space), jax.random.key(1)
    images = gaussian(*batch, *space, CHANNELS)
    shifted, cropped, flipped = map(np.asarray, moved(images, key, by, ndim))
    for index in np.ndindex(*batch):
        image = images[index]
        assert shifted[index].tobytes() in shifts(image, by)
        assert cropped[index].tobytes() in crops(image, by, space, "REFLECT")
        assert flipped[index].tobytes() in (image.tobytes(), image[..., ::-1, :].tobytes())


def test_images_are_transformed_independently_along_every_batch_axis():
    image, key = gaussian(7, 5, CHANNELS), jax.random.key(1)
    images = np.broadcast_to(image, (11, 13, *image.shape))
    for changed in moved(images, key, (2, 2), 2):
        rows = np.asarray(changed).reshape(11, 13, -1)
        assert (rows != rows[:1]).any((0, 2)).all()
        assert (rows != rows[:, :1]).any((1, 2)).all()


@functools.partial(jax.jit, static_argnums=0)
def derivatives(f, key, images, direction, weights):
    """Return f(images), its change along a direction, and its forward and reverse derivatives."""
    result, back = jax.vjp(lambda x: f(x, key), images)
    forward = jax.jvp(lambda x: f(x, key), (images,), (direction,))[1]
    return result, f(images + direction, key) - result, forward, back(weights)[0]


@names
def test_derivatives_are_those_of_an_affine_map(f, float64):
    images, direction, weights = np.random.default_rng(0).normal(size=(3, 3, 7, 5, CHANNELS))
    result, change, forward, backward = map(np.asarray, derivatives(f, jax.random.key(1), images, direction, weights))
    assert result.dtype == np.float64
    close(forward, change)
    close((weights * change).sum(), (backward * direction).sum())


def test_double_precision_draws_the_same_offsets():
    images, key = gaussian(13, 7, 5, CHANNELS), jax.random.key(1)
    for f in ALL[:-1]:
        single = np.asarray(f(images, key))
        with jax.enable_x64(True):
            np.testing.assert_array_equal(jax.jit(f)(images, key), single)


# --- chain ----------------------------------------------------------------------------------------------------------


def test_chain_applies_its_parts_in_order_with_separate_keys():
    images, key = gaussian(13, 7, 5, CHANNELS), jax.random.key(1)
    by_hand = images
    for f, part_key in zip(ALL, jax.random.split(key, len(ALL)), strict=True):
        by_hand = f(by_hand, part_key)
    chex.assert_trees_all_equal(chain(*ALL)(images, key), by_hand)
    chex.assert_trees_all_close(jax.jit(chain(*ALL))(images, key), by_hand, atol=1e-6)


def test_empty_chain_changes_nothing():
    images = gaussian(3, 7, 5, CHANNELS)
    chex.assert_trees_all_equal(chain()(images, jax.random.key(0)), jnp.asarray(images))


def test_chains_can_be_nested():
    images, key = gaussian(13, 7, 5, CHANNELS), jax.random.key(1)
    first, second = jax.random.split(key)
    inner = chain(ALL[0], random_flip)
    chex.assert_trees_all_equal(chain(inner, ALL[1])(images, key), ALL[1](inner(images, first), second))
    assert chain(inner, ALL[1]) == chain(chain(ALL[0], random_flip), ALL[1])


def crop_and_flip(**options):
    return chain(functools.partial(random_crop, **options), random_flip)


def test_chains_of_equal_parts_are_equal():
    one, other = crop_and_flip(pad=2, mode="reflect"), crop_and_flip(mode="reflect", pad=2)
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "other",
    [
        crop_and_flip(pad=1, mode="reflect"),
        crop_and_flip(pad=2),
        chain(random_flip, functools.partial(random_crop, pad=2, mode="reflect")),
        chain(functools.partial(random_crop, pad=2, mode="reflect")),
        chain(functools.partial(permute_pixels, ndim=2), random_flip),
        chain(),
    ],
)
def test_chains_of_different_parts_are_not_equal(other):
    assert crop_and_flip(pad=2, mode="reflect") != other


def test_equal_chain_is_not_compiled_again():
    images = gaussian(13, 7, 5, CHANNELS)
    chex.clear_trace_counter()

    @functools.partial(jax.jit, static_argnums=2)
    @chex.assert_max_traces(n=1)
    def augment(x, key, f):
        return f(x, key)

    for key in jax.random.split(jax.random.key(0), 3):
        augment(images, key, crop_and_flip(pad=2, mode="reflect"))


# --- invalid arguments ----------------------------------------------------------------------------------------------

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: random_shift(x, KEY, max_shift=-1), ValueError, r"max_shift is \(-1, -1\).*none below 0"),
        (lambda x: random_shift(x, KEY, max_shift=(1, 6)), ValueError, r"max_shift is \(1, 6\) but the images are \(7, 5\)"),
        (lambda x: random_shift(x, KEY, max_shift=(1, 2, 3)), ValueError, "needs one number of pixels per spatial axis"),
        (lambda x: random_shift(x, KEY, max_shift=()), ValueError, "needs one number of pixels per spatial axis"),
        (lambda x: random_shift(x, KEY, max_shift=0.5), TypeError, "max_shift must be a Python integer.*got 0.5"),
        (lambda x: random_shift(x, KEY, max_shift=(1, 0.5)), TypeError, "max_shift must be a sequence of Python integers"),
        (lambda x: random_shift(x, KEY, max_shift="2"), TypeError, "max_shift must be"),
        (lambda x: random_shift(x, KEY, max_shift=True), TypeError, "max_shift must be a Python integer"),
        (lambda x: random_shift(x, KEY, max_shift=(1, np.True_)), TypeError, "max_shift must be a sequence"),
        (lambda x: random_shift(x, KEY, max_shift=1, ndim=2.0), TypeError, "ndim must be an integer"),
        (lambda x: random_crop(x, KEY, pad=1, space=b"ab"), TypeError, "space must be a sequence"),
        (lambda x: random_flip(x, KEY, axis=False), TypeError, "axis must be a Python integer"),
        (lambda x: random_flip(x, KEY, probability=True), TypeError, "probability must be a"),
        (lambda x: chain(random_flip)("images", KEY), TypeError, "images must be an array of numbers"),
        (lambda x: chain(random_flip)(x, 0), TypeError, "key must be one random key"),
        (lambda x: random_shift(x, KEY, max_shift=1, ndim=4), ValueError, "ndim of images .*needs 1 to 3 spatial axes, got 4"),
        (lambda x: random_shift(x[0, 0], KEY, max_shift=1), ValueError, "needs 1 to 3 spatial axes, got 0"),
        (lambda x: random_shift(x[0, 0], KEY, max_shift=1, ndim=2), ValueError, "needs 2 spatial axes and channels"),
        (lambda x: jax.jit(lambda shift: random_shift(x, KEY, max_shift=shift))(2), TypeError, "max_shift must be"),
        (lambda x: jax.jit(lambda shift: random_shift(x, KEY, max_shift=(shift, 1)))(2), TypeError, "max_shift must be"),
        (lambda x: random_crop(x, KEY, pad=-1), ValueError, "pad is .*none below 0"),
        (lambda x: random_crop(x, KEY, pad=5, mode="reflect"), ValueError, r"pad is \(5, 5\) but the images are \(7, 5\)"),
        (lambda x: random_crop(x, KEY, pad=1, space=(9, 8)), ValueError, r"space is \(9, 8\) but .* \(9, 7\)"),
        (lambda x: random_crop(x, KEY, pad=1, space=(0, 5)), ValueError, r"space is \(0, 5\).*needs 1 pixel"),
        (lambda x: random_crop(x, KEY, pad=1, space=(5,)), ValueError, r"space is \(5,\) for images of \(7, 5\)"),
        (lambda x: random_crop(x, KEY, pad=1, space=(5.0, 5)), TypeError, "space must be a sequence of Python integers"),
        (lambda x: random_crop(x, KEY, pad=1, mode="edge"), ValueError, "mode 'edge' is unknown; needs one of zero, reflect"),
        (lambda x: random_crop(x, KEY, pad=1, ndim=0), ValueError, "needs 1 to 3 spatial axes, got 0"),
        (lambda x: jax.jit(lambda pad: random_crop(x, KEY, pad=pad))(2), TypeError, "pad must be"),
        (lambda x: random_flip(x, KEY, axis=2), ValueError, r"axis is 2 but images of \(7, 5\) have 2 spatial axes"),
        (lambda x: random_flip(x, KEY, axis=-3), ValueError, "axis is -3"),
        (lambda x: random_flip(x, KEY, axis=0.0), TypeError, "axis must be a Python integer"),
        (lambda x: random_flip(x, KEY, probability=1.1), ValueError, "probability is 1.1; needs 0 to 1"),
        (lambda x: random_flip(x, KEY, probability=-0.1), ValueError, "probability is -0.1"),
        (lambda x: random_flip(x, KEY, probability=np.nan), ValueError, "probability is nan"),
        (lambda x: random_flip(x, KEY, probability="1"), TypeError, "probability must be a Python number"),
        (lambda x: jax.jit(lambda p: random_flip(x, KEY, probability=p))(0.5), TypeError, "probability must be a Python"),
        (lambda x: random_flip(x, KEY, ndim=0), ValueError, "needs 1 to 3 spatial axes, got 0"),
        (lambda x: chain(3), TypeError, "a transform is 3; needs a function"),
        (lambda x: chain(functools.partial(random_shift, max_shift=[1, 2])), TypeError, "cannot be hashed.*list"),
    ],
)
def test_invalid_arguments_raise_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(gaussian(13, 7, 5, CHANNELS))
