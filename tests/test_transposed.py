"""Test the transposes of the layers against the transposed dense matrix of the definition."""

import functools

import compiled as cl
import jax
import numpy as np
import oracle
import pytest
from assertions import close
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import case, gaussian, windows

import convlab

pytestmark = pytest.mark.usefixtures("float64")
GLOBE = case((5, 4), (3, 2), (2, 1), ("SAME", "CIRCULAR"), (1, 2))
GROUPS = st.sampled_from([(1, 2, 3), (2, 1, 4), (3, 2, 3)])  # groups, channels of one group in, channels out


def wrapped(position, period):
    return tuple(i % p for i, p in zip(position, period, strict=True))


# op -> function of window and output positions: (shapes of the arrays, kernel of a position of these arrays)
OPS = {
    "conv": lambda size, out, c, d: ([(*size, c, d)], lambda v: lambda position: v),
    "locally_connected": lambda size, out, c, d: ([(*out, *size, c, d)], lambda v: lambda position: v[position]),
    "tiled": lambda size, out, c, d: (
        [(*tile(out), *size, c, d)],
        lambda v: lambda position: v[wrapped(position, tile(out))],
    ),
    "low_rank": lambda size, out, c, d: (
        [(2, *size, c, d), (*out, 2)],
        lambda u, w: lambda position: np.tensordot(w[position], u, 1),
    ),
}
HAVE_GROUPS = ("conv", "locally_connected")
each_op = pytest.mark.parametrize("name", OPS)


def tile(out):
    return tuple(min(2 + r, n) for r, n in enumerate(out))


def drawn_arrays(name, drawn, c, d, groups=1, seed=0):
    """Return Gaussian arrays of a layer, and a function from arrays to its dense matrix of the definition."""
    window, space, reads = drawn
    shapes, kernels = OPS[name](window.size, oracle.out_shape(reads), c, d)

    def matrix(*arrays):
        return oracle.dense_matrix(kernels(*arrays), reads, space, c * groups, d, groups)

    return gaussian(*shapes, seed=seed), matrix


def times(w, x):
    """Multiply dense weights (*out, *space, c, d) with images (n, *space, c)."""
    ndim = x.ndim - 2
    axes = (*range(1, 1 + ndim), ndim + 1), (*range(ndim, 2 * ndim), 2 * ndim)
    return np.tensordot(x, w, axes)


def transposed_times(w, h):
    """Multiply the transpose of dense weights (*out, *space, c, d) with activations (n, *out, d)."""
    ndim = h.ndim - 2
    return np.tensordot(h, w, ((*range(1, 1 + ndim), ndim + 1), (*range(ndim), 2 * ndim + 1)))


# --- the transpose -----------------------------------------------------------------------------------------------------


@given(windows(cells=150), GROUPS)
@example(GLOBE, (2, 2, 4))
@example(case((3, 4), (2, 2), (1, 1), ((0, 2), "REFLECT"), (2, 1)), (1, 2, 3))
@settings(max_examples=5)
def test_a_transpose_is_that_of_the_dense_matrix_and_moves_over_in_inner_products(drawn, sizes):
    window, space, reads = drawn
    cases = {}
    for name in OPS:
        groups, c, d = sizes if name in HAVE_GROUPS else (1, sizes[1], sizes[2])
        arrays, matrix = drawn_arrays(name, drawn, c, d, groups)
        x, h = gaussian((2, *space, c * groups), (2, *oracle.out_shape(reads), d), seed=1)
        cases[name] = x, h, arrays, matrix(*arrays), [groups] if name in HAVE_GROUPS else []

    @jax.jit
    def all_ops(arrays):
        results = {}
        for name, (x, h, kernels) in arrays.items():
            options = cases[name][-1]
            back = getattr(convlab, f"{name}_transpose")(h, *kernels, window, space, *options)
            results[name] = back, getattr(convlab, name)(x, *kernels, window, *options)
        return results

    for name, (back, forth) in all_ops({name: inputs[:3] for name, inputs in cases.items()}).items():
        x, h, _, w, _ = cases[name]
        close(back, transposed_times(w, h))
        close(np.vdot(forth, h), np.vdot(x, back))


