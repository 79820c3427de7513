"""Test every rung against the matrix of its lift to a dense layer."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from flax import nnx
from strategies import gaussian

import convlab as cl
from convlab.rungs import RUNGS, ByPixel, Layout, Shared, Start, Untied, contains, transfer, with_rung
from convlab.testing import assert_matches_dense, assert_same_function

pytestmark = pytest.mark.usefixtures("float64")

GEOMETRIES = {  # window, pixels
    "same": (cl.Window((3, 2), padding="SAME"), (5, 3)),
    "strides": (cl.Window((2, 3), strides=(2, 1), padding="SAME"), (7, 3)),
    "larger than the image": (cl.Window((5, 5)), (2, 3)),
    "dilated": (cl.Window((3, 3), padding=((0, 2), (1, 1)), dilation=(1, 2)), (5, 3)),
    "circular": (cl.Window((3, 2), padding="CIRCULAR"), (2, 5)),
    "reflect": (cl.Window((3, 3), padding="REFLECT"), (3, 5)),
    "edge": (cl.Window((4, 3), padding="EDGE"), (3, 2)),
    "causal": (cl.Window((3,), padding="CAUSAL"), (7,)),
    "volume": (cl.Window((2, 2, 3)), (2, 3, 2)),
}
LONG = ("strides", "circular", "edge", "volume")
every_geometry = pytest.mark.parametrize(
    "geometry", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in GEOMETRIES]
)
every_rung = pytest.mark.parametrize("rung", RUNGS)
LINEAR = [rung for rung, kind in RUNGS.items() if kind.is_linear]


def layout_of(rung, geometry, c=1, d=1, **parameters):
    window, space = GEOMETRIES[geometry]
    return with_rung(Layout(Untied(), window, c, d, space), rung, **parameters)


def draw(layout, seed=0):
    shapes = layout.tying.shapes(layout)
    return dict(zip(shapes, gaussian(*shapes.values(), seed=seed), strict=True))


def function(layout, arrays):
    return lambda x: layout.forward(x, arrays, None)


@functools.cache
def matrix(layout):
    """Return the matrix from kernel entries of a linear rung to dense weights, by differentiation."""
    zeros = {name: jnp.zeros(shape) for name, shape in layout.tying.shapes(layout).items()}
    lift = jax.jacobian(lambda arrays: transfer(arrays, layout, with_rung(layout, ByPixel.name)))(zeros)
    return np.asarray(lift["kernel"]["kernel"]).reshape(-1, zeros["kernel"].size)


@every_geometry
@pytest.mark.parametrize("rung", LINEAR)
def test_projecting_is_the_pseudoinverse_of_lifting_and_dead_entries_are_its_zero_columns(rung, geometry):
    layout = layout_of(rung, geometry)
    dense = with_rung(layout, ByPixel.name)
    w, m = draw(dense), matrix(layout)
    nearest = transfer(w, dense, layout)["kernel"]
    close(nearest, (np.linalg.pinv(m) @ w["kernel"].ravel()).reshape(nearest.shape), 1e-12)
    if layout.tying.by_pixel:
        close(nearest, w["kernel"], 0)
    assert layout.tying.dead(layout) == (0 if layout.tying.by_pixel else (np.abs(m).sum(0) == 0).sum())


@every_geometry
@every_rung
def test_every_rung_matches_its_dense_matrix_in_outputs_norm_and_multiply_adds(rung, geometry):
    layout = layout_of(rung, geometry, 2, 3)
    dense = with_rung(layout, ByPixel.name)
    arrays = draw(layout)
    w, [x] = np.asarray(transfer(arrays, layout, dense)["kernel"]), gaussian((*layout.space, 2), seed=1)
    assert_matches_dense(function(layout, arrays), w, tolerance=1e-10)
    close(layout.forward(x, arrays, None), oracle.dense(x, w), 1e-10)
    close(layout.tying.squared_norm(arrays, layout), (w**2).sum(), 1e-9)
    products = sum(1 for _ in oracle.each_tap(oracle.tables(layout.space, *window_of(layout)))) * 6
    mixing = np.prod(layout.positions) * 3
    expected = products if rung != "low_rank" else layout.tying.rank * (products + mixing)
    assert layout.tying.multiply_adds(layout) == (w.size if layout.tying.by_pixel else expected)


def window_of(layout):
    window = layout.window
    return window.size, window.strides, window.dilation, window.padding


@pytest.mark.parametrize("freer", LINEAR)
@pytest.mark.parametrize("stricter", LINEAR)
def test_contains_is_true_exactly_where_one_matrix_spans_the_other(stricter, freer):
    small, large = (layout_of(rung, "same", period=2) for rung in (stricter, freer))
    spans = np.linalg.matrix_rank(np.hstack([matrix(large), matrix(small)])) == np.linalg.matrix_rank(matrix(large))
    assert contains(large, small) == spans


@every_rung
def test_low_rank_contains_lower_ranks_and_tiled_contains_dividing_periods(rung):
    layouts = {n: layout_of(rung, "same", period=n, rank=n) for n in (1, 2, 3)}
    for (n, large), (m, small) in ((large, small) for large in layouts.items() for small in layouts.items()):
        divides = all(p % min(m, i) == 0 for p, i in zip(np.minimum(n, large.positions), large.positions, strict=True))
        assert contains(large, small) == {"tiled": divides, "low_rank": n >= m}.get(rung, True)


@every_geometry
@every_rung
def test_lifting_to_every_freer_rung_is_exact_and_projection_inverts_it(rung, geometry):
    layout = layout_of(rung, geometry, 2, 3)
    arrays = draw(layout)
    for name in (name for name, kind in RUNGS.items() if RUNGS[rung].within(kind)):
        free = with_rung(layout, name, period=2)
        if not contains(free, layout):
            continue
        lifted = transfer(arrays, layout, free)
        assert_same_function(function(free, lifted), function(layout, arrays), (*layout.space, 2), tolerance=1e-10)
        if free.tying.by_pixel and not layout.tying.is_linear:
            continue  # a dense layer does not hold the dead taps of a low-rank kernel, so its rank is lost
        back = transfer(lifted, free, layout)
        assert_same_function(function(layout, back), function(layout, arrays), (*layout.space, 2), tolerance=1e-10)
        if layout.tying.is_linear and free.tying.tile(free) != free.positions:  # kernels are repeated exactly
            v, w = layout.tying.kernels(arrays, layout), free.tying.kernels(lifted, free)
            repeats = np.indices(free.tying.tile(free)) % np.reshape(layout.tying.tile(layout), (-1, *(1,) * layout.ndim))
            live = np.asarray(w) != 0
            np.testing.assert_array_equal(np.asarray(w)[live], np.asarray(v)[tuple(repeats)][live])


@every_rung
def test_initial_arrays_have_the_declared_shapes_with_position_axes_first(rung):
    layout = layout_of(rung, "same", 2, 3)
    arrays = layout.start(jax.random.key(0), Start(jax.nn.initializers.lecun_normal(), jnp.float32))
    assert {name: array.shape for name, array in arrays.items()} == layout.tying.shapes(layout)
    assert tuple(arrays) == layout.tying.arrays
    for name, array in arrays.items():
        assert (name in layout.tying.rows) == (array.shape[:2] == layout.positions)


@every_rung
def test_initial_outputs_have_the_variance_of_a_convolution(rung):
    if not (kind := RUNGS[rung]).has_noise and kind is not Shared:
        pytest.skip("taps are tied, so that products are not independent")
    layout = dataclasses.replace(layout_of(rung, "same", 17, 64), use_bias=False)
    conv = with_rung(layout, Shared.name)
    initialisation = Start(jax.nn.initializers.lecun_normal(), jnp.float64)
    [x] = gaussian((64, *layout.space, 17), seed=1)
    ours, theirs = (one.forward(x, one.start(jax.random.key(0), initialisation), None).var((0, -1)) for one in (layout, conv))
    np.testing.assert_allclose(ours, theirs, rtol=0.35)


def test_convolution_becomes_tiled_or_low_rank_without_being_written_out_for_all_positions():
    conv = Layout(Shared(), cl.Window((3, 3)), 32, 32, (128, 128))
    kernel = jax.ShapeDtypeStruct((3, 3, 32, 32), jnp.float32)
    written_out = 128 * 128 * 9 * 32 * 32 * 4
    for rung in ("tiled", "low_rank"):
        free = with_rung(conv, rung)
        back = lambda arrays, free=free: transfer(transfer(arrays, conv, free), free, conv)  # noqa: E731
        there = lambda arrays, free=free: transfer(arrays, conv, free)  # noqa: E731
        for way in (there, back) if free.tying.is_linear else (there,):
            memory = jax.jit(way).lower({"kernel": kernel}).compile().memory_analysis()
            assert memory.temp_size_in_bytes + memory.output_size_in_bytes < written_out / 100


def test_arrays_with_position_axes_are_identified_by_name_not_by_shape():
    build = lambda: cl.LowRank(2, 3, (3,), rank=5, space=(5,), padding=((1, 1),), use_bias="position", rngs=nnx.Rngs(0))  # noqa: E731
    layer = nnx.eval_shape(build)
    assert layer.basis.shape[:1] == layer.layout.positions
    assert layer.layout.rows == ("weights", "bias")
    assert nnx.eval_shape(lambda: cl.Conv(2, 3, (3,), space=(5,), use_bias="position", rngs=nnx.Rngs(0))).layout.rows == ()


def group(taps, dilation):
    """Yield all flips of the spatial axes and exchanges of axes with equal size and dilation."""
    axes = range(len(taps))
    for order in itertools.permutations(axes):
        if all((taps[a], dilation[a]) == (taps[b], dilation[b]) for a, b in zip(axes, order, strict=True)):
            for flipped in itertools.product((False, True), repeat=len(taps)):
                where = tuple(axis for axis, is_flipped in enumerate(flipped) if is_flipped)
                yield lambda v, order=order, where=where: np.flip(np.transpose(v, (*order, *range(len(order), v.ndim))), where)


@pytest.mark.parametrize(
    "window",
    [cl.Window((3, 3)), cl.Window((4, 4)), cl.Window((3, 2)), cl.Window((3, 3), dilation=(1, 2)), cl.Window((3, 2, 3))],
)
def test_symmetric_kernels_are_exactly_those_unchanged_when_flipped_and_turned(window):
    layout = with_rung(Layout(Untied(), window, 1, 1, (5,) * window.ndim), "symmetric")
    [v] = gaussian((*window.size, 1, 1))
    symmetries = [*group(window.size, window.dilation or (1,) * window.ndim)]
    mean = np.mean([turn(v) for turn in symmetries], 0)
    circular = dataclasses.replace(layout, window=dataclasses.replace(window, padding="CIRCULAR"))  # no tap is dead
    one = (0,) * window.ndim
    close(circular.tying.kernels(circular.tying.project(jnp.asarray(v[(None,) * window.ndim]), circular), circular)[one], mean)
    arrays = draw(layout)
    kernel = np.asarray(layout.tying.kernels(arrays, layout))[one]
    for turn in symmetries:
        np.testing.assert_array_equal(turn(kernel), kernel)
    assert (
        len(np.unique(kernel))
        == arrays["kernel"].size
        == np.linalg.matrix_rank(
            [np.ravel(np.mean([turn(unit) for turn in symmetries], 0)) for unit in np.eye(v.size).reshape(-1, *window.size)]
        )
    )


@pytest.mark.parametrize(
    "size, padding, strides, commutes",
    [(3, "SAME", 1, True), (4, "SAME", 1, False), (4, "VALID", 1, True), (3, "VALID", 2, True), (3, "SAME", 2, False)],
)
def test_symmetric_layer_commutes_with_rotations_where_its_outputs_lie_symmetrically(size, padding, strides, commutes):
    space = (6, 6) if padding == "SAME" else (7, 7)
    layer = cl.layers.connect("symmetric", 2, 3, size, strides, padding=padding, space=space, rngs=nnx.Rngs(0))
    [x] = gaussian((*space, 2))
    turned, after = np.asarray(layer(np.rot90(x))), np.rot90(np.asarray(layer(x)))
    assert np.allclose(turned, after, atol=1e-5) == commutes


@pytest.mark.parametrize("changed", [{"window": cl.Window((5, 5))}, {"space": (7, 5)}, {"in_features": 3}, {"out_features": 3}])
def test_layouts_that_differ_in_more_than_the_rung_are_refused(changed):
    old = Layout(Shared(), cl.Window((3, 3)), 2, 2, (5, 7))
    new = dataclasses.replace(with_rung(old, "locally_connected"), **changed)
    [name] = changed
    with pytest.raises(ValueError, match=f"new has {name} .*; needs .*, as old has"):
        transfer(draw(old), old, new)
