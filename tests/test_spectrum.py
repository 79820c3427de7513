"""What layers keep and lose of images: exact ranks and singular values, three ways to them, and images drawn again."""

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from networks import filled
from strategies import gaussian

import convlab
from convlab import algebra, measure
from convlab.measure import keeping, spectrum
from convlab.models.resnet import PADDING, POOL_WINDOW, STEMS

pytestmark = pytest.mark.usefixtures("float64")
W = cl.Window


@pytest.fixture(autouse=True)
def _in_few_programs(monkeypatch):
    """Compile whole what the searches call: a linear function is no argument of jit, so its matrix is a program of none."""
    matrix = spectrum.matrix

    def in_one_program(linear):
        return jax.jit(lambda: matrix(linear))()

    monkeypatch.setattr(spectrum, "matrix", in_one_program)
    monkeypatch.setattr(spectrum, "transfer", compiled(spectrum.transfer))
    for name in ("conv", "max_pool", "aliased_energy"):
        monkeypatch.setattr(keeping, name, compiled(getattr(keeping, name)))


def layer(window, space, c=1, d=1, seed=0):
    """Make a convolution with a Gaussian kernel."""
    (v,) = gaussian((*window.taps(len(space)), c, d), seed=seed)
    return measure.convolution(jax.device_put(v), window, space)


def written_out(v, window, space):
    """Write out the matrix by the oracle, (activations, pixels)."""
    c, d = v.shape[-2:]
    rank, v = len(space), np.asarray(v)
    window = window.of_rank(rank)
    reads = oracle.tables(space, window.size, window.strides, window.dilation, window.padding)
    w = oracle.dense_matrix(lambda _: v, reads, space, c, d)
    return np.moveaxis(w, -1, rank).reshape(-1, np.prod(space) * c)


# --- the matrix ------------------------------------------------------------------------------------------------------


def test_the_matrix_is_the_dense_weight_of_the_layer():
    for window, d in ((W((3, 2), (2, 1)), 3), (W((2, 3), padding="REFLECT"), 1)):
        linear = layer(window, (5, 4), 2, d)
        close(measure.matrix(linear), written_out(linear.kernel, window, (5, 4)))


OPS = {
    "conv": lambda x: cl.conv(x, gaussian((3, 2, 2, 3))[0], W((3, 2), (2, 1))),
    "local": lambda x: cl.locally_connected(x, gaussian((5, 7, 2, 3, 2, 3))[0], W((2, 3))),
    "tiled": lambda x: cl.tiled(x, gaussian((2, 3, 2, 3, 2, 3))[0], W((2, 3), padding="EDGE")),
    "low rank": lambda x: cl.low_rank(x, *gaussian((2, 3, 2, 2, 3), (5, 7, 2)), W((3, 2))),
    "dense": lambda x: cl.dense(x, gaussian((2, 3, 5, 7, 2, 3))[0]),
    "mean": lambda x: cl.mean_pool(x, W((2, 3), 2)),
    "blur": lambda x: cl.blur_pool(x, W(3, 2, "REFLECT")),
    "affine": lambda x: 2 * x[1:] + 3,
}


@pytest.mark.parametrize("function", OPS.values(), ids=OPS)
def test_a_layer_and_its_transpose_give_one_inner_product(function):
    linear = measure.Linear(function, (5, 7, 2))
    x, y = gaussian((5, 7, 2), linear.output_shape, seed=1)
    h, back, expected = jax.jit(lambda x, y: (linear.apply(x), linear.transpose(y), function(x) - function(0 * x)))(x, y)
    close(np.vdot(h, y), np.vdot(x, back))
    close(h, expected)


# --- singular values -------------------------------------------------------------------------------------------------

CIRCULAR = [
    (W((3, 2), padding="CIRCULAR"), (5, 7), 2, 3),
    (W((2, 5), padding="CIRCULAR", dilation=(2, 1)), (6, 4), 3, 2),
]


@pytest.mark.parametrize("window, space, c, d", CIRCULAR)
def test_the_singular_values_on_a_torus_are_those_of_all_frequencies(window, space, c, d):
    linear = layer(window, space, c, d)
    dense = measure.singular_values(linear, "dense")
    close(measure.singular_values(linear, "fourier"), dense)
    np.testing.assert_array_equal(measure.singular_values(linear), measure.singular_values(linear, "fourier"))
    close(measure.condition(linear) / (dense[0] / dense[-1]), 1.0, 1e-11)


