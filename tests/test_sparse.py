"""Sparse matrices of layers and ops, and their use in other libraries."""

import functools

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from flax import nnx
from networks import filled
from strategies import gaussian

import convlab
from convlab import layers, measure
from convlab.rungs import RUNGS

pytestmark = pytest.mark.usefixtures("float64")
W = cl.Window
SPACE = (5, 4)
PARAMETERS = {"tiled": {"period": (2, 2)}, "low_rank": {"rank": 2}}


def jacobian(function, shape, dtype=float):
    """Differentiate a function of one image, and flatten both sides."""
    x = jnp.zeros(shape, dtype)
    complex_valued = jnp.issubdtype(x.dtype, jnp.complexfloating)
    matrix = jax.jit(lambda x: jax.jacfwd(function, holomorphic=complex_valued)(x))(x)
    return np.asarray(matrix).reshape(-1, x.size)


def check_matrix(function, shape, dtype=float):
    """Check both exports against the Jacobian, and that they hold nothing but live taps."""
    operator = measure.LinearOperator(function, shape)
    expected, exported = jacobian(function, shape, dtype), operator.to_scipy_sparse()
    assert exported.format == "csr"
    close(exported.toarray(), expected)
    close(operator.to_bcoo().todense(), expected)
    return exported, expected


def layer(rung, c, d, window, seed=0, **options):
    """Make a layer with Gaussian arrays and bias."""
    kind = layers.layer.LAYERS[rung]
    options |= {"space": SPACE} if rung != "conv" else {}
    return filled(
        lambda: kind(c, d, window, **PARAMETERS.get(rung, {}), **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0)), seed
    )


@pytest.mark.parametrize("rung", RUNGS)
def test_the_sparse_matrix_of_a_layer_is_its_jacobian(rung):
    window = W((3, 2), (2, 1), dilation=(1, 2))
    exported, expected = check_matrix(layer(rung, 2, 3, window), (*SPACE, 2))
    assert exported.nnz == np.count_nonzero(expected)


PADDINGS = ["VALID", "FULL", "SAME_LOWER", "CIRCULAR", "REFLECT", "EDGE", ((2, 0), (-1, 3)), ("SAME", "CIRCULAR")]


@pytest.mark.slow
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("rung", RUNGS)
def test_the_sparse_matrix_is_the_jacobian_under_every_padding(rung, padding):
    check_matrix(layer(rung, 1, 2, W((3, 2), (1, 2), padding)), (*SPACE, 1))


@pytest.mark.parametrize("rung", ["conv", "locally_connected"])
def test_groups_leave_out_the_weights_between_them(rung):
    exported, expected = check_matrix(layer(rung, 4, 6, W((2, 3)), feature_group_count=2), (*SPACE, 4))
    assert exported.nnz == np.count_nonzero(expected)


@pytest.mark.slow
def test_a_masked_layer_has_the_matrix_of_what_its_mask_keeps():
    mask = jnp.ones((3, 2, 1, 2)).at[1].set(0)
    check_matrix(layer("conv", 1, 2, W((3, 2)), mask=mask), (*SPACE, 1))


@pytest.mark.parametrize("transpose_kernel", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_matrix_of_a_transposed_layer_is_the_transpose_of_a_convolution(transpose_kernel):
    for kind in (convlab.ConvTranspose, nnx.ConvTranspose):
        build = functools.partial(kind, 2, 3, (3, 2), strides=(2, 1), transpose_kernel=transpose_kernel)
        check_matrix(filled(lambda build=build: build(param_dtype=jnp.float64, rngs=nnx.Rngs(0))), (*SPACE, 2))


def ops(dtype):
    """Return ops with their kernels, and the shapes of their images."""
    window, draw = W((3, 2), (2, 1)), lambda *shape: gaussian(shape)[0].astype(dtype) * (1j if dtype is complex else 1)
    positions = window.output_shape(SPACE)
    bound = {
        cl.conv: {"v": draw(3, 2, 2, 3), "window": window},
        cl.tiled: {"v": draw(2, 2, 3, 2, 2, 3), "window": window},
        cl.locally_connected: {"v": draw(*positions, 3, 2, 2, 3), "window": window},
        cl.low_rank: {"basis": draw(2, 3, 2, 2, 3), "weights": draw(*positions, 2), "window": window},
        cl.dense: {"w": draw(3, 2, *SPACE, 2, 3)},
    }
    transposes = {
        cl.conv: cl.conv_transpose,
        cl.tiled: cl.tiled_transpose,
        cl.locally_connected: cl.locally_connected_transpose,
        cl.low_rank: cl.low_rank_transpose,
    }
    for op, keywords in bound.items():
        yield functools.partial(getattr(convlab, op.__name__), **keywords), (*SPACE, 2)
        if op in transposes:
            yield functools.partial(getattr(convlab, transposes[op].__name__), **keywords, space=SPACE), (*positions, 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [float, complex])
def test_an_op_with_its_kernel_has_its_jacobian_as_matrix(dtype):
    for op, shape in ops(dtype):
        check_matrix(op, shape, dtype)


@pytest.mark.slow
def test_one_and_three_axes_and_a_window_read_off_the_kernel():
    check_matrix(functools.partial(convlab.conv, v=gaussian((3, 2, 2))[0]), (7, 2))
    check_matrix(functools.partial(convlab.conv, v=gaussian((2, 1, 2, 1, 2))[0]), (3, 2, 3, 1))


def test_the_matrix_of_a_large_image_takes_memory_for_its_live_taps_alone():
    layer = convlab.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0))
    exported = measure.LinearOperator(layer, (100, 90, 2)).to_scipy_sparse()  # 16 GB as a dense matrix
    assert exported.nnz == 2 * 3 * 298 * 268
    x = gaussian((100, 90, 2))[0]
    close(exported @ np.ravel(x), np.ravel(layer(x) - layer(0 * x)), 1e-5)


def test_a_matrix_that_does_not_fit_raises_a_memory_error_before_anything_is_made():
    layer = convlab.Conv(1000, 1000, (1, 1), rngs=nnx.Rngs(0))
    with pytest.raises(MemoryError, match="the entries of the matrix"):
        measure.LinearOperator(layer, (1000, 1000, 1000)).to_scipy_sparse()


@pytest.mark.parametrize("function", [lambda x: 2 * x, nnx.Linear(2, 2, rngs=nnx.Rngs(0)), functools.partial(jnp.add, 1)])
def test_other_functions_have_no_sparse_matrix(function):
    with pytest.raises(TypeError, match="function must be a layer .* or a functools.partial of an op"):
        measure.LinearOperator(function, (3, 2, 2)).to_scipy_sparse()


def test_a_layer_with_fewer_channels_raises_its_own_error():
    with pytest.raises(ValueError, match="channels"):
        measure.LinearOperator(convlab.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0)), (5, 4, 2)).to_scipy_sparse()


def test_operator_becomes_one_of_lineax():
    lineax = pytest.importorskip("lineax")
    operator = measure.conv_operator(gaussian((3, 1, 1))[0].at[1].add(5), W(3), (7,))
    x, solver = gaussian((7, 1), seed=1)[0], lineax.GMRES(1e-12, 1e-12)
    solution = lineax.linear_solve(operator.to_lineax(), operator.apply(x), solver).value
    close(solution, x, 1e-8)


def test_missing_lineax_raises_an_error_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lineax", None)
    with pytest.raises(ImportError, match=r"lineax is needed here but missing.*\[lineax\]"):
        measure.conv_operator(jnp.ones((3, 1, 1)), W(3), (7,)).to_lineax()
