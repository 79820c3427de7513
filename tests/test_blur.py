"""A blur that varies over the image: interpolation, low-rank form, errors, adjoint and operator."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from strategies import gaussian

import convlab as cl
from convlab import algebra

pytestmark = pytest.mark.usefixtures("float64")
SPACE = (11, 7)
GRID = [(row, column) for column in (-1, 3, 6) for row in (2, 8)]  # in another order than that of rows
SCATTERED = [(0, 1), (9.5, 2), (4, 6), (3, 3.25), (12, -2), (5, 0)]


apply = jax.jit(lambda layer, x: layer(x))  # one program for each shape


def blurred(psfs, positions, x, rule):
    """Blur one gray image from the equation: output p gathers x(q) times the kernel at p, read at p - q."""
    psfs, x = np.asarray(psfs)[..., 0, 0], np.asarray(x)[..., 0]
    half, y = [(size - 1) // 2 for size in psfs.shape[1:]], np.zeros_like(x)
    for p in np.ndindex(*x.shape):
        psf = sum(weight * psf for weight, psf in zip(rule(p, positions), psfs, strict=True))
        for q in np.ndindex(*x.shape):
            a = tuple(np.add(half, p) - q)
            if all(0 <= tap < size for tap, size in zip(a, psf.shape, strict=True)):
                y[p] += psf[a] * x[q]
    return y[..., None]


def bilinear(p, positions):
    """Weight the corners of the cell around a point by the area of the opposite rectangle."""
    weights = []
    for node in positions:
        weight = 1.0
        for axis, (value, at) in enumerate(zip(p, node, strict=True)):
            nodes = sorted({other[axis] for other in positions})
            value = min(max(value, nodes[0]), nodes[-1])
            below, above = max(n for n in nodes if n <= value), min(n for n in nodes if n >= value)
            share = 0.0 if above == below else (value - below) / (above - below)
            weight *= (1 - share) * (at == below) + share * (at == above)
        weights.append(weight)
    return weights


def inverse_distance(p, positions):
    squares = np.square(np.subtract(p, positions)).sum(-1)
    weights = squares == 0 if (squares == 0).any() else 1 / squares
    return weights / weights.sum()


RULES = {"grid": (GRID, bilinear), "scattered": (SCATTERED, inverse_distance)}


def case(positions, size=(3, 5), channels=(1, 1)):
    return jnp.asarray(gaussian((len(positions), *size, *channels))[0])


@pytest.mark.parametrize("positions, rule", RULES.values(), ids=RULES)
def test_blur_of_full_rank_equals_the_loop_over_pixels(positions, rule):
    psfs, (x,) = case(positions), gaussian((*SPACE, 1), seed=1)
    blur = algebra.varying_blur(psfs, positions, SPACE)
    assert isinstance(blur.layer, cl.LowRank)
    assert blur.layer.layout.tying.rank == len(positions)
    close(apply(blur.layer, x), blurred(psfs, positions, x, rule))
    assert blur.error == blur.operator_error == 0


def test_a_point_of_light_becomes_its_psf_and_the_adjoint_of_flipped_kernels_scatters_it_exactly():
    psfs, x = np.asarray(case(GRID)), np.zeros((*SPACE, 1))
    x[8, 3] = 1.0  # at the fourth position of the grid
    scatter = algebra.varying_blur(np.flip(psfs, (1, 2)), GRID, SPACE).adjoint
    gather = algebra.varying_blur(psfs[:1].repeat(6, 0), GRID, SPACE).layer
    for layer, psf in ((scatter, psfs[3]), (gather, psfs[0])):
        expected = np.zeros(SPACE)
        expected[7:10, 1:6] = psf[..., 0, 0]
        close(apply(layer, x)[..., 0], expected)


WINDOWS = {
    "same": (cl.Window((3, 5)), SPACE, (1, 1)),
    "all else": (cl.Window((3, 5), (2, 1), ("CIRCULAR", "EDGE"), (1, 2)), (13, 11), (2, 3)),
}


@pytest.mark.parametrize("window, space, channels", WINDOWS.values(), ids=WINDOWS)
def test_adjoint_is_the_transpose_of_the_truncated_blur(window, space, channels):
    blur = algebra.varying_blur(case(GRID, channels=channels), GRID, space, window, rank=2)
    x, y = gaussian((*space, channels[0]), (*window.output_shape(space), channels[1]), seed=1)
    close(np.vdot(apply(blur.layer, x), y), np.vdot(x, apply(blur.adjoint, y)))


def error_matrix(psfs, positions, space, window, rank):
    """Return the dense matrix of what a truncated blur lacks, column by column, and its bound."""
    full, cut = (algebra.varying_blur(psfs, positions, space, window, rank=r) for r in (None, rank))
    pixels = np.eye(np.prod(space)).reshape(-1, *space, 1)
    columns = np.asarray(apply(full.layer, pixels) - apply(cut.layer, pixels))
    return columns.reshape(len(columns), -1).T, cut.operator_error


@pytest.mark.parametrize("positions, rank", [(GRID, 1), (GRID, 3), (SCATTERED, 3)])
def test_error_of_a_rank_is_that_of_the_dropped_singular_values(positions, rank):
    psfs, window, space = case(positions), cl.Window((3, 5), padding="VALID"), (13, 11)  # where no tap is dead
    blur, whole = (algebra.varying_blur(psfs, positions, space, window, rank=r) for r in (rank, None))
    truncated, full = (np.tensordot(layer.weights[...], layer.basis[...], 1) for layer in (blur.layer, whole.layer))
    left, sigma, right = np.linalg.svd(np.reshape(full, (-1, 15)), full_matrices=False)
    expected = np.sqrt((sigma[rank:] ** 2).sum() / (sigma**2).sum())
    close(blur.error, expected)
    close(np.linalg.norm(truncated - full) / np.linalg.norm(full), expected)
    error, _ = error_matrix(psfs, positions, space, window, rank)
    close(np.linalg.norm(error) / np.linalg.norm(full), expected)
    close(truncated.reshape(-1, 15), left[:, :rank] * sigma[:rank] @ right[:rank])
    close((np.asarray(blur.layer.weights[...]) ** 2).mean((0, 1)), np.ones(rank))


def test_no_image_has_an_error_above_the_bound():
    psfs = np.zeros((6, 3, 5, 1, 1))
    psfs[0], psfs[1] = case(GRID)[0], 1.0  # with a constant kernel, whose errors add up
    error, bound = error_matrix(jnp.asarray(psfs), GRID, SPACE, None, 1)
    assert np.linalg.norm(error, 2) < bound < 5 * np.linalg.norm(error, 2)


@pytest.mark.slow
def test_bound_counts_pixels_that_padding_repeats():
    psfs = np.zeros((2, 9, 1, 1))
    psfs[:, 0], psfs[1, 8] = 10.0, 1.0  # the error is in the last tap: at every position, it reads pixel 0
    error, bound = error_matrix(jnp.asarray(psfs), [[-1], [9]], (5,), cl.Window(9, padding="EDGE"), 1)
    assert np.linalg.norm(error, 2) <= bound


def test_equal_psfs_are_a_convolution():
    psf, x = case(GRID)[0], gaussian((*SPACE, 1), seed=1)[0]
    blur = algebra.varying_blur(jnp.stack([psf] * len(SCATTERED)), SCATTERED, SPACE)
    assert blur.layer.layout.tying.rank == 1
    close(blur.layer.weights[...], np.ones((*SPACE, 1)))
    close(blur.layer.basis[0], np.flip(psf, (0, 1)))
    close(apply(blur.layer, x), cl.conv(x, algebra.flip(psf)))
    assert blur.error < 1e-14


def test_blur_of_nothing_has_no_error():
    blur = algebra.varying_blur(0 * case(GRID), GRID, SPACE)
    assert blur.layer.basis.shape == (1, 3, 5, 1, 1)
    assert blur.error == blur.operator_error == 0


@pytest.mark.parametrize("positions", [GRID, SCATTERED])
def test_psfs_that_keep_the_brightness_keep_it_everywhere(positions):
    psfs = jnp.abs(case(positions))
    layer = algebra.varying_blur(psfs / psfs.sum((1, 2), keepdims=True), positions, SPACE).layer
    kernels = np.tensordot(layer.weights[...], layer.basis[...], 1)
    close(kernels.sum((2, 3)), np.ones((*SPACE, 1, 1)))
    assert kernels.min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [1, 3])
def test_blur_varies_over_one_and_three_axes(ndim):
    space, positions = (5, 3, 4)[:ndim], np.eye(2, ndim) * 3
    psfs, (x,) = case(positions, (3, 3, 1)[:ndim]), gaussian((*space, 1), seed=1)
    blur = algebra.varying_blur(psfs, positions, space, interpolation="inverse_distance")
    close(apply(blur.layer, x), blurred(psfs, positions, x, inverse_distance))


def test_operator_of_lineax_equals_the_layer():
    pytest.importorskip("lineax")
    blur, (x, y) = algebra.varying_blur(case(GRID), GRID, SPACE, rank=2), gaussian((*SPACE, 1), (*SPACE, 1), seed=1)
    operator = blur.to_lineax()
    close(operator.mv(x), apply(blur.layer, x))
    close(operator.T.mv(y), apply(blur.adjoint, y))


def test_operator_without_lineax_raises_an_error_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lineax", None)
    with pytest.raises(ImportError, match=r"lineax is needed here but missing.*\[lineax\]"):
        algebra.varying_blur(case(GRID), GRID, SPACE).to_lineax()


@pytest.mark.slow
def test_layer_and_errors_are_those_of_traced_psfs_with_a_given_rank():
    psfs = case(GRID)
    traced = jax.jit(lambda psfs: algebra.varying_blur(psfs, GRID, SPACE, rank=2))(psfs)
    blur = algebra.varying_blur(psfs, GRID, SPACE, rank=2)
    close((traced.layer.basis[...], traced[1:]), (blur.layer.basis[...], blur[1:]))
    with pytest.raises(ValueError, match="rank must be an integer where psfs is traced"):
        jax.eval_shape(lambda psfs: algebra.varying_blur(psfs, GRID, SPACE), psfs)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"positions": GRID[:-1]}, r"positions has shape \(5, 2\) but psfs .* needs \(6, 2\)"),
        ({"positions": [*GRID[:-1], GRID[0]]}, r"positions must differ, but \(2.0, -1.0\) occurs more than once"),
        ({"positions": [*GRID[:-1], (1, np.nan)]}, "positions must be finite"),
        ({"positions": [*GRID[:-1], (1, 1)], "interpolation": "linear"}, "'linear' needs positions on a full grid"),
        ({"interpolation": "cubic"}, "interpolation 'cubic' is unknown; needs one of linear, inverse_distance"),
        ({"rank": 7}, "rank must be at most 6"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"space": (11,)}, r"space has \(1,\) axes but psfs of shape"),
        ({"window": cl.Window(3)}, r"psfs holds kernels of \(3, 5\) taps"),
    ],
)
def test_wrong_arguments_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        algebra.varying_blur(**({"psfs": case(GRID), "positions": GRID, "space": SPACE} | changes))