def test_zeros_outside_change_the_singular_values_and_have_no_frequencies():
    around, zeros = (layer(W((3, 2), padding=padding), (5, 7), 2, 3) for padding in ("CIRCULAR", "SAME"))
    gap = measure.singular_values(around) - measure.singular_values(zeros)
    assert np.abs(gap).max() > 0.1
    with pytest.raises(ValueError, match="not the window of a torus"):
        measure.singular_values(zeros, "fourier")
    with pytest.raises(ValueError, match="needs a convolution"):
        measure.singular_values(measure.Linear(OPS["mean"], (5, 7, 2)), "fourier")
    with pytest.raises(ValueError, match="method 'qr' is unknown"):
        measure.singular_values(zeros, "qr")


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
def test_products_alone_find_the_largest_singular_values_also_where_several_directions_share_one(padding):
    linear = layer(W((3, 3), padding=padding), (11, 7), 2, 3)
    dense = measure.singular_values(linear, "dense")
    close(measure.singular_values(linear, "krylov", most=6), dense[:6], 5e-9)
    assert measure.operator_norm(linear, "krylov") == pytest.approx(dense[0], abs=1e-7)
    assert measure.singular_values(linear, "dense", most=4).shape == (4,)


def test_a_small_space_is_searched_through():
    linear = layer(W((2, 2), padding="VALID"), (3, 4), 1, 2)
    close(measure.singular_values(linear, "krylov", most=100), measure.singular_values(linear, "dense"))


def test_a_matrix_that_is_too_large_is_not_written_out(monkeypatch):
    monkeypatch.setattr(spectrum, "matrix", None)
    monkeypatch.setitem(spectrum.METHODS, "krylov", lambda linear, most: np.array([7.0]))
    linear = layer(W((3, 3)), (64, 65), 1, 1)
    assert measure.operator_norm(linear) == 7.0
    for find in (measure.rank, measure.null_space, measure.condition):
        with pytest.raises(ValueError, match="more than 16777216 entries"):
            find(linear)


# --- what is lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, space", [(2, (7, 8)), (3, (8, 9))])
def test_two_filters_on_a_whole_image_lose_exactly_what_three_keep(size, space):
    window = W((size, size), padding="VALID")
    two = layer(window, space, 1, 2)
    lost = measure.null_space(two)
    assert lost.shape == (2 * (size - 1) ** 2, *space, 1)
    close(cl.conv(lost, two.kernel, window), np.zeros((len(lost), *two.output_shape)))
    flat = lost.reshape(len(lost), -1)
    close(flat @ flat.T, np.eye(len(lost)))
    if size == 3:
        assert measure.rank(layer(window, space, 1, 3)) == np.prod(space)


def test_one_filter_of_3x3_with_zeros_outside_loses_nothing():
    linear = layer(W((3, 3)), (7, 8))
    assert measure.rank(linear) == 56
    assert measure.null_space(linear).shape == (0, 7, 8, 1)
    assert 1 < measure.condition(linear) < 1e6


def test_of_a_patch_of_9_pixels_8_filters_keep_8_dimensions():
    linear = layer(W((3, 3), padding="VALID"), (3, 3), 1, 8)
    assert measure.rank(linear) == 8
    assert measure.null_space(linear).shape == (1, 3, 3, 1)


def test_a_layer_that_loses_something_has_no_finite_condition():
    half = measure.Linear(lambda x: x * np.arange(3.0)[:, None], (3, 1))
    assert measure.condition(half) == np.inf
    assert measure.rank(half) == 2
    assert measure.rank(half, tolerance=0.6) == 1
    assert measure.rank(measure.Linear(jnp.zeros_like, (3, 1))) == 0


def test_layers_of_flax_and_of_the_library_are_linear_functions():
    convolution = filled(lambda: cl.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)))
    values = measure.singular_values(measure.Linear(convolution, (5, 4, 2)))
    a = written_out(convolution.kernel[...], W(3), (5, 4))
    close(values, np.linalg.svd(a, compute_uv=False), 3e-6)


# --- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d, kept", [(20, 20), (32, 27)])
def test_a_stem_of_27_inputs_fills_at_most_27_dimensions_and_more_after_the_relu(d, kept):
    x, v = gaussian((4, 11, 13, 3), (3, 3, 3, d))
    h = cl.conv(x, v, W(3, 2))
    assert measure.activation_rank(h).rank == kept
    assert measure.activation_rank(jax.nn.relu(h)).rank == d


def test_one_channel_to_many_by_one_tap_is_a_line_until_a_bias_and_a_relu_bend_it():
    x, v, bias = gaussian((4, 7, 5, 1), (1, 1, 1, 6), (6,))
    h = cl.conv(x, v, W(1))
    assert measure.activation_rank(h).rank == 1
    assert measure.activation_rank(np.asarray(h) + bias).rank == 2
    assert measure.activation_rank(jax.nn.relu(h)).rank == 2
    assert measure.activation_rank(np.maximum(0, np.asarray(h) + bias)).rank > 3


