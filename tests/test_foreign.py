"""Kernels of other libraries: the same numbers make the same function there and here."""

import functools

import compiled as cl
import flax.linen
import jax
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from strategies import gaussian

from convlab import foreign

SPACE, SIZE, C, D = (7, 5), (3, 2), 2, 11
LOCAL = [  # space, taps, strides: unequal along the axes, so that no two can be swapped
    ((7, 5), (3, 2), (2, 1)),
    ((11,), (3,), (2,)),
    ((5, 3, 4), (2, 3, 1), (1, 1, 2)),
]
each_local = pytest.mark.parametrize("space, size, strides", LOCAL, ids=["2d", "1d", "3d"])


@pytest.fixture(autouse=True)
def double_precision(float64):
    """Laws hold to 1e-12."""


def local_kernel(window, space, d=D, seed=0):
    """A Gaussian kernel with dead taps at zero, as lifting leaves it."""
    (v,) = gaussian((*window.output_shape(space), *window.size, C, d), seed=seed)
    return np.where(window.live(space)[..., None, None], v, 0)


# --- PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "space, size, strides, pads", [((11,), (3,), 2, 1), ((7, 5), (3, 2), (2, 1), (2, 1)), ((5, 3, 7), (2, 3, 1), 1, 0)]
)
def test_torch_kernels_make_the_same_convolution(space, size, strides, pads, groups):
    torch = pytest.importorskip("torch")
    x, weight = gaussian((2, *space, C * groups), (3 * groups, C, *size))
    conv = getattr(torch.nn.functional, f"conv{len(space)}d")
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    expected = conv(channels_first, torch.from_numpy(weight), stride=strides, padding=pads, groups=groups)
    window = cl.Window(size, strides, (pads,) * len(space) if isinstance(pads, int) else pads)
    v = compiled(foreign.from_torch)(weight)
    close(cl.conv(x, v, window, groups), np.moveaxis(expected.numpy(), 1, -1))
    np.testing.assert_array_equal(compiled(foreign.to_torch)(v), weight)


@pytest.mark.parametrize("size", [(3,), (3, 2), (2, 3, 5)], ids=str)
def test_torch_kernels_hold_out_channels_then_in_channels_then_taps(size):
    (v,) = gaussian((*size, C, D))
    weight = np.asarray(foreign.to_torch(v))
    assert weight.shape == (D, C, *size)
    for tap in np.ndindex(*size):
        np.testing.assert_array_equal(weight[(slice(None), slice(None), *tap)], v[tap].T)
    np.testing.assert_array_equal(foreign.from_torch(weight), v)


# --- Flax's ConvLocal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["VALID", "SAME", [(2, 1), (0, 1)]], ids=str)
def test_linen_conv_local_computes_the_same_from_the_written_kernel(padding):
    window = cl.Window(SIZE, (2, 1), padding)
    v = local_kernel(window, SPACE)
    (x,) = gaussian((3, *SPACE, C), seed=1)
    module = flax.linen.ConvLocal(D, SIZE, strides=(2, 1), padding=padding, use_bias=False)
    kernel = compiled(foreign.to_linen_local)(v)
    assert kernel.shape == jax.eval_shape(module.init, jax.random.key(0), x)["params"]["kernel"].shape
    close(jax.jit(module.apply)({"params": {"kernel": kernel}}, x), cl.locally_connected(x, v, window))


@each_local
def test_locally_connected_equals_lax_with_its_kernel(space, size, strides):
    rank, window = len(space), cl.Window(size, strides, "VALID")
    kernel, x = gaussian((*window.output_shape(space), C * int(np.prod(size)), D), (3, *space, C), seed=2)
    letters = "DHW"[-rank:]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    options = {"window_strides": strides, "padding": "VALID", "filter_shape": size, "dimension_numbers": numbers}
    expected = jax.jit(functools.partial(jax.lax.conv_general_dilated_local, **options))(x, kernel)
    v = compiled(foreign.from_linen_local)(kernel, window)
    close(cl.locally_connected(x, v, window), expected)
    np.testing.assert_array_equal(compiled(foreign.to_linen_local)(v), kernel)


@each_local
def test_linen_local_kernels_survive_a_round_trip(space, size, strides):
    window = cl.Window(size, strides)
    v = local_kernel(window, space)
    back = compiled(foreign.from_linen_local)(compiled(foreign.to_linen_local)(v), window)
    np.testing.assert_array_equal(back, v)


# --- Keras -----------------------------------------------------------------------------------------------------------


def keras_1(x, kernel, out, size, strides):
    """Keras' implementation 1 from its definition: row q of the kernel meets the patch of position q, flattened."""
    h = np.zeros((len(x), *out, kernel.shape[-1]))
    for n in range(len(x)):
        for q, position in enumerate(np.ndindex(*out)):
            corner = [s * i for s, i in zip(strides, position, strict=True)]
            patch = [
                x[(n, *(k + a for k, a in zip(corner, tap, strict=True)), c)]
                for tap in np.ndindex(*size)
                for c in range(x.shape[-1])
            ]
            h[(n, *position)] = np.array(patch) @ kernel[q]
    return h


