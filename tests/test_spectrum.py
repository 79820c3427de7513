"""Matrices of linear layers: ranks, null spaces, and three methods for singular values."""

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

from convlab import measure
from convlab.measure import spectrum

pytestmark = pytest.mark.usefixtures("float64")
W = cl.Window


@pytest.fixture(autouse=True)
def _in_few_programs(monkeypatch):
    """Compile matrices and transfer functions as whole programs, to save time."""
    matrix = measure.LinearOperator.matrix

    def in_one_program(operator):
        return jax.jit(lambda: matrix(operator))()

    monkeypatch.setattr(measure.LinearOperator, "matrix", in_one_program)
    monkeypatch.setattr(spectrum, "transfer_function", compiled(spectrum.transfer_function))


def layer(window, space, c=1, d=1, seed=0, is_complex=False):
    """Make a convolution with a Gaussian kernel."""
    v, imaginary = gaussian(*[(*window.taps(len(space)), c, d)] * 2, seed=seed)
    return measure.conv_operator(jax.device_put(v + 1j * imaginary if is_complex else v), window, space)


def written_out(v, window, space):
    """Build the matrix with the oracle, (activations, pixels)."""
    c, d = v.shape[-2:]
    ndim, v = len(space), np.asarray(v)
    window = window.with_ndim(ndim)
    reads = oracle.tables(space, window.size, window.strides, window.dilation, window.padding)
    w = oracle.dense_matrix(lambda _: v, reads, space, c, d)
    return np.moveaxis(w, -1, ndim).reshape(-1, np.prod(space) * c)


# --- the matrix ------------------------------------------------------------------------------------------------------


def test_the_matrix_is_the_dense_weight_of_the_layer():
    for window, d in ((W((3, 2), (2, 1)), 3), (W((2, 3), padding="REFLECT"), 1)):
        operator = layer(window, (5, 4), 2, d)
        close(operator.matrix(), written_out(operator.kernel, window, (5, 4)))


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
def test_a_layer_and_its_transpose_are_adjoint(function):
    operator = measure.LinearOperator(function, (5, 7, 2))
    x, y = gaussian((5, 7, 2), operator.output_shape, seed=1)
    products = jax.jit(lambda x, y: (operator.apply(x), operator.apply_transpose(y), function(x) - function(0 * x)))
    h, back, expected = products(x, y)
    close(np.vdot(h, y), np.vdot(x, back))
    close(h, expected)


# --- singular values -------------------------------------------------------------------------------------------------

CIRCULAR = [
    (W((3, 2), padding="CIRCULAR"), (5, 7), 2, 3),
    (W((2, 5), padding="CIRCULAR", dilation=(2, 1)), (6, 4), 3, 2),
]


@pytest.mark.parametrize("window, space, c, d", CIRCULAR)
def test_the_singular_values_on_a_torus_are_those_of_all_frequencies(window, space, c, d):
    operator = layer(window, space, c, d)
    dense = measure.singular_values(operator, "dense")
    close(measure.singular_values(operator, "fourier"), dense)
    np.testing.assert_array_equal(measure.singular_values(operator), measure.singular_values(operator, "fourier"))


def test_zero_padding_changes_the_singular_values_and_has_no_fourier_method():
    around, zeros = (layer(W((3, 2), padding=padding), (5, 7), 2, 3) for padding in ("CIRCULAR", "SAME"))
    gap = measure.singular_values(around) - measure.singular_values(zeros)
    assert np.abs(gap).max() > 0.1
    with pytest.raises(ValueError, match="no window on a torus"):
        measure.singular_values(zeros, "fourier")
    with pytest.raises(ValueError, match="needs a convolution"):
        measure.singular_values(measure.LinearOperator(OPS["mean"], (5, 7, 2)), "fourier")
    with pytest.raises(ValueError, match="method 'qr' is unknown"):
        measure.singular_values(zeros, "qr")


def test_windows_that_repeat_the_image_along_one_axis_only_have_no_fourier_method_but_others():
    window, space = W((3, 2), padding=("SAME", "CIRCULAR")), (5, 4)
    operator = layer(window, space, 2, 3)
    expected = np.linalg.svd(written_out(operator.kernel, window, space), compute_uv=False)
    close(measure.singular_values(operator), expected)
    close(measure.singular_values(operator, "krylov", count=3), expected[:3], 5e-9)
    assert measure.matrix_rank(operator) == np.linalg.matrix_rank(written_out(operator.kernel, window, space))
    with pytest.raises(ValueError, match="no window on a torus; needs padding 'CIRCULAR' along all axes"):
        measure.singular_values(operator, "fourier")


@pytest.mark.parametrize("padding", ["CIRCULAR", ("SAME", "CIRCULAR"), "VALID"])
def test_complex_matrices_have_the_singular_values_and_null_space_of_numpy(padding):
    window, space = W((3, 2), padding=padding), (5, 4)
    operator = layer(window, space, 3, 2, is_complex=True)
    matrix = written_out(operator.kernel, window, space)
    expected = np.linalg.svd(matrix, compute_uv=False)
    close(operator.matrix(), matrix)
    for method in ("dense", "krylov", *(["fourier"] if padding == "CIRCULAR" else [])):
        values = measure.singular_values(operator, method, count=5)
        assert values.dtype == np.float64
        close(values, expected[:5], 5e-9 if method == "krylov" else 1e-12)
    assert measure.matrix_rank(operator) == np.linalg.matrix_rank(matrix)
    lost = measure.null_space(operator)
    assert len(lost) == 60 - np.linalg.matrix_rank(matrix)
    flat = lost.reshape(len(lost), -1)
    close(matrix @ flat.T, np.zeros((len(matrix), len(lost))))
    close(flat @ flat.conj().T, np.eye(len(lost)), 1e-11)


