"""Multiply-adds of any network against the compiler, formulas and published counts."""

import dataclasses
import functools
import math
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P
from networks import SMALL

import convlab as cl
from convlab.calls import recorded
from convlab.layers import CONNECTIVITY, Layer, connect
from convlab.measure.cost.products import tally


def shapes(build):
    """The shapes of a network that `build` makes from random streams."""
    return nnx.eval_shape(lambda: build(nnx.Rngs(0)))


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def flops(op, *arrays):
    """The number of operations by XLA's analysis of the compiled op."""
    return jax.jit(op).lower(*arrays).compile().cost_analysis()["flops"]


def products(op, *arrays):
    """The multiply-adds of a function, and the operations that are unknown."""
    result = tally(jax.make_jaxpr(op)(*arrays).jaxpr, lambda equation, stack: ("op", None))
    assert {name: n for (owner, name), n in result.amounts.items() if owner == "op"} == {
        name: n for (owner, name), n in result.amounts.items() if owner is None
    }
    return result.amounts[None, "multiply_adds"], sorted(name for owner, name in result.unknown if owner is None)


class Applied(nnx.Module):
    """A network with some parts and a function of them and the images."""

    def __init__(self, function, **parts):
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x):
        return self.function(self, x)


def applied(function, **builds):
    return shapes(lambda rngs: Applied(function, **{name: build(rngs) for name, build in builds.items()}))


def linear(c, d):
    return lambda rngs: nnx.Linear(c, d, rngs=rngs)


def rows(model, image_shape):
    layers, total = cl.count(model, image_shape)
    assert total.weights == sum(row.weights for row in layers)
    return {row.name: (row.multiply_adds, row.unknown) for row in layers} | {"total": (total.multiply_adds, total.unknown)}


# --- single operations against the compiler --------------------------------------------------------------------------


