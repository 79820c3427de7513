"""What `test_sharding` runs where there are eight devices: spread over them, every op and its derivatives stay the same."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from strategies import gaussian

import convlab as cl
from convlab.kernels import sharding, table

pytestmark = pytest.mark.usefixtures("float64")
ROWS, BATCH, BOTH = {"i": 8}, {"n": 8}, {"n": 2, "i": 4}
N, C, D = 8, 3, 2
GATHERS = ("all-gather", "all-to-all", "reduce-scatter", "collective-broadcast")


def on(sizes, kind=AxisType.Auto):
    """A mesh with axes of these sizes as the ambient one."""
    return jax.set_mesh(jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes)))


def lay(array, *names):
    """Lay an array on the ambient mesh, as far as it has axes of these names and divides."""
    names = [name if name and array.shape[at] % sharding.axis_size(name) == 0 else None for at, name in enumerate(names)]
    names = [name if name in jax.sharding.get_abstract_mesh().axis_names else None for name in names]
    return jax.device_put(array, NamedSharding(jax.sharding.get_mesh(), P(*names)))


def derivatives(op):
    """The layer and its gradients by image and kernels, one function of x, kernels and the cotangent."""

    def all_of_them(g, x, *kernels):
        h, transpose = jax.vjp(op, x, *kernels)
        return h, *transpose(g)

    return all_of_them


def moves(compiled):
    """Kinds of collectives in a compiled function, and the pairs of devices that its permutations join."""
    text = compiled.as_text()
    kinds = {kind for kind in (*GATHERS, "all-reduce", "collective-permute") if re.search(rf" {kind}(-start)?\(", text)}
    pairs = re.findall(r"source_target_pairs=\{(.*?)\}\}?,", text)
    return kinds, {tuple(map(int, pair)) for group in pairs for pair in re.findall(r"(\d+),(\d+)", group)}


def check(op, sizes, x, *kernels, rows=()):
    """Compare a spread op, and its gradients, with the plain one; return how data moved. `rows`: kernels that have rows."""
    (g,) = gaussian(jax.eval_shape(op, x, *kernels).shape, seed=9)
    expected = jax.jit(derivatives(op))(g, x, *kernels)
    with on(sizes):
        kernels = [lay(kernel, "i" if at in rows else None) for at, kernel in enumerate(kernels)]
        inputs = (lay(g, "n", "i"), lay(x, "n", "i"), *kernels)
        out = [array.sharding for array in inputs]
        compiled = jax.jit(derivatives(op), out_shardings=tuple(out)).lower(*inputs).compile()
        close(compiled(*inputs), expected)
    return moves(compiled)


def neighbours(pairs, size=4):
    """Whether every pair of devices stands side by side on a ring of `size`, in rings of consecutive numbers."""
    return all(a // size == b // size and (a - b) % size in (1, size - 1) for a, b in pairs)


WINDOWS = {
    "same lower, wider than two blocks": ((8, 5), cl.Window((6, 3), padding="SAME_LOWER")),
    "valid": ((16, 5), cl.Window((9, 2), padding="VALID")),
    "valid, strided": ((24, 7), cl.Window((9, 3), (2, 3), "VALID")),
    "full, dilated": ((16, 4), cl.Window(3, 1, "FULL", (4, 1))),
    "rows between windows": ((32, 4), cl.Window((2, 3), (4, 1), "VALID")),
    "ring": ((16, 5), cl.Window((3, 4), 1, "CIRCULAR", (2, 1))),
    "ring of more turns than one": ((8, 3), cl.Window((9, 2), 1, "CIRCULAR", (3, 1))),
    "mirror": ((8, 5), cl.Window((6, 3), padding="REFLECT")),
    "edge": ((16, 5), cl.Window((6, 3), 2, padding="EDGE")),
    "causal": ((16,), cl.Window((4,), padding="CAUSAL", dilation=2)),
    "volume": ((8, 3, 2), cl.Window((3, 2, 2))),
    "every offset": ((8, 3), cl.Window.full((8, 3))),
}
UNEVEN = {  # pixel rows that eight devices do not divide, but output rows that they do
    "valid": ((18, 5), cl.Window(3, padding="VALID")),
    "ring": ((15, 5), cl.Window(4, 2, "CIRCULAR")),
    "mirror": ((15, 4), cl.Window(3, 2, "REFLECT")),
}


def local(space, window):
    x, v = gaussian((N, *space, 2 * C), (*window.output_shape(space), *window.taps(len(space)), C, 2 * D))
    return functools.partial(cl.locally_connected, window=window, groups=2, implementation="windows"), x, v


@pytest.mark.parametrize("name", WINDOWS)
def test_rows_of_a_locally_connected_layer_are_fetched_from_neighbours_alone(name):
    op, x, v = local(*WINDOWS[name])
    kinds, pairs = check(op, ROWS, x, v, rows=(0,))
    assert kinds <= {"collective-permute"}
    assert neighbours(pairs, 8)


@pytest.mark.parametrize("name", UNEVEN)
def test_pixel_rows_that_do_not_divide_enter_whole(name):
    op, x, v = local(*UNEVEN[name])
    check(op, ROWS, x, v, rows=(0,))


@pytest.mark.parametrize("space", [(7, 5), (12, 3)])
def test_output_rows_that_do_not_divide_are_left_to_the_compiler(space):
    op, x, v = local(space, cl.Window(3))
    check(op, ROWS, x, v)


@pytest.mark.parametrize(
    "family, name", [(family, name) for family, entry in table.FAMILIES.items() for name in entry.implementations]
)
def test_every_implementation_is_differentiated_on_each_device_alone(family, name):
    window, space = cl.Window((2, 3)), (4, 5)
    ops = {"local": (cl.locally_connected, space), "conv": (cl.conv, ()), "tiled": (cl.tiled, (2, 2))}
    op, positions = ops[family]
    x, v = gaussian((N, *space, C), (*positions, 2, 3, C, D))
    check(functools.partial(op, window=window, implementation=name), BOTH, x, v)


def ops():
    window, space = cl.Window((3, 2), (2, 1)), (16, 5)
    v, tiles, basis, weights = gaussian((3, 2, C, D), (2, 3, 3, 2, C, D), (2, 3, 2, C, D), (8, 5, 2))
    (w,) = gaussian((4, 3, *space, C, D))
    yield "conv", functools.partial(cl.conv, window=window), [v], ()
    yield "tiled", functools.partial(cl.tiled, window=window), [tiles], ()
    for how in ("kernels", "outputs"):
        yield how, functools.partial(cl.low_rank, window=window, implementation=how), [basis, weights], (1,)
    yield "dense", cl.dense, [w], (0,)


@pytest.mark.parametrize("sizes", [BATCH, BOTH], ids=lambda sizes: "+".join(sizes))
@pytest.mark.parametrize("name, op, kernels, rows", list(ops()), ids=lambda value: value if isinstance(value, str) else "")
def test_batch_and_rows_are_spread_at_once(name, op, kernels, rows, sizes):
    (x,) = gaussian((N, 16, 5, C), seed=3)
    kinds, pairs = check(op, sizes, x, *kernels, rows=rows)
    assert kinds <= {"all-reduce", "collective-permute"}
    assert neighbours(pairs)
    assert bool(pairs) == ("i" in sizes)


def test_tiles_that_a_block_of_rows_would_cut_are_spread_over_the_batch_only():
    x, tiles = gaussian((N, 8, 5, C), (3, 1, 3, 3, C, D))
    check(functools.partial(cl.tiled, window=cl.Window(3)), BOTH, x, tiles)


@pytest.mark.parametrize("pixels", [16, 15])
def test_a_dense_layer_passes_its_image_round_the_ring(pixels):
    x, w = gaussian((N, pixels, 3, C), (8, 2, pixels, 3, C, D))
    kinds, pairs = check(cl.dense, ROWS, x, w, rows=(0,))
    assert kinds <= ({"all-reduce", "all-gather"} if pixels % 8 else {"collective-permute"})
    assert neighbours(pairs, 8)


def step(windows, kernels, x):
    """Two locally connected layers, the loss, its gradients and new kernels."""

    def loss(kernels):
        h = x
        for v, window in zip(kernels, windows, strict=True):
            h = jnp.tanh(cl.locally_connected(h, v, window, implementation="windows"))
        return jnp.mean(h**2)

    value, gradients = jax.value_and_grad(loss)(kernels)
    return value, [v - g for v, g in zip(kernels, gradients, strict=True)]


@pytest.mark.parametrize("sizes", [ROWS, BOTH], ids=lambda sizes: "+".join(sizes))
@pytest.mark.parametrize("pixels, size, stride, padding", [(16, 3, 1, "SAME"), (32, (9, 3), 1, "VALID"), (32, 3, 2, "SAME")])
def test_a_training_step_gathers_neither_kernels_nor_images(pixels, size, stride, padding, sizes):
    window = cl.Window(size, stride, padding)
    first = window.output_shape((pixels, 8))
    taps = window.taps(2)
    x, *kernels = gaussian((N, pixels, 8, C), (*first, *taps, C, D), (*window.output_shape(first), *taps, D, C))
    run = functools.partial(step, (window, window))
    expected = jax.jit(run)(kernels, x)
    with on(sizes):
        inputs = [lay(v, "i") for v in kernels], lay(x, "n", "i")
        compiled = jax.jit(run, out_shardings=(None, [v.sharding for v in inputs[0]])).lower(*inputs).compile()
        close(compiled(*inputs), expected)
    kinds, pairs = moves(compiled)
    assert kinds == {"all-reduce", "collective-permute"}
    assert neighbours(pairs, sizes["i"])
    if sizes == ROWS:  # only the loss is summed: kernels and their gradients lie where they are used
        assert set(re.findall(r"(\S+) all-reduce", compiled.as_text())) == {"f64[]"}


def test_no_more_rows_are_sent_than_windows_reach():
    op, x, v = local((32, 5), cl.Window((4, 3)))  # one row below, two above
    with on(ROWS):
        text = jax.jit(op).lower(lay(x, None, "i"), lay(v, "i")).compile().as_text()
    sent = re.findall(r"f64\[2,8,(\d+),5,3\]\S* collective-permute", text)
    assert sorted(sent) == ["1", "2"]


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR"])
def test_an_infinite_pixel_reaches_only_the_outputs_that_see_it(padding):
    window, space = cl.Window((9, 3), padding=padding), (16, 6)
    op, x, v = local(space, window)
    x[:, 7, 2] = np.inf
    sees = (window.reads(space) == 7 * 6 + 2).any((-1, -2))
    with on(BOTH):
        h = jax.jit(op)(x, v)
        gradient = jax.jit(jax.grad(lambda v: op(x, v).sum()))(v)
    np.testing.assert_array_equal(np.isfinite(h), np.broadcast_to(~sees[..., None], h.shape))
    np.testing.assert_array_equal(np.isfinite(gradient).all((2, 3, 4, 5)), ~sees)


@pytest.mark.parametrize("op", [0, 1], ids=["local", "dense"])
def test_transformations_of_a_spread_op_are_those_of_the_plain_one(op):
    f, x, v = [local((8, 5), cl.Window((3, 2))), (cl.dense, *gaussian((N, 8, 3, C), (4, 2, 8, 3, C, D)))][op]
    tangents = gaussian(x.shape, v.shape, seed=4)

    def loss(x, v):
        return jnp.sum(jnp.sin(f(x, v)))

    def several(x, v):
        _, forward = jax.jvp(f, (x, v), tuple(tangents))
        _, second = jax.jvp(jax.grad(loss, (0, 1)), (x, v), tuple(tangents))
        images = jax.vmap(f, (0, None))(jnp.stack([x, 2 * x]), v)
        kernels = jax.vmap(jax.grad(loss, 1))(x[:, None], jnp.stack([v] * N))
        scanned = jax.lax.scan(lambda x, scale: (jax.checkpoint(jax.grad(loss))(x * scale, v), None), x, jnp.arange(1.0, 3))[0]
        return forward, second, images, kernels, scanned

    expected = jax.jit(several)(x, v)
    with on(BOTH):
        for got, wanted in zip(*map(jax.tree.leaves, (jax.jit(several)(x, v), expected)), strict=True):
            size = max(1, np.abs(np.asarray(wanted)).max())
            close(np.asarray(got) / size, np.asarray(wanted) / size)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_batch_that_does_not_divide_is_spread_over_rows_only(n):
    op, x, v = local((8, 5), cl.Window(3))
    check(op, BOTH, x[:n], v, rows=(0,))


def test_one_image_and_several_batch_axes_are_spread_too():
    op, x, v = local((8, 5), cl.Window(3))
    with on(BOTH):
        close(jax.jit(op)(x[0], v), op(x, v)[0])
        close(jax.jit(op)(x.reshape(2, 4, *x.shape[1:]), v).reshape(N, 8, 5, -1), op(x, v))


@pytest.mark.parametrize("manual", [{"n"}, {"i"}, {"n", "i"}], ids=sorted)
def test_axes_that_a_caller_maps_over_are_his(manual):
    op, x, v = local((8, 5), cl.Window((3, 2)))
    gradient = jax.grad(lambda x, v: jnp.sum(jnp.sin(op(x, v))))
    expected = jax.jit(gradient)(x, v)
    with on(BOTH):
        batch = P("n") if "n" in manual else P()
        mapped = jax.shard_map(gradient, in_specs=(batch, P()), out_specs=batch, axis_names=manual)
        close(jax.jit(mapped)(x, v), expected)


def test_an_op_outside_jit_and_one_on_explicit_axes_are_right():
    op, x, v = local((8, 5), cl.Window(3))
    expected = op(x, v)
    with on(BOTH):
        close(op(x, v), expected)
        close(jax.grad(lambda v: op(x, v).sum())(v), derivatives(op)(jnp.ones_like(expected), x, v)[2])
    with on(BOTH, AxisType.Explicit):
        close(jax.jit(op)(x, v), expected)


def test_the_ambient_mesh_says_what_is_split():
    with on(BOTH):
        assert (sharding.axis_size("n"), sharding.axis_size("i"), sharding.axis_size("j")) == (2, 4, 1)
        assert [sharding.parts("i", count) for count in (8, 6, 0)] == [4, 1, 1]
        assert [sharding.parts("i", count, 3) for count in (12, 16, 24)] == [4, 1, 4]
    with on(BOTH, AxisType.Explicit):
        assert sharding.axis_size("i") == 1