def test_the_effective_rank_counts_directions_of_equal_size():
    turn = np.linalg.qr(gaussian((5, 5))[0])[0]
    assert measure.activation_rank(turn * [1, 1, 1, 0, 0]) == (3, pytest.approx(3))
    rank, effective = measure.activation_rank(turn * [1, 0.5, 1e-3, 0, 0])
    assert (rank, 1.5 < effective < 2) == (3, True)
    assert measure.activation_rank(turn * [1, 0.5, 1e-3, 0, 0], tolerance=0.01).rank == 2
    assert measure.activation_rank(np.zeros((3, 2))) == (0, 0)
    assert measure.activation_rank(turn.reshape(5, 1, 5)).rank == 5
    with pytest.raises(ValueError, match="needs axes of examples"):
        measure.activation_rank(np.ones(3))


def test_an_image_is_drawn_again_but_for_what_the_layer_loses():
    (x,) = gaussian((6, 7, 1), seed=1)
    window = W((3, 3), padding="VALID")
    for d in (2, 3):
        linear = layer(window, (6, 7), 1, d)
        a, h = written_out(linear.kernel, window, (6, 7)), jax.jit(linear.apply)(x)
        drawn = np.asarray(jax.jit(lambda h, linear=linear: measure.reconstruct(linear, h, tolerance=1e-13))(h))
        expected = np.linalg.pinv(a) @ np.ravel(h)
        close(drawn.ravel(), expected, 1e-8)
        assert (np.abs(drawn - x).max() < 1e-7) == (d == 3)
    with pytest.raises(ValueError, match=r"h has shape \(3, 5\) but the layer returns \(4, 5, 3\)"):
        measure.reconstruct(linear, np.ones((3, 5)))


def test_descent_finds_an_image_that_a_network_cannot_tell_from_the_true_one():
    x, v = gaussian((6, 7, 1), (3, 3, 1, 12), seed=1)

    @jax.jit
    def network(x):
        return jnp.tanh(cl.conv(x, v, W(3)))

    drawn, rest = measure.reconstruct_by_gradient(network, network(x), x.shape, jax.random.key(0), steps=600)
    assert rest < 1e-6
    assert np.sum((drawn - x) ** 2) < 1e-2 * np.sum(x**2)
    with pytest.raises(ValueError, match="but the function returns"):
        measure.reconstruct_by_gradient(network, np.ones((3, 5)), x.shape, jax.random.key(0))


@pytest.mark.parametrize("name", ["7x7", "3x3x3", "patchify"])
def test_every_stem_of_the_models_has_its_report(name):
    width, image = 64, (16, 16, 3)
    (x,) = gaussian((8, *image))
    layers = [(W(size, strides, PADDING), int(np.ceil(share * width))) for share, size, strides in STEMS[name].layers]
    rows = measure.stem_report(layers, x, jax.random.key(0), pool=POOL_WINDOW if STEMS[name].pool else None)
    assert len(rows) == len(layers) + STEMS[name].pool + 1
    for row, (_, size, strides), c in zip(rows, STEMS[name].layers, [3, *(d for _, d in layers)], strict=False):
        assert row.window_ratio == row.channels / (size**2 * c)
        assert row.stride_ratio == row.channels / (strides**2 * c)
        assert row.rank == row.bound == min(row.channels, size**2 * c)
        assert row.rank <= row.rank_after <= row.channels
        assert (row.aliasing == 0) == (strides == 1)
    model = nnx.eval_shape(lambda: cl.models.ResNet(image, 10, (1,), width=width, stem=name, rngs=nnx.Rngs(0)))
    names = {f"stages/{number}/layer" for number in range(len(layers))}
    counted = [row for row in convlab.count(model, image).layers if row.name in names]
    assert rows[-1].weights == sum(row.weights for row in counted) == {"7x7": 9408, "3x3x3": 28512, "patchify": 3072}[name]
    assert rows[-1].multiply_adds == sum(row.multiply_adds for row in counted)
    assert [(row.field, row.jump) for row in rows[: len(layers)]] == [(row.field, row.jump) for row in counted]