@settings(max_examples=15)
@given(data=st.data())
def test_a_convolution_counts_products_with_pixels_only(data):
    ints = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    pixels, taps, stride, spread, dilation = (ints(1, top) for top in (11, 5, 4, 4, 3))
    low, high = ints(-1, 7), ints(0, 7)
    groups, batch_groups = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    if spread * (pixels - 1) + 1 + low + high < dilation * (taps - 1) + 1:
        high += dilation * taps
    op = functools.partial(
        lax.conv_general_dilated,
        window_strides=[stride],
        padding=[(low, high)],
        lhs_dilation=[spread],
        rhs_dilation=[dilation],
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=groups,
        batch_group_count=batch_groups,
    )
    c, d, n = 2 * groups, 6, 4
    outputs = jax.eval_shape(op, floats(n, pixels, c), floats(taps, 2, d)).shape[1]
    expected = 0
    for i in range(outputs):
        for a in range(taps):
            position = stride * i + dilation * a - low
            expected += 0 <= position <= spread * (pixels - 1) and position % spread == 0
    assert products(op, floats(n, pixels, c), floats(taps, 2, d)) == (expected * (n // batch_groups) * 2 * d, [])


OPERATIONS = {
    "einsum of four arrays": (
        lambda a, b, c, e: jnp.einsum("nij,njk,kl,nl->ni", a, b, c, e),
        [floats(2, 3, 5), floats(2, 5, 7), floats(7, 11), floats(2, 11)],
    ),
    "batched dot": (jnp.matmul, [floats(2, 3, 5, 7), floats(3, 7, 11)]),
    "transposed convolution": (
        lambda x, v: lax.conv_transpose(x, v, (2, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        [floats(2, 5, 4, 3), floats(3, 2, 3, 7)],
    ),
    "grouped convolution": (
        lambda x, v: lax.conv_general_dilated(
            x, v, (1, 2), "SAME", feature_group_count=3, dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        [floats(2, 5, 4, 6), floats(3, 2, 2, 9)],
    ),
    "compiled inside": (lambda a, b: jax.jit(jnp.dot)(jax.checkpoint(jnp.dot)(a, b), b), [floats(5, 5), floats(5, 5)]),
    "unrolled loop": (lambda a, b: lax.fori_loop(0, 4, lambda _, a: a @ b, a, unroll=True), [floats(3, 5), floats(5, 5)]),
}


@pytest.mark.parametrize("op, arrays", OPERATIONS.values(), ids=OPERATIONS)
def test_the_compiler_counts_two_operations_for_every_multiply_add(op, arrays):
    counted, unknown = products(op, *arrays)
    assert (2 * counted, unknown) == (flops(op, *arrays), [])


def test_gradients_count_the_products_that_they_compute():
    a, b = floats(3, 5), floats(5, 7)
    assert products(jax.grad(lambda a, b: (a @ b).sum(), (0, 1)), a, b) == (3 * 105, [])
    x, v = floats(2, 7, 5, 3), floats(3, 2, 3, 4)
    forward, _ = products(functools.partial(cl.conv, window=cl.Window((3, 2), 2)), x, v)
    assert products(jax.grad(lambda x, v: (cl.conv(x, v, cl.Window((3, 2), 2)) ** 2).sum(), (0, 1)), x, v) == (3 * forward, [])


def square(a):
    return a @ a


forward, backward = jax.custom_jvp(square), jax.custom_vjp(square)
forward.defjvps(lambda t, _, a: t @ a + a @ t)
backward.defvjp(lambda a: (a @ a, a), lambda a, g: (g @ a.T + a.T @ g,))


A = floats(3, 3)
KNOWN = {  # function of a 3x3 matrix -> its number of matrix products
    "scan": (lambda a: lax.scan(lambda c, _: (c @ a, c), a, None, 5)[0], 5),
    "scan in scan": (
        lambda a: lax.scan(lambda c, _: (lax.fori_loop(0, 3, lambda _, c: c @ a, c) @ c, None), a, None, 5)[0],
        20,
    ),
    "scan of no step": (lambda a: lax.scan(lambda c, _: (c @ a, c), a, None, 0)[0], 0),
    "map": (lambda a: lax.map(lambda row: a @ row, a), 1),
    "vmap": (lambda a: jax.vmap(square)(jnp.stack([a] * 7)), 7),
    "equal branches": (lambda a: lax.cond(a[0, 0] > 0, square, lambda a: a @ a.T, a), 1),
    "custom derivatives": (lambda a: forward(a) @ backward(a), 3),
    "gradients of custom derivatives": (lambda a: jax.grad(lambda a: (forward(a) + backward(a)).sum())(a), 6),
    "checkpoint": (jax.checkpoint(square), 1),
    "loop without products": (lambda a: lax.while_loop(lambda a: a.sum() < 9, lambda a: a + 1, a) @ a, 1),
    "no products": (lambda a: jnp.sort(nnx.gelu(a * a).cumsum(0)) + jax.random.normal(jax.random.key(0), (3, 3)), 0),
    "one device": (
        lambda a: jax.shard_map(square, mesh=jax.make_mesh((1,), ("i",)), in_specs=P(), out_specs=P(), check_vma=False)(a),
        1,
    ),
}


@pytest.mark.parametrize("op, number", KNOWN.values(), ids=KNOWN)
def test_products_inside_other_operations_are_counted(op, number):
    assert products(op, A) == (27 * number, [])


UNKNOWN = {  # function of a 3x3 matrix -> the number of products that it surely has, and what is unknown
    "while": (lambda a: lax.while_loop(lambda a: a.sum() < 9, square, a) @ a, 1, ["while"]),
    "condition": (lambda a: lax.while_loop(lambda a: (a @ a).sum() < 9, lambda a: a + 1, a), 0, ["while"]),
    "while in scan": (
        lambda a: lax.scan(lambda c, _: (lax.while_loop(lambda c: c.sum() < 9, square, c) @ a, None), a, None, 5)[0],
        5,
        ["while"],
    ),
    "branches": (lambda a: lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, square, a), 1, ["cond"]),
    "an empty branch": (lambda a: lax.cond(a[0, 0] > 0, square, lambda a: a, a), 0, ["cond"]),
    "unknown in a branch": (lambda a: lax.cond(a[0, 0] > 0, lambda a: jnp.linalg.cholesky(a), lambda a: a, a), 0, ["cholesky"]),
    "decompositions": (lambda a: jnp.linalg.qr(a)[0] @ jnp.linalg.cholesky(a), 1, ["cholesky", "qr"]),
    "callback": (lambda a: jax.pure_callback(lambda a: a, A, a), 0, ["pure_callback"]),
    "fft": (lambda a: jnp.fft.rfft(a).real, 0, ["fft"]),
    "ragged": (lambda a: lax.ragged_dot(a, a[None], jnp.array([2])) @ a, 1, ["ragged_dot_general"]),
}


@pytest.mark.parametrize("op, number, unknown", UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_known_is_named_and_the_products_that_are_sure_are_counted(op, number, unknown):
    counted, named = products(op, A)
    assert counted == 27 * number
    assert {*unknown} <= {*named} <= {*unknown, "householder_product"}


# --- convlab's layers: the rung's count and the program's ------------------------------------------------------------


def program_of(layer, shape):
    definition, state = nnx.split(layer)
    return products(lambda state, x: nnx.merge(definition, state)(x), state, floats(1, *shape))


@pytest.mark.parametrize("connectivity", [rung for rung in CONNECTIVITY if rung != "low_rank"])
def test_the_programs_products_are_those_of_the_rung_and_of_its_transpose(connectivity):
    for strides, padding in ((1, "SAME"), ((2, 1), "CIRCULAR"), ((1, 3), "VALID")):
        layer = shapes(
            lambda rngs, s=strides, p=padding: connect(connectivity, 2, 3, (3, 2), s, padding=p, space=(7, 5), rngs=rngs)
        )
        total = cl.count(layer, (7, 5, 2)).total
        assert program_of(layer, (7, 5, 2)) == (total.multiply_adds, [])
        layout = dataclasses.replace(layer.layout, transposed=True, use_bias=False)
        back = cl.count(shapes(lambda rngs, layout=layout: Layer.from_layout(layout, rngs=rngs)), (*layout.positions, 3)).total
        assert back.output_shape == (7, 5, 2)
        assert (back.multiply_adds, back.unknown) == (total.multiply_adds, ())
        biases = math.prod(layer.layout.bias_shape)
        assert (back.weights, back.live_weights) == (total.weights - biases, total.live_weights - biases)


def test_a_low_rank_layer_counts_as_convolutions_and_a_mixture_however_it_is_computed():
    for rank in (1, 11):  # with many kernels, one image is computed with the kernels of positions
        layer = shapes(lambda rngs, r=rank: cl.LowRank(2, 3, (3, 2), rank=r, space=(7, 5), padding="VALID", rngs=rngs))
        assert cl.count(layer, (7, 5, 2)).total.multiply_adds == rank * 5 * 4 * (36 + 3)


def test_a_layer_of_convlab_on_several_images_at_once_counts_all_of_them():
    conv = functools.partial(cl.Conv, 2, 3, (3, 2))
    for apply in (lambda model, x: model.conv(x), lambda model, x: jax.vmap(model.conv)(x[0])):
        model = applied(apply, conv=lambda rngs: conv(rngs=rngs))
        once = cl.count(model.conv, (7, 5, 2)).total
        total = cl.count(model, (13, 7, 5, 2)).total
        assert (total.multiply_adds, total.activations) == (13 * once.multiply_adds, 13 * once.activations)
        assert (total.input_bytes, total.output_bytes) == (13 * once.input_bytes, 13 * once.output_bytes)


def test_methods_of_a_layer_other_than_its_call_count_their_operations():
    class Doubtful(cl.LowRank):
        def mixed(self):
            return jnp.tensordot(self.weights[...], self.basis[...], 1).sum()

    def build(rngs):
        return Doubtful(2, 3, (3, 2), rank=4, space=(7, 5), use_bias=False, rngs=rngs)

    model = applied(lambda model, x: model.layer(x) * model.layer.mixed(), layer=build)
    mixing = 7 * 5 * 4 * 36
    assert cl.count(model, (7, 5, 2)).total.multiply_adds == cl.count(model.layer, (7, 5, 2)).total.multiply_adds + mixing


@pytest.mark.parametrize("kind", [nnx.Conv, cl.Conv])
def test_a_network_that_follows_a_gradient_counts_its_products_too(kind):
    def apply(model, x):
        return jax.grad(lambda x: (model.conv(x) ** 2).sum())(x)

    model = applied(apply, conv=lambda rngs: kind(2, 3, (3, 2), strides=(1, 2), rngs=rngs))
    once = cl.count(model.conv, (7, 5, 2)).total
    [row], total = cl.count(model, (7, 5, 2))
    assert row.multiply_adds == total.multiply_adds == 2 * once.multiply_adds
    assert row.activations == once.activations


@pytest.mark.parametrize("network", SMALL)
def test_the_total_is_the_sum_of_the_rows_and_nothing_is_unknown(network):
    build, shape = SMALL[network]
    layers, total = cl.count(shapes(lambda rngs: build(rngs=rngs)), shape)
    assert total.multiply_adds == sum(row.multiply_adds for row in layers)
    assert {row.unknown for row in (*layers, total)} == {()}


# --- stock layers ----------------------------------------------------------------------------------------------------

STOCK = {  # layer of Flax -> (its builder, shape of its input, its multiply-adds)
    "Linear": (lambda rngs: nnx.Linear(5, 3, rngs=rngs), (7, 5), 7 * 15),
    "LinearGeneral": (lambda rngs: nnx.LinearGeneral((5, 2), (3, 4), axis=(-2, -1), rngs=rngs), (7, 5, 2), 7 * 120),
    "Einsum": (lambda rngs: nnx.Einsum("abc,cde->abde", (2, 3, 4), (3, 4), rngs=rngs), (7, 2), 7 * 24),
    "masked Conv": (
        lambda rngs: nnx.Conv(2, 3, (3, 2), padding="VALID", mask=jnp.ones((3, 2, 2, 3)), rngs=rngs),
        (7, 5, 2),
        5 * 4 * 36,
    ),
    "dilated Conv": (lambda rngs: nnx.Conv(2, 3, (3,), input_dilation=2, padding=1, rngs=rngs), (4, 2), 6 * (4 + 2 * 3 - 0)),
    "ConvTranspose": (lambda rngs: nnx.ConvTranspose(2, 3, (3, 2), 2, padding="VALID", rngs=rngs), (7, 5, 2), 35 * 36),
    "LoRALinear": (lambda rngs: nnx.LoRALinear(5, 3, lora_rank=2, rngs=rngs), (5,), 15 + 2 * 8),
    "LayerNorm": (lambda rngs: nnx.LayerNorm(5, rngs=rngs), (7, 5), 0),
    "GroupNorm": (lambda rngs: nnx.GroupNorm(6, 2, rngs=rngs), (7, 6), 0),
    "PReLU": (lambda rngs: nnx.PReLU(), (7, 5), 0),
}


@pytest.mark.parametrize("build, shape, multiply_adds", STOCK.values(), ids=STOCK)
def test_stock_layers_have_a_row_with_their_products_outputs_and_weights(build, shape, multiply_adds):
    model = nnx.eval_shape(lambda: nnx.Sequential(build(nnx.Rngs(0)), nnx.relu))
    layers, total = cl.count(model, shape)
    assert (total.multiply_adds, total.unknown) == (multiply_adds, ())
    assert total.weights == sum(array.size for array in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert layers[0].name == "layers/0"
    if len(layers) == 1:
        definition, state = nnx.split(model)
        output = jax.eval_shape(lambda state, x: nnx.merge(definition, state)(x), state, floats(1, *shape)).shape
        assert layers[0].output_shape == output[1:] == total.output_shape
        assert layers[0].activations == math.prod(output)


def test_every_matrix_of_attention_and_both_products_of_tokens_are_counted():
    model = applied(
        lambda model, x: model.attend(x),
        attend=lambda rngs: nnx.MultiHeadAttention(4, 6, 8, decode=False, rngs=rngs),
    )
    assert rows(model, (7, 6)) == {
        "attend": (2 * 7 * 7 * 8, ()),
        **{f"attend/{name}": (7 * 48, ()) for name in ("query", "key", "value", "out")},
        "total": (4 * 7 * 48 + 2 * 7 * 7 * 8, ()),
    }


def test_a_linen_module_has_a_row_too():
    def build(rngs):
        return nnx.bridge.ToNNX(linen.Conv(3, (3, 2), padding="VALID"), rngs=rngs).lazy_init(jnp.ones((1, 7, 5, 2)))

    model = applied(lambda model, x: model.conv(x), conv=build)
    assert rows(model, (7, 5, 2)) == {"conv": (5 * 4 * 36, ()), "total": (5 * 4 * 36, ())}


def test_recurrent_cells_count_once_for_every_step():
    def build(rngs):
        return nnx.RNN(nnx.LSTMCell(2, 3, rngs=rngs), rngs=rngs)

    counted = rows(applied(lambda model, x: model.rnn(x), rnn=build), (5, 2))
    assert counted["total"] == (5 * 4 * (2 * 3 + 3 * 3), ())
    assert sum(n for name, (n, _) in counted.items() if name != "total") == counted["total"][0]


def test_tables_and_tied_weights_are_counted_where_they_are_used():
    def apply(model, x):
        return model.embed.attend(model.embed(jnp.argmax(x, -1)))

    model = applied(apply, embed=lambda rngs: nnx.Embed(11, 3, rngs=rngs))
    assert rows(model, (7, 5)) == {"embed": (7 * 33, ()), "total": (7 * 33, ())}
    tied = nnx.Sequential(
        nnx.Linear(5, 5, use_bias=False, rngs=nnx.Rngs(0)), nnx.Linear(5, 5, use_bias=False, rngs=nnx.Rngs(0))
    )
    tied.layers[1].kernel = tied.layers[0].kernel
    layers, total = cl.count(tied, (7, 5))
    assert [(row.name, row.weights, row.multiply_adds) for row in layers] == [("layers/0", 25, 175), ("layers/1", 0, 175)]
    assert (total.weights, total.multiply_adds) == (25, 350)


# --- attribution to modules ------------------------------------------------------------------------------------------


def test_functions_belong_to_the_module_in_whose_call_they_stand():
    inner = lambda rngs: Applied(lambda model, x: model.scale(x) @ jnp.ones((3, 2)), scale=nnx.LayerNorm(3, rngs=rngs))  # noqa: E731
    model = applied(lambda model, x: model.inner(x) @ jnp.ones((2, 11)), inner=inner)
    assert rows(model, (7, 3)) == {"": (7 * 22, ()), "inner": (7 * 6, ()), "inner/scale": (0, ()), "total": (7 * 28, ())}


def test_rows_are_in_the_order_of_calls_and_modules_that_are_not_called_come_last():
    def apply(model, x):
        return model.c(model.b(model.c(x)))

    model = applied(apply, a=linear(3, 3), b=linear(3, 3), c=linear(3, 3))
    layers, total = cl.count(model, (3,))
    assert [(row.name, row.multiply_adds, row.output_shape) for row in layers] == [
        ("c", 18, (3,)),
        ("b", 9, (3,)),
        ("a", 0, ()),
    ]
    assert (total.weights, total.multiply_adds) == (36, 27)


class Nested(nnx.Module):
    """A module that holds an array, a layer and, except for the last, another module of its class."""

    def __init__(self, depth, rngs):
        self.kernel, self.drop = nnx.Param(jnp.ones((3, 3))), nnx.Dropout(0.5, rngs=rngs)
        self.layer = nnx.Linear(3, 3, rngs=rngs)
        self.inner = Nested(depth - 1, rngs) if depth else None

    def __call__(self, x):
        x = self.drop(self.layer(x)) @ self.kernel[...]
        return x if self.inner is None else self.inner(x)


def test_layers_are_recorded_at_any_depth_and_modules_without_arrays_are_none():
    layers, total = cl.count(shapes(lambda rngs: Nested(1, rngs)), (7, 3))
    costs = [(row.name, row.weights, row.multiply_adds, row.activations) for row in layers]
    assert costs == [("", 9, 63, 0), ("layer", 12, 63, 21), ("inner", 9, 63, 0), ("inner/layer", 12, 63, 21)]
    assert (total.weights, total.multiply_adds, total.activations) == (42, 252, 42)


class Whole(nnx.Module):
    """A module with a compiled, a recomputed and a plain method."""

    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)

    @nnx.jit
    def compiled(self, x):
        return self.one(x) @ jnp.ones((3, 3))

    @nnx.remat
    def recomputed(self, x):
        return self.two(x)

    def __call__(self, x):
        return self.recomputed(self.compiled(self.compiled(x)))


def test_transforms_of_flax_do_not_hide_operations_and_equal_functions_are_not_mixed_up():
    model = applied(lambda model, x: model.b(model.a(x)), a=Whole, b=Whole)
    expected = {f"{name}{part}": (n, ()) for name in "ab" for part, n in {"": 18, "/one": 18, "/two": 9}.items()}
    assert rows(model, (3,)) == expected | {"total": (90, ())}
    assert cl.count(model, (3,)).total.activations == 2 * 3 * 3


@pytest.mark.parametrize("kind", [nnx.Conv, cl.Conv])
def test_stacked_layers_in_a_scan_count_every_layer(kind):
    def build(rngs):
        keys = jax.random.split(rngs.params(), 5)
        return nnx.vmap(lambda key: kind(2, 2, (3, 2), rngs=nnx.Rngs(key)))(keys)

    def apply(model, x):
        return nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, model.blocks)

    [row], total = cl.count(applied(apply, blocks=build), (7, 1, 2))
    alone = cl.count(shapes(lambda rngs: kind(2, 2, (3, 2), rngs=rngs)), (7, 1, 2)).total
    for name in ("weights", "live_weights", "multiply_adds", "bytes", "activations", "input_bytes", "output_bytes"):
        assert getattr(row, name) == getattr(total, name) == 5 * getattr(alone, name)
    assert row.live_weights < row.weights


def test_of_experts_of_equal_cost_the_total_is_known_and_the_rows_are_not():
    def apply(model, x):
        return nnx.cond(x.sum() > 0, lambda model, x: model.a(x), lambda model, x: model.b(x), model, x)

    assert rows(applied(apply, a=linear(3, 3), b=linear(3, 3)), (7, 3)) == {
        "a": (0, ("cond",)),
        "b": (0, ("cond",)),
        "total": (63, ()),
    }


def test_a_loop_of_unknown_length_is_unknown_in_its_row_and_at_least_in_the_total():
    def apply(model, x):
        x = nnx.while_loop(lambda pair: pair[1].sum() < 9, lambda pair: (pair[0], pair[0].a(pair[1])), (model, model.b(x)))[1]
        return jnp.fft.fft(model.b(x)).real

    model = applied(apply, a=linear(3, 3), b=linear(3, 3))
    expected = {"": (0, ("fft",)), "b": (126, ()), "a": (0, ("while",)), "total": (126, ("while", "fft"))}
    assert rows(model, (7, 3)) == expected
    printed = str(cl.summary(model, (7, 3), ("layer", "multiply_adds", "unknown", "intensity")))
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    assert {first: columns for first, *columns in cells} == {
        "": ["?", "fft", "?"],
        "b": ["126", "", cells[1][3]],
        "a": ["?", "while", "?"],
        "total": ["at least 126", "while, fft", cells[3][3]],
    }
    assert cells[3][3].startswith("at least 0.")


def test_modules_without_arrays_as_arguments_or_outputs_are_counted():
    class Position(nnx.Module):
        def __init__(self, rngs):
            self.table = nnx.Param(jnp.ones((7, 3)))

        def __call__(self):
            return self.table[...]

    class Split(nnx.Module):
        def __init__(self, rngs):
            self.kernel = nnx.Param(jnp.ones((3, 4)))

        def __call__(self, x):
            return tuple(jnp.split(x @ self.kernel[...], 2, -1))

    model = applied(lambda model, x: model.split(x + model.position())[0], position=Position, split=Split)
    assert rows(model, (7, 3)) == {"position": (0, ()), "split": (84, ()), "total": (84, ())}


class Slow(nnx.Module):
    """A network that is slow to trace, so that threads which trace such networks meet."""

    def __init__(self, depth):
        self.layers = nnx.List([nnx.Conv(1, 1, (3, 3), rngs=nnx.Rngs(0)) for _ in range(depth)])

    def __call__(self, x):
        for layer in self.layers:
            time.sleep(0.01)
            x = layer(x)
        return x


def test_threads_count_their_networks_alone_and_leave_the_classes_as_they_were():
    before, networks = {kind: kind.__call__ for kind in (Slow, nnx.Conv)}, [Slow(depth) for depth in (1, 2, 3, 5)]
    with ThreadPoolExecutor(len(networks)) as pool:
        counted = [*pool.map(lambda network: cl.count(network, (5, 7, 1)).total.multiply_adds, networks)]
    [single, *_] = counted
    assert single
    assert counted == [single, 2 * single, 3 * single, 5 * single]
    assert {kind: kind.__call__ for kind in before} == before


def test_calls_of_other_threads_are_not_recorded():
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    with recorded(nnx.Linear) as calls, ThreadPoolExecutor(1) as pool:
        pool.submit(layer, jnp.ones((5, 3))).result()
    assert calls == []


def test_counting_leaves_the_classes_as_they_were():
    before = {kind: dict(vars(kind)) for kind in (Whole, nnx.Linear, cl.Conv, cl.layers.Layer, nnx.MultiHeadAttention)}
    cl.count(applied(lambda model, x: model.a(x), a=Whole), (3,))
    cl.count(shapes(lambda rngs: cl.Conv(3, 2, (3,), rngs=rngs)), (5, 3))
    with pytest.raises(ValueError, match="does not fit"):
        cl.count(shapes(lambda rngs: nnx.MultiHeadAttention(4, 6, 8, decode=False, rngs=rngs)), (7, 5))
    assert all(dict(vars(kind)) == entries for kind, entries in before.items())


# --- published networks of stock Flax layers -------------------------------------------------------------------------


class Bottleneck(nnx.Module):
    """The block of ResNet-50, with the stride in the 3x3 convolution."""

    def __init__(self, c, width, stride, rngs):
        conv = functools.partial(nnx.Conv, use_bias=False, rngs=rngs)
        norm = functools.partial(nnx.BatchNorm, rngs=rngs)
        self.reduce, self.norm1 = conv(c, width, (1, 1)), norm(width)
        self.conv, self.norm2 = conv(width, width, (3, 3), stride, padding=1), norm(width)
        self.expand, self.norm3 = conv(width, 4 * width, (1, 1)), norm(4 * width)
        self.shortcut = conv(c, 4 * width, (1, 1), stride) if c != 4 * width else None

    def __call__(self, x):
        h = nnx.relu(self.norm1(self.reduce(x)))
        h = self.norm3(self.expand(nnx.relu(self.norm2(self.conv(h)))))
        return nnx.relu(h + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(nnx.Module):
    def __init__(self, rngs):
        self.stem, self.norm = nnx.Conv(3, 64, (7, 7), 2, padding=3, use_bias=False, rngs=rngs), nnx.BatchNorm(64, rngs=rngs)
        c, blocks = 64, []
        for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
            for number in range(depth):
                blocks.append(Bottleneck(c, width, 2 if number == 0 and width > 64 else 1, rngs))
                c = 4 * width
        self.blocks, self.head = nnx.List(blocks), nnx.Linear(2048, 1000, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.norm(self.stem(x))), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def on_padding(n, size, stride):
    """The number of taps on padding of `size // 2` pixels, of all positions on n x n pixels."""
    out, low = -(-n // stride), size // 2
    inside = sum(0 <= stride * i + a - low < n for i in range(out) for a in range(size))
    return (out * size) ** 2 - inside**2


def test_resnet_50_has_its_published_multiply_adds_without_those_on_padding():
    total = cl.count(shapes(ResNet50), (224, 224, 3)).total
    padding = 3 * 64 * on_padding(224, 7, 2)
    for width, depth, n in ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)):
        first = on_padding(n, 3, 1) if width == 64 else on_padding(2 * n, 3, 2)
        padding += width**2 * (first + (depth - 1) * on_padding(n, 3, 1))
    assert total.multiply_adds + padding == 4_089_184_256  # 4.089 billion at torchvision, 4.1 elsewhere
    assert 0.96 < total.multiply_adds / 4_089_184_256 < 1
    assert total.unknown == ()
    assert total.output_shape == (1000,)


class Encoder(nnx.Module):
    def __init__(self, width, heads, hidden, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.one, self.two = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.two(nnx.gelu(self.one(self.norm2(x))))


class ViT(nnx.Module):
    def __init__(self, rngs, *, patch=16, width=768, depth=12, heads=12, hidden=3072, tokens=197, classes=1000):
        self.patches = nnx.Conv(3, width, (patch, patch), patch, padding="VALID", rngs=rngs)
        self.token, self.position = nnx.Param(jnp.zeros((1, 1, width))), nnx.Param(jnp.zeros((1, tokens, width)))
        self.blocks = nnx.List([Encoder(width, heads, hidden, rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x).reshape(len(x), -1, self.token.shape[-1])
        x = jnp.concatenate([jnp.broadcast_to(self.token[...], (len(x), 1, x.shape[-1])), x], 1) + self.position[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


@pytest.mark.slow
def test_vit_b_16_has_its_published_multiply_adds_and_weights():
    layers, total = cl.count(shapes(ViT), (224, 224, 3))
    assert round(total.multiply_adds / 1e9, 2) == 17.56  # 17.564 billion at torchvision, 17.6 elsewhere
    assert total.weights == 86_567_656
    tokens, d = 197, 768
    blocks = 12 * (4 * tokens * d * d + 2 * tokens**2 * d + 2 * tokens * d * 3072)
    assert total.multiply_adds == 196 * 768 * d + blocks + 1000 * d
    attention = [row for row in layers if row.kind == "MultiHeadAttention"]
    assert [row.multiply_adds for row in attention] == [2 * tokens**2 * d] * 12
    assert total.unknown == ()


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda rngs: ViT(rngs, patch=4, width=64, depth=2, heads=4, hidden=128, tokens=17, classes=10), (16, 16, 3)),
        (lambda rngs: Bottleneck(32, 64, 2, rngs), (9, 11, 32)),
        (lambda rngs: nnx.Sequential(*(nnx.ConvTranspose(16, 16, (4, 3), 2, rngs=rngs) for _ in range(2))), (5, 7, 16)),
        (lambda rngs: cl.models.LeNet((13, 12, 2), 3, rngs=rngs), (13, 12, 2)),
    ],
    ids=["ViT", "ResNet", "decoder", "LeNet"],
)
def test_the_compiler_counts_twice_the_multiply_adds_and_some_operations_on_single_elements(build, shape):
    model = shapes(build)
    model.eval()
    definition, state = nnx.split(model)
    total = cl.count(model, shape).total
    compiled = flops(lambda state, x: nnx.merge(definition, state)(x), state, floats(1, *shape))
    assert 1 <= compiled / (2 * total.multiply_adds) < 1.2
