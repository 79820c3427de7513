"""Receptive fields of layers against the pixels that reach an output, and against the formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import filled
from strategies import gaussian

import convlab as cl

SHAPE = (31, 29, 2)


def shapes(kind, *sizes, **options):
    """The shapes of a network or layer."""
    return nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))


def pool(reduce, *window):
    return functools.partial(reduce, window=cl.Window(*window))


def chain(*makers):
    """A function that builds a sequence of layers and functions."""
    return lambda: nnx.Sequential(*(maker() if getattr(maker, "makes", False) else maker for maker in makers))


def layer(kind, *sizes, **options):
    def make():
        return kind(*sizes, **options, rngs=nnx.Rngs(0))

    make.makes = True
    return make


class Branches(nnx.Module):
    """Two branches of different widths and strides, a residual connection, and nested calls."""

    def __init__(self, connectivity="conv"):
        rngs = nnx.Rngs(0)
        self.wide = cl.Conv(2, 4, (3, 5), (2, 2), padding=((2, 0), (1, 3)), rngs=rngs)
        self.deep = cl.Conv(4, 4, (5, 1), rngs=rngs)
        self.point = nnx.Conv(2, 4, (1, 1), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)

    def __call__(self, x):
        shortcut = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (1, 1)))
        h = jax.checkpoint(lambda h: self.deep(nnx.gelu(h)))(self.wide(x)) + shortcut
        h = jnp.concatenate([h, self.point(x)[..., :2]], -1)
        return jax.jit(nnx.softplus)(self.norm(smooth(h)))


class Sides(nnx.Module):
    """Two layers whose windows extend to opposite sides."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.before = cl.Conv(2, 2, (3, 2), padding=((2, 0), (1, 0)), rngs=rngs)
        self.after = nnx.Conv(2, 2, (3, 2), padding=((0, 2), (0, 1)), rngs=rngs)

    def __call__(self, x):
        return self.before(x) + self.after(x)


@jax.custom_vjp
def smooth(x):
    return jnp.tanh(x)


smooth.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g,))

NETWORKS = {
    "pooled": chain(
        layer(cl.Conv, 2, 3, (3, 2)),
        nnx.relu,
        pool(cl.max_pool, 2, 2, "VALID"),
        layer(cl.Conv, 3, 2, (3, 2), (1, 2), kernel_dilation=(2, 3)),
    ),
    "blocks": chain(
        layer(cl.Conv, 2, 16, (2, 3)), pool(cl.max_pool, (3, 2), (3, 2), "VALID"), pool(cl.mean_pool, 2, 2, "VALID")
    ),
    "flax": chain(
        layer(nnx.Conv, 2, 2, (3, 4), strides=(2, 1)),
        lambda x: nnx.max_pool(x, (3, 2), (1, 2)),
        lambda x: nnx.avg_pool(x, (2, 3), (2, 1), "SAME"),
        layer(nnx.Linear, 2, 3),
    ),
    "around": chain(layer(cl.Conv, 2, 2, (3, 2), padding="CIRCULAR"), pool(cl.blur_pool, (4, 3), (2, 1), "CIRCULAR")),
    "mirrored": chain(pool(cl.max_pool, (2, 3), 2, "EDGE"), pool(cl.mean_pool, (3, 2), 1, "REFLECT")),
    "globe": chain(
        layer(cl.Conv, 2, 2, (3, 2), padding=("SAME", "CIRCULAR")),
        pool(cl.blur_pool, (4, 3), (2, 1), ("CIRCULAR", "EDGE")),
        pool(cl.mean_pool, (2, 3), 2, ("REFLECT", (1, 1))),
    ),
    "rungs": chain(
        layer(cl.Tiled, 2, 2, (2, 3), (2, 1), period=2),
        layer(cl.LowRank, 2, 2, (3, 2), space=(16, 29), rank=2),
        layer(cl.LocallyConnected, 2, 2, (2, 3), (1, 2), space=(16, 29), padding="VALID"),
    ),
    "branches": Branches,
    "sides": Sides,
    "turned": chain(
        layer(cl.Conv, 2, 2, (1, 4), strides=(1, 2)),
        lambda x: jnp.flip(x, 1).transpose(0, 2, 1, 3),
        layer(cl.Conv, 2, 2, (3, 2), strides=(1, 3)),
        lambda x: x.transpose(0, 2, 1, 3),
    ),
}