def test_a_function_with_complex_activations_has_a_complex_matrix():
    weights, imaginary = gaussian((5, 3), (5, 3))
    weights = weights + 1j * imaginary
    operator = measure.LinearOperator(lambda x: weights @ x, (3, 1))
    assert operator.dtype == np.complex128
    close(operator.matrix(), weights)
    x, y = gaussian((3, 1), (5, 1))
    close(operator.apply(x), weights @ x)
    close(operator.apply_transpose(y), weights.T @ y)
    single = measure.LinearOperator(lambda x: x.astype(np.complex64), (3, 1))
    assert single.dtype == np.complex128  # as the image of doubles is promoted


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
def test_krylov_finds_the_largest_singular_values_also_with_multiplicity(padding):
    operator = layer(W((3, 3), padding=padding), (11, 7), 2, 3)
    dense = measure.singular_values(operator, "dense")
    close(measure.singular_values(operator, "krylov", count=6), dense[:6], 5e-9)
    assert measure.singular_values(operator, "dense", count=4).shape == (4,)


def test_krylov_finds_all_values_of_a_small_space():
    operator = layer(W((2, 2), padding="VALID"), (3, 4), 1, 2)
    close(measure.singular_values(operator, "krylov", count=100), measure.singular_values(operator, "dense"))


def test_a_large_matrix_is_not_written_out(monkeypatch):
    monkeypatch.setattr(measure.LinearOperator, "matrix", None)
    monkeypatch.setitem(spectrum.METHODS, "krylov", lambda operator, count: np.array([7.0]))
    operator = layer(W((3, 3)), (64, 65), 1, 1)
    assert measure.singular_values(operator) == [7.0]
    for find in (measure.matrix_rank, measure.null_space):
        with pytest.raises(ValueError, match="more than 16777216 entries"):
            find(operator)


# --- what is lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, space", [(2, (7, 8)), (3, (8, 9))])
def test_two_filters_on_a_whole_image_have_a_null_space_and_three_do_not(size, space):
    window = W((size, size), padding="VALID")
    two = layer(window, space, 1, 2)
    lost = measure.null_space(two)
    assert lost.shape == (2 * (size - 1) ** 2, *space, 1)
    close(cl.conv(lost, two.kernel, window), np.zeros((len(lost), *two.output_shape)))
    flat = lost.reshape(len(lost), -1)
    close(flat @ flat.T, np.eye(len(lost)))
    if size == 3:
        assert measure.matrix_rank(layer(window, space, 1, 3)) == np.prod(space)


def test_one_3x3_filter_with_zero_padding_has_full_rank():
    operator = layer(W((3, 3)), (7, 8))
    assert measure.matrix_rank(operator) == 56
    assert measure.null_space(operator).shape == (0, 7, 8, 1)
    assert measure.singular_values(operator)[-1] > 1e-6


def test_8_filters_on_a_patch_of_9_pixels_have_rank_8():
    operator = layer(W((3, 3), padding="VALID"), (3, 3), 1, 8)
    assert measure.matrix_rank(operator) == 8
    assert measure.null_space(operator).shape == (1, 3, 3, 1)


def test_singular_values_below_the_tolerance_do_not_count():
    half = measure.LinearOperator(lambda x: x * np.arange(3.0)[:, None], (3, 1))
    assert measure.matrix_rank(half) == 2
    assert measure.matrix_rank(half, tolerance=0.6) == 1
    assert measure.matrix_rank(measure.LinearOperator(jnp.zeros_like, (3, 1))) == 0


def test_flax_layers_and_ours_are_linear_functions():
    convolution = filled(lambda: cl.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)))
    values = measure.singular_values(measure.LinearOperator(convolution, (5, 4, 2)))
    a = written_out(convolution.kernel[...], W(3), (5, 4))
    close(values, np.linalg.svd(a, compute_uv=False), 3e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_ranks_are_right_in_two_byte_dtypes(dtype):
    h, x, v = (array.astype(dtype) for array in gaussian((4096, 128), (4, 11, 13, 3), (3, 3, 3, 32)))
    assert measure.activation_rank(h).rank == 128
    h = cl.conv(x, v, W(3, 2))
    assert (measure.activation_rank(h).rank, measure.activation_rank(jax.nn.relu(h)).rank) == (27, 32)
    for padding in ("SAME", "CIRCULAR"):
        identity = measure.conv_operator(np.eye(3, dtype=dtype).reshape(1, 1, 3, 3), W(1, padding=padding), (8, 8))
        assert measure.matrix_rank(identity) == 192
        np.testing.assert_allclose(measure.singular_values(identity), 1, atol=1e-6)
    half = measure.conv_operator(np.ones((2, 1, 1), dtype), W(2, padding="VALID"), (5,))
    lost = measure.null_space(half)
    assert lost.dtype == jnp.float32
    close(np.abs(lost).squeeze(), np.full(5, 5**-0.5, np.float32), 5e-7)


def test_the_null_space_of_a_tall_matrix_needs_no_square_matrix_of_its_rows():
    tall = measure.LinearOperator(lambda x: jnp.tile(jnp.diff(x, axis=0), (2**17, 1)), (4, 1))  # its rows' would take 1 TiB
    close(np.abs(measure.null_space(tall)), np.full((1, 4, 1), 0.5))
    wide = measure.LinearOperator(lambda x: x.sum(0), (4, 1))
    close(measure.null_space(wide).sum((1, 2)), np.zeros(3))