@each_op
def test_the_gradients_by_both_arguments_are_those_of_the_dense_matrix(name):
    window, space, reads = GLOBE
    arrays, matrix = drawn_arrays(name, GLOBE, 2, 3)
    h, g = gaussian((2, *oracle.out_shape(reads), 3), (2, *space, 2), seed=1)
    op = functools.partial(getattr(convlab, f"{name}_transpose"), window=window, space=space)
    argnums = tuple(range(1 + len(arrays)))
    by_h, *by_arrays = jax.jit(jax.grad(lambda *given: (op(*given) * g).sum(), argnums))(h, *arrays)
    close(by_h, times(matrix(*arrays), g))
    for number, array in enumerate(arrays):
        units = np.eye(array.size).reshape(-1, *array.shape)
        slopes = [
            np.vdot(g, transposed_times(matrix(*(unit if r == number else other for r, other in enumerate(arrays))), h))
            for unit in units
        ]
        close(by_arrays[number], np.reshape(slopes, array.shape))


@each_op
def test_second_derivatives_agree_in_both_orders(name):
    window, space, reads = GLOBE
    arrays, _ = drawn_arrays(name, GLOBE, 1, 2)
    h, other = gaussian(*[(1, *oracle.out_shape(reads), 2)] * 2, seed=1)
    op = functools.partial(getattr(convlab, f"{name}_transpose"), window=window, space=space)

    def loss(h):
        return jax.numpy.sin(op(h, *arrays)).sum()

    @jax.jit
    def second(h, other):
        return jax.jvp(jax.grad(loss), (h,), (other,))[1], jax.grad(lambda h: jax.jvp(loss, (h,), (other,))[1])(h)

    one, two = second(h, other)
    close(one, two)
    assert np.abs(one).max() > 0.01


@each_op
def test_batch_axes_of_any_number_are_kept(name):
    window, space, reads = GLOBE
    arrays, matrix = drawn_arrays(name, GLOBE, 2, 3)
    (h,) = gaussian((2, 3, *oracle.out_shape(reads), 3), seed=1)
    op = functools.partial(getattr(cl, f"{name}_transpose"), window=window, space=space)
    expected = transposed_times(matrix(*arrays), h.reshape(6, *h.shape[2:])).reshape(2, 3, *space, 2)
    close(op(h, *arrays), expected)
    close(op(h[1, 2], *arrays), expected[1, 2])
    assert op(h[:, :0], *arrays).shape == (2, 0, *space, 2)


@each_op
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_a_complex_transpose_is_not_conjugated_and_that_of_the_conjugated_kernels_is_the_adjoint(name, dtype):
    window, space, reads = GLOBE
    arrays, matrix = drawn_arrays(name, GLOBE, 2, 3)
    imaginary, _ = drawn_arrays(name, GLOBE, 2, 3, seed=1)
    arrays = [(a + 1j * b).astype(dtype) for a, b in zip(arrays, imaginary, strict=True)]
    x, y = gaussian(*[(2, *space, 2)] * 2, seed=2)
    g, h = gaussian(*[(2, *oracle.out_shape(reads), 3)] * 2, seed=3)
    x, h, tolerance = (x + 1j * y).astype(dtype), (g + 1j * h).astype(dtype), 40 * np.finfo(dtype).eps
    op, back = (functools.partial(getattr(cl, name + end), window=window) for end in ("", "_transpose"))
    transposed = back(h, *arrays, space=space)
    assert transposed.dtype == dtype
    close(transposed, transposed_times(matrix(*arrays), h).astype(dtype), tolerance)
    adjoint = back(h, *map(np.conj, arrays), space=space)
    close(np.vdot(op(x, *arrays), h), np.vdot(x, adjoint), tolerance * 10)


@each_op
def test_without_a_window_the_kernel_gives_its_size(name):
    drawn = case((5, 4), (3, 2), (1, 1), "SAME", (1, 1))
    arrays, matrix = drawn_arrays(name, drawn, 2, 3)
    (h,) = gaussian((2, 5, 4, 3), seed=1)
    close(getattr(cl, f"{name}_transpose")(h, *arrays), transposed_times(matrix(*arrays), h))