def test_a_stem_with_given_kernels_is_measured_with_them():
    (x,) = gaussian((2, 16, 18, 2))
    blur = algebra.on_channels(algebra.blur(5), 2)
    [smooth, total] = measure.stem_report([(W(5, 2), 2)], x, jax.random.key(0), kernels=[blur])
    [rough, _] = measure.stem_report([(W(5, 2), 2)], x, jax.random.key(0))
    assert smooth.aliasing < 0.2 < 0.5 < rough.aliasing
    assert total == smooth._replace(name="total")
    with pytest.raises(ValueError, match=r"kernels\[0\] returns \(2,\) channels but its layer is of \(3,\)"):
        measure.stem_report([(W(5, 2), 3)], x, jax.random.key(0), kernels=[blur])
    with pytest.raises(ValueError, match="layers is empty"):
        measure.stem_report([], x, jax.random.key(0))


def test_more_examples_do_not_lower_the_rank_of_activations():
    (h,) = gaussian((30_000, 8))
    h = np.asarray(h * np.array([1, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01]), np.float32)
    assert measure.activation_rank(h).rank == measure.activation_rank(h[:300]).rank == 8
    flat = np.concatenate([h, h[:, :3] @ np.ones((3, 2), np.float32)], 1)
    assert measure.activation_rank(flat).rank == 8


def test_what_a_layer_loses_is_drawn_without_diverging_in_single_precision():
    (v, x) = gaussian((2, 2, 2), (6, 2))
    linear = measure.convolution(np.asarray(v, np.float32), W(2, padding="VALID"), (6,))
    h = jax.jit(linear.apply)(np.asarray(x, np.float32))
    drawn = jax.jit(lambda h: measure.reconstruct(linear, h))(h)
    wanted = np.linalg.pinv(np.asarray(spectrum.matrix(linear), float)) @ np.ravel(h)
    np.testing.assert_allclose(np.ravel(drawn), wanted, atol=1e-3)


@pytest.mark.parametrize("many", [0, 1, 3])
def test_a_stem_needs_one_kernel_a_layer(many):
    x, layers = np.ones((2, 8, 8, 3)), [(W(3), 4), (W(3), 5)]
    with pytest.raises(ValueError, match=f"kernels has {many} entries but the stem has 2 layers"):
        measure.stem_report(layers, x, jax.random.key(0), kernels=[np.ones((3, 3, 3, 4))] * many)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_numbers_of_two_bytes_have_their_ranks_too(dtype):
    h, x, v = (array.astype(dtype) for array in gaussian((4096, 128), (4, 11, 13, 3), (3, 3, 3, 32)))
    assert measure.activation_rank(h).rank == 128
    h = cl.conv(x, v, W(3, 2))
    assert (measure.activation_rank(h).rank, measure.activation_rank(jax.nn.relu(h)).rank) == (27, 32)
    for padding in ("SAME", "CIRCULAR"):
        identity = measure.convolution(np.eye(3, dtype=dtype).reshape(1, 1, 3, 3), W(1, padding=padding), (8, 8))
        assert measure.rank(identity) == 192
        assert measure.condition(identity) == pytest.approx(1, abs=1e-6)
    half = measure.convolution(np.ones((2, 1, 1), dtype), W(2, padding="VALID"), (5,))
    lost = measure.null_space(half)
    assert lost.dtype == jnp.float32
    close(np.abs(lost).squeeze(), np.full(5, 5**-0.5, np.float32), 5e-7)


def test_what_a_tall_matrix_loses_is_found_without_a_basis_of_its_rows():
    tall = measure.Linear(lambda x: jnp.tile(jnp.diff(x, axis=0), (2**17, 1)), (4, 1))  # its rows' would take 1 TiB
    close(np.abs(measure.null_space(tall)), np.full((1, 4, 1), 0.5))
    wide = measure.Linear(lambda x: x.sum(0), (4, 1))
    close(measure.null_space(wide).sum((1, 2)), np.zeros(3))


def test_the_condition_is_infinite_wherever_the_rank_is_not_full():
    two = layer(W((3, 3), padding="VALID"), (8, 8), 1, 2)
    assert measure.rank(two) == 56
    assert measure.condition(two) == np.inf


def test_a_stem_is_not_measured_on_images_that_say_nothing():
    x, key = np.ones((2, 8, 8, 3)), jax.random.key(0)
    unknown = x.copy()
    unknown[0, 0, 0, 0] = np.nan
    for images in (x * 0, unknown):
        with pytest.raises(ValueError, match="not finite, or zeros alone"):
            measure.stem_report([(W(3), 4)], images, key)
    with pytest.raises(ValueError, match=r"images has shape \(8, 3\); needs \(n, \*space, c\)"):
        measure.stem_report([(W(3), 4)], x[0, 0], key)
    with pytest.raises(TypeError, match=r"the width in layers\[0\] must be an integer"):
        measure.stem_report([(W(3), 4.5)], x, key)