def reached(model, axis):
    """The first pixel and the extent of the pixels that reach two outputs along an axis.

    The outputs are a central one and the next. One row of pixels at a time is nan, which passes any weight, maximum and
    activation.
    """
    x = np.repeat(gaussian(SHAPE)[0][None].astype(np.float32), SHAPE[axis], 0)
    np.moveaxis(x, axis + 1, 1)[np.arange(SHAPE[axis]), np.arange(SHAPE[axis])] = np.nan
    h = np.moveaxis(np.isnan(jax.jit(model)(x)), axis + 1, 1)
    h = h[:, :, h.shape[2] // 2].any(-1)
    pixels_of = [np.flatnonzero(h[:, position]) for position in (h.shape[1] // 2, h.shape[1] // 2 + 1)]
    return [(pixels[0], pixels[-1] - pixels[0] + 1) for pixels in pixels_of]


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_the_field_ranges_from_the_first_pixel_that_reaches_an_output_to_the_last(build):
    total = cl.count(nnx.eval_shape(build), SHAPE).total
    model = filled(build)
    model.eval()
    for axis in range(2):
        (first, field), (second, same) = reached(model, axis)
        assert (total.receptive_field[axis], total.effective_stride[axis]) == (field, abs(second - first))
        assert field == same


@pytest.mark.parametrize("seed", range(4))
def test_the_field_of_a_chain_follows_its_formula(seed):
    random = np.random.default_rng(seed)
    sizes, strides, dilations = random.integers(1, 6, 7), random.integers(1, 4, 7), random.integers(1, 4, 7)
    layers, expected, field, product = [], [], 1, 1
    for number, (size, stride, dilation) in enumerate(zip(sizes, strides, dilations, strict=True)):
        field, product = field + dilation * (size - 1) * product, product * stride
        if number % 3 == 2:
            layers.append(pool(cl.mean_pool, (int(size),), int(stride), "FULL", int(dilation)))
        else:
            options = {"strides": int(stride), "kernel_dilation": int(dilation), "padding": "FULL"}
            layers.append(layer(cl.Conv, 1, 1, (int(size),), **options))
            expected.append(((field,), (product,)))
    rows = cl.count(nnx.eval_shape(chain(*layers)), (97, 1)).layers
    assert [(row.receptive_field, row.effective_stride) for row in rows] == expected
    plain = nnx.eval_shape(chain(*(layer(cl.Conv, 1, 1, (int(size),)) for size in sizes)))
    assert cl.count(plain, (97, 1)).total.receptive_field == (1 + sum(sizes - 1),)


def test_the_field_can_exceed_a_small_image():
    model = nnx.eval_shape(chain(layer(cl.Conv, 1, 1, (7, 5), (2, 2)), layer(cl.Conv, 1, 1, (7, 5))))
    assert cl.count(model, (7, 5, 1)).total.receptive_field == cl.count(model, (97, 83, 1)).total.receptive_field == (19, 13)


def test_the_field_of_dense_layers_is_the_whole_image_without_an_effective_stride():
    lenet = shapes(cl.models.LeNet, (28, 23, 1), 10)
    rows = {row.name: (row.receptive_field, row.effective_stride) for row in cl.count(lenet, (28, 23, 1)).layers}
    assert rows["stages/0/layer"] == ((5, 5), (1, 1))
    assert rows["stages/1/layer"] == ((14, 14), (2, 2))
    assert rows["head/layers/0"] == rows["head/layers/2"] == ((28, 23), (None, None))
    dense = shapes(cl.models.Net, (13, 11, 2), width=4, depth=3, residual=True, connectivity="dense")
    for row in cl.count(dense, (13, 11, 2)).layers:
        assert (row.receptive_field, row.effective_stride) == ((13, 11), (None, None))


def test_the_field_of_a_pyramid_follows_from_its_windows_and_that_of_its_head_is_the_image():
    for connectivity in ("conv", "tiled", "low_rank", "locally_connected"):
        model = shapes(cl.models.Pyramid, (20, 20, 1), 3, (2, 2, 2), connectivity=connectivity)
        rows = {row.name: (row.receptive_field[0], row.effective_stride[0]) for row in cl.count(model, (20, 20, 1)).layers}
        assert [rows[f"stages/{number}/norm"] for number in range(3)] == [(3, 1), (8, 2), (18, 4)]
        assert rows["head/layers/0"] == (20, None)


class Applied(nnx.Module):
    """A function, followed by a layer."""

    def __init__(self, function):
        self.function = function
        self.layer = cl.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.layer(self.function(x))


def convolve(x, order, strides, dilations):
    """A convolution that is no layer, with 3 by 5 taps."""
    kernel, numbers = jnp.ones((3, 5, 2, 2)), (order, "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", None, dilations, numbers)


def field_and_stride(function):
    row = cl.count(nnx.eval_shape(lambda: Applied(function)), SHAPE).layers[-1]
    return row.receptive_field, row.effective_stride


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.sort(x, 1),
        lambda x: x[:, np.arange(31) * 7 % 31],
        lambda x: jnp.cumsum(x, 1),
        lambda x: x + x[:, ::2].repeat(2, 1)[:, :31],
        lambda x: jnp.concatenate([x, nnx.max_pool(x, (3, 3), padding="SAME")[:, :2]], 1),
        lambda x: x.reshape(1, 29, 31, 2),
        lambda x: jax.lax.fori_loop(0, 2, lambda _, x: x + 1.0, x),
        lambda x: jnp.einsum("nklc,nmlc->nkmc", x, x),
        lambda x: x.reshape(1, -1, 2).reshape(x.shape),
        lambda x: x + jnp.roll(x, 1, 1),
    ],
    ids=["sort", "gather", "cumsum", "strides", "beside", "reshape", "loop", "attention", "flat", "roll"],
)
def test_an_unknown_field_is_none(function):
    field, stride = field_and_stride(function)
    assert (field[0], stride[0]) == (None, None)


@pytest.mark.parametrize(
    "function, field, stride",
    [
        (lambda x: convolve(x, "NHWC", (2, 1), (1, 3)), (3 + 2 * 2, 1 + 3 * 4 + 2), (2, 1)),
        (lambda x: x * x.mean((1, 2), keepdims=True), (31, 29), (None, None)),
        (lambda x: jnp.broadcast_to(x[:, 3:4], x.shape), (1, 3), (None, 1)),
        (lambda x: nnx.softmax(x, axis=2), (3, 29), (1, None)),
        (lambda x: jnp.zeros_like(x), (0, 0), (None, None)),
        (lambda x: jnp.einsum("nklc,cd->dnkl", x, jnp.ones((2, 2))).transpose(1, 2, 3, 0), (3, 3), (1, 1)),
        (lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), "wrap") + jnp.ones((34, 32, 2)), (3, 3), (1, 1)),
        (lambda x: jnp.concatenate(jnp.split(x, 2, -1)[::-1], -1), (3, 3), (1, 1)),
        (lambda x: x[:, 1:] - x[:, :-1], (4, 3), (1, 1)),
        (lambda x: x + jnp.pad(x, ((0, 0), (2, 0), (0, 3), (0, 0)))[:, :31, 3:], (5, 6), (1, 1)),
        (lambda x: x + jnp.pad(x, ((0, 0), (2, 0), (0, 3), (0, 0)), "wrap")[:, :31, 3:], (5, 6), (1, 1)),
        (lambda x: x[:, 1:] + jnp.flip(jnp.flip(x, 1)[:, 1:], 1), (4, 3), (1, 1)),
    ],
    ids=["convolution", "squeeze", "row", "normed", "zero", "mixed", "wrap", "channels", "difference", "pad", "around", "flip"],
)
def test_operations_between_layers_change_the_field(function, field, stride):
    assert field_and_stride(function) == (field, stride)


@pytest.mark.parametrize(
    "kind, options",
    [(nnx.ConvTranspose, {}), (cl.ConvTranspose, {"strides": 2}), (nnx.Conv, {"input_dilation": 2, "padding": 1})],
)
def test_the_field_of_a_layer_with_zeros_between_its_pixels_is_unknown(kind, options):
    assert cl.count(shapes(kind, 2, 2, (3, 3), **options), SHAPE).total.receptive_field == (None, None)