def keras_2(x, kernel, mask, rank):
    """Keras' implementation 2 from its definition: masked dense weight (*in, c, *out, d), flattened to one matrix."""
    out, d = kernel.shape[rank + 1 : -1], kernel.shape[-1]
    inputs = int(np.prod(kernel.shape[: rank + 1]))
    matrix = (kernel * mask).reshape(inputs, -1)
    return (x.reshape(len(x), inputs) @ matrix).reshape(len(x), *out, d)


def keras_mask(reads, space, d):
    """1 where Keras connects: a pixel inside the window of a position; (*in, c, *out, d)."""
    mask = np.zeros((*space, C, *oracle.out_shape(reads), d))
    for position, _, pixel in oracle.each_tap(reads):
        mask[(*pixel, slice(None), *position)] = 1
    return mask


@each_local
def test_keras_implementation_1_computes_the_same(space, size, strides):
    window = cl.Window(size, strides, "VALID")
    out = window.output_shape(space)
    kernel, x = gaussian((int(np.prod(out)), int(np.prod(size)) * C, D), (3, *space, C))
    v = compiled(foreign.from_keras_local_1)(kernel, window, space)
    close(cl.locally_connected(x, v, window), keras_1(x, kernel, out, size, strides))
    np.testing.assert_array_equal(compiled(foreign.to_keras_local_1)(v), kernel)


@pytest.mark.parametrize("space, size, strides, padding", [*((*case, "VALID") for case in LOCAL), (*LOCAL[0], "SAME")], ids=str)
def test_keras_implementation_2_computes_the_same(space, size, strides, padding):
    window, rank = cl.Window(size, strides, padding), len(space)
    reads = oracle.tables(space, size, strides, (1,) * rank, padding)
    mask = keras_mask(reads, space, 3)
    kernel, x = gaussian(mask.shape, (3, *space, C))
    v = compiled(foreign.from_keras_local_2)(kernel, window, space)
    close(cl.locally_connected(x, v, window), keras_2(x, kernel, mask, rank))
    np.testing.assert_array_equal(compiled(foreign.to_keras_local_2)(v, window, space), kernel * mask)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@each_local
def test_keras_kernels_survive_a_round_trip(space, size, strides, padding):
    window = cl.Window(size, strides, padding)
    v = local_kernel(window, space, 3)

    @jax.jit
    def both(v):
        first, second = foreign.to_keras_local_1(v), foreign.to_keras_local_2(v, window, space)
        return foreign.from_keras_local_1(first, window, space), foreign.from_keras_local_2(second, window, space)

    for back in both(v):
        np.testing.assert_array_equal(back, v)


# --- what is refused -------------------------------------------------------------------------------------------------

WINDOW = cl.Window((3, 3), padding="VALID")  # on (4, 5): positions (2, 3)
MISFITS = [
    (
        lambda: foreign.from_torch(np.ones((7, 2))),
        ValueError,
        r"kernel has shape \(7, 2\); needs one axis per spatial axis",
    ),
    (lambda: foreign.from_torch(np.ones((7, 2, 3), int)), TypeError, "kernel has dtype int64 but needs a floating one"),
    (lambda: foreign.to_torch(np.ones((2, 7))), ValueError, r"v has shape \(2, 7\)"),
    (
        lambda: foreign.from_linen_local(np.ones((2, 3, 19, 7)), WINDOW),
        ValueError,
        r"kernel fuses 19 entries, but whole windows of \(3, 3\) taps need a multiple of 9",
    ),
    (lambda: foreign.from_linen_local(np.ones((2, 18, 7)), WINDOW), ValueError, "has 2 spatial axes but 1 are needed"),
    (
        lambda: foreign.to_linen_local(np.ones((2, 3, 3, 2, 7))),
        ValueError,
        r"v has shape .* and one axis per spatial axis",
    ),
    (lambda: foreign.from_keras_local_1(np.ones((2, 3, 18, 7)), WINDOW, (4, 5)), ValueError, r"kernel has \(4,\) axes"),
    (
        lambda: foreign.from_keras_local_1(np.ones((5, 18, 7)), WINDOW, (4, 5)),
        ValueError,
        r"kernel holds \(5,\) positions but .* has \(6,\)",
    ),
    (lambda: foreign.from_keras_local_1(np.ones((6, 20, 7)), WINDOW, (4, 5)), ValueError, "kernel fuses 20 entries"),
    (lambda: foreign.from_keras_local_1(np.ones((6, 18, 7), int), WINDOW, (4, 5)), TypeError, "needs a floating one"),
    (lambda: foreign.to_keras_local_1(np.ones((6, 18, 7))), ValueError, r"v has shape \(6, 18, 7\)"),
    (
        lambda: foreign.from_keras_local_2(np.ones((5, 4, 2, 2, 3, 7)), WINDOW, (4, 5)),
        ValueError,
        r"holds weights for \(5, 4\) pixels but space is \(4, 5\)",
    ),
    (
        lambda: foreign.from_keras_local_2(np.ones((4, 5, 2, 3, 2, 7)), WINDOW, (4, 5)),
        ValueError,
        r"holds kernels for \(3, 2\) positions",
    ),
    (
        lambda: foreign.to_keras_local_2(np.ones((3, 2, 3, 3, 2, 7)), WINDOW, (4, 5)),
        ValueError,
        r"v holds kernels for \(3, 2\) positions",
    ),
]


@pytest.mark.parametrize("call, error, message", MISFITS, ids=lambda value: value if isinstance(value, str) else "")
def test_refuses_kernels_that_do_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()