def test_a_strided_transpose_has_the_space_it_is_given():
    window, (v,) = cl.Window((3,), 2), gaussian((3, 2, 3))
    (h,) = gaussian((4, 3), seed=1)
    for n in (7, 8):
        assert cl.conv_transpose(h, v, window, (n,)).shape == (n, 2)
    assert cl.conv_transpose(h, v, window).shape == (8, 2)


# --- invalid arguments -------------------------------------------------------------------------------------------------

W, SPACE = cl.Window(3, 2), (4, 5)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


H, V = ones(2, 3, 7), ones(3, 3, 2, 7)
LOCAL, TILE, BASIS, WEIGHTS = ones(2, 3, 3, 3, 2, 7), ones(2, 1, 3, 3, 2, 7), ones(4, 3, 3, 2, 7), ones(2, 3, 4)
BAD = [
    (lambda: convlab.conv_transpose(ones(3, 3, 7), V, W, SPACE), ValueError, r"h has \(3, 3\) positions .* has \(2, 3\)"),
    (lambda: convlab.conv_transpose(ones(2, 3, 6), V, W, SPACE), ValueError, r"h has \(6,\) channels but .* \(7,\)"),
    (lambda: convlab.conv_transpose(ones(3, 7), V, W, SPACE), ValueError, r"h has shape \(3, 7\); needs 2 spatial axes"),
    (lambda: convlab.conv_transpose(H, V, W, (4, 5, 6)), ValueError, "has 2 spatial axes but 3 are needed"),
    (lambda: convlab.conv_transpose(H, V, W, 4), TypeError, "space must be a sequence"),
    (lambda: convlab.conv_transpose(H, V, W, (4, 0)), ValueError, "space must be at least 1"),
    (lambda: convlab.conv_transpose(H, V, W, SPACE, 2), ValueError, "groups must divide the 7 output channels of v, got 2"),
    (lambda: convlab.conv_transpose(H, V, W, SPACE, 0), ValueError, "groups must be an integer of at least 1"),
    (lambda: convlab.conv_transpose(H, V, 3, SPACE), TypeError, "window must be a convlab.Window"),
    (lambda: convlab.conv_transpose(H, V[:2], W, SPACE), ValueError, r"v holds kernels of \(2, 3\) taps"),
    (lambda: convlab.conv_transpose(H.astype(int), V, W, SPACE), TypeError, "h has dtype int"),
    (lambda: convlab.conv_transpose(H, V.astype(int), W, SPACE), TypeError, "v has dtype int"),
    (
        lambda: convlab.conv_transpose(H, V, W, SPACE, implementation="fast"),
        ValueError,
        "implementation 'fast' is unknown; needs one of",
    ),
    (
        lambda: convlab.locally_connected_transpose(H, LOCAL[:1], W, SPACE),
        ValueError,
        r"v holds kernels for \(1, 3\) positions",
    ),
    (lambda: convlab.locally_connected_transpose(H, V, W, SPACE), ValueError, "has 1 spatial axes but 2 are needed"),
    (
        lambda: convlab.tiled_transpose(H, V[0], W, SPACE),
        ValueError,
        r"v has shape \(3, 2, 7\); needs one axis per spatial axis",
    ),
    (lambda: convlab.tiled_transpose(H, ones(3, 1, 3, 3, 2, 7), W, SPACE), ValueError, r"period \(3, 1\) exceeds"),
    (lambda: convlab.low_rank_transpose(H, BASIS[:3], WEIGHTS, W, SPACE), ValueError, r"weights mixes \(4,\) kernels"),
    (lambda: convlab.low_rank_transpose(H, BASIS, WEIGHTS[:1], W, SPACE), ValueError, r"weights .* \(1, 3\) positions"),
    (lambda: convlab.low_rank_transpose(H, BASIS, WEIGHTS.astype(int), W, SPACE), TypeError, "weights has dtype int"),
]


@pytest.mark.parametrize("call, error, match", BAD)
def test_invalid_arguments_raise_errors_with_the_value_and_the_requirement(call, error, match):
    with pytest.raises(error, match=match):
        call()
