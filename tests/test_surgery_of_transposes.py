"""Conversion of networks with transposed layers, masks, and layers that no rung describes."""

import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from networks import filled
from strategies import gaussian

import convlab as cl

pytestmark = pytest.mark.usefixtures("float64")
SHAPE = (3, 5, 4)  # small images that the transposed layers enlarge
CLOSE = 1e-5  # parameters are drawn in single precision
RUNGS = ("tiled", "low_rank", "locally_connected", "dense")
SLOW_RUNGS = [to for to in RUNGS if to != "locally_connected"]
TRANSPOSED = {
    "convlab": lambda **options: cl.ConvTranspose(4, 3, (3, 2), rngs=nnx.Rngs(0), **options),
    "flax": lambda **options: nnx.ConvTranspose(4, 3, (3, 2), rngs=nnx.Rngs(0), **options),
}
STATIC = {"static_argnums": (1, 2), "static_argnames": ("only", "period", "rank")}
relax, constrain = nnx.jit(cl.relax, **STATIC), nnx.jit(cl.constrain, **STATIC)


@nnx.jit
def outputs(model, x):
    return model(x)


def decoder(kind, **options):
    """A network that enlarges images, with a convolution before and after the transposed layer."""
    build = TRANSPOSED[kind]
    return filled(
        lambda: nnx.Sequential(
            cl.Conv(4, 4, (2, 2), rngs=nnx.Rngs(0)), nnx.tanh, build(**options), nnx.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0))
        )
    )


@pytest.mark.parametrize("to", ["locally_connected", *(pytest.param(to, marks=pytest.mark.slow) for to in SLOW_RUNGS)])
@pytest.mark.parametrize(
    "kind, options",
    [
        ("convlab", {"strides": 2, "use_bias": False}),
        ("convlab", {"strides": (2, 1), "transpose_kernel": True, "padding": "VALID"}),
        ("flax", {"strides": (1, 3), "padding": ((3, 1), (2, 0))}),
        ("flax", {"strides": 1, "padding": "CIRCULAR", "transpose_kernel": True, "kernel_dilation": (1, 2)}),
    ],
)
def test_a_decoder_is_relaxed_exactly_and_comes_back(kind, options, to):
    model = decoder(kind, **options)
    [x] = gaussian((2, *SHAPE))
    free = relax(model, to, SHAPE)
    assert free.layers[2].layout.rung == to
    close(outputs(free, x), outputs(model, x), CLOSE)
    back = constrain(free, "conv", SHAPE)
    assert isinstance(back.layers[2], cl.ConvTranspose)
    close(outputs(back, x), outputs(model, x), CLOSE)
    if options.get("transpose_kernel"):
        close(back.layers[2].kernel[...], model.layers[2].kernel[...], CLOSE)


@pytest.mark.parametrize("rung", [*RUNGS, "conv", "symmetric"])
def test_a_transposed_layer_is_the_transpose_of_the_layer_with_its_arrays(rung):
    from convlab.layers.layer import CLASSES

    options = {"space": (7, 5), "use_bias": False, **({"transpose_kernel": True} if rung == "conv" else {})}
    transposed = filled(lambda: CLASSES[rung, True](3, 2, (3, 2), strides=(2, 1), rngs=nnx.Rngs(0), **options))
    options.pop("transpose_kernel", None)
    layer = filled(lambda: CLASSES[rung, False](2, 3, (3, 2), strides=(2, 1), rngs=nnx.Rngs(0), **options))
    close(nnx.state(transposed), nnx.state(layer))
    x, h = gaussian((2, 7, 5, 2), (2, 4, 5, 3))
    close(jnp.vdot(layer(x), h), jnp.vdot(x, transposed(h)), CLOSE)
    with pytest.raises(ValueError, match=r"inputs holds images of \(5, 5\) pixels but this layer was made for \(4, 5\)"):
        transposed(np.ones((2, 5, 5, 3)))
    with pytest.raises(ValueError, match="inputs has 2 channels but this layer was made for 3 in_features"):
        transposed(np.ones((2, 4, 5, 2)))


def test_positions_of_transposed_layers_start_with_the_variance_of_their_input_channels():
    layer = cl.LocallyConnectedTranspose(50, 2, (3, 3), strides=3, padding="VALID", space=(60, 60), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer.kernel[...].std(), (50 * 9) ** -0.5, rtol=0.02)
    assert layer.bias[...].shape == (60, 60, 2)


def test_relaxed_decoders_take_the_same_next_step_with_transferred_momentum():
    model, sgd = decoder("flax", strides=2), optax.sgd(0.1, momentum=0.9)
    [momentum] = gaussian((3, 2, 4, 3))
    state = sgd.init(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    state[0].trace["layers"][2]["kernel"] = jnp.asarray(momentum)
    free = relax(model, "locally_connected", SHAPE)
    kernel = cl.transfer_optimizer_state(sgd, state, model, free, SHAPE)[0].trace["layers"][2]["kernel"]
    reversed_momentum = np.flip(momentum, (0, 1)).swapaxes(-1, -2)
    window = free.layers[2].layout.window
    close(kernel, cl.lift_conv_to_local(reversed_momentum, window, (6, 10)), CLOSE)


def test_a_share_of_the_way_keeps_the_orientation_of_a_transposed_kernel():
    model = decoder("flax", strides=2, padding="VALID")  # every tap is used at every position
    part = cl.constrain(model, "symmetric", SHAPE, only="layers/2", strength=0.5)
    kernel = np.asarray(model.layers[2].kernel[...])
    mean = (kernel + kernel[::-1] + kernel[:, ::-1] + kernel[::-1, ::-1]) / 4
    close(part.layers[2].kernel[...], (kernel + mean) / 2, CLOSE)


def masked(kind, shape, **options):
    mask = jnp.asarray(np.random.default_rng(0).integers(0, 2, shape), float)
    layer = filled(lambda: kind(2, 4, (3, 2), rngs=nnx.Rngs(0), **options))
    layer.mask = nnx.data(mask)
    return nnx.Sequential(layer), mask


@pytest.mark.parametrize("to", ["dense", *(pytest.param(to, marks=pytest.mark.slow) for to in RUNGS if to != "dense")])
@pytest.mark.parametrize(
    "kind, options",
    [
        (nnx.Conv, {"kernel_dilation": 2}),
        (cl.Conv, {"padding": "CIRCULAR"}),
        (cl.ConvTranspose, {"strides": 2}),
        (nnx.Conv, {"feature_group_count": 2}),
    ],
)
def test_a_mask_is_kept_by_relaxing_and_constraining(kind, options, to):
    groups = options.get("feature_group_count", 1)
    if groups > 1 and to in ("tiled", "low_rank"):
        return
    model, mask = masked(kind, (3, 2, 2 // groups, 4), **options)
    [x] = gaussian((2, 7, 5, 2))
    free = relax(model, to, (7, 5, 2))
    close(outputs(free, x), outputs(model, x), CLOSE)
    back = constrain(free, "conv", (7, 5, 2))
    close(outputs(back, x), outputs(model, x), CLOSE)
    if kind is cl.ConvTranspose:
        mask = jnp.flip(mask, (0, 1)).swapaxes(-1, -2)
    if groups == 1 or to != "dense":
        np.testing.assert_array_equal(back.layers[0].mask, mask)


@pytest.mark.parametrize("to", ["locally_connected", "dense"])
def test_a_relaxed_layer_never_reads_the_pixels_that_its_mask_removed(to):
    model, mask = masked(nnx.Conv, (3, 2, 2, 4), kernel_dilation=2)
    window, lift = cl.Window((3, 2), dilation=2), compiled(cl.lift_conv_to_dense)
    layer = relax(model, to, (7, 5, 2)).layers[0]
    layer.kernel[...] = layer.kernel[...] + 1.0  # as training might
    weights = layer.masked(layer.kernel[...])
    weights = weights if to == "dense" else compiled(cl.lift_local_to_dense)(weights, window, (7, 5))
    removed = (lift(1 - mask, window, (7, 5)) > 0) & (lift(mask, window, (7, 5)) == 0)
    assert removed.any()
    np.testing.assert_array_equal(weights[removed], 0)
    if to == "dense":
        assert weights[~removed].all()


def test_a_mask_that_differs_by_position_has_no_low_rank_form():
    model, _ = masked(cl.LocallyConnected, (7, 5, 3, 2, 2, 4), space=(7, 5))
    with pytest.raises(ValueError, match="mask differs by position, as that of a locally_connected layer"):
        cl.constrain(model, "low_rank", (7, 5, 2))


class Mixture(nnx.Module):
    def __init__(self, rngs):
        self.first = cl.Conv(2, 2, (3, 3), rngs=rngs)
        self.dilated = nnx.Conv(2, 2, (3, 3), input_dilation=2, padding=1, rngs=rngs)
        self.aligned = cl.ConvTranspose(2, 2, (3, 3), strides=2, padding="CIRCULAR", rngs=rngs)

    def __call__(self, x):
        return self.aligned(self.dilated(self.first(x)))


def test_layers_that_no_rung_describes_are_named_and_left_alone():
    model, shape = Mixture(nnx.Rngs(0)), (7, 5, 2)
    with pytest.warns(
        UserWarning, match="relax leaves alone aligned, which has padding 'CIRCULAR', .*dilated, which has input_dilation"
    ):
        free = cl.relax(model, "dense", shape)
    [x] = gaussian((2, *shape))
    close(free(x), model(x), CLOSE)
    with pytest.warns(UserWarning, match="constrain leaves alone"):
        back = cl.constrain(free, "conv", shape)
    changes = {change.layer: change for change in cl.diff(model, free, shape)}
    assert (changes["first"].before, changes["first"].after) == ("conv", "dense")
    assert changes["dilated"].after == "has input_dilation 2"
    assert np.isnan(changes["dilated"].shared)
    rows = {row.layer: row for row in cl.shares(back, shape)}
    assert rows.keys() == {"first", "dilated", "aligned"}
    np.testing.assert_allclose((rows["first"].shared, rows["first"].local, rows["first"].rest), (1, 0, 0), atol=CLOSE)
    assert rows["aligned"].rung.startswith("has padding 'CIRCULAR'")
    assert rows["aligned"].weights == 38


def test_shares_are_those_of_decompose():
    model = filled(
        lambda: nnx.Sequential(
            cl.Dense(2, 3, (3, 2), space=(7, 5), rngs=nnx.Rngs(0)), cl.Conv(3, 2, 1, space=(7, 5), rngs=nnx.Rngs(0))
        )
    )
    first, second = cl.shares(model, (7, 5, 2))
    parts = cl.decompose(model.layers[0].kernel[...], cl.Window((3, 2)), (7, 5))
    close([first.shared, first.local, first.rest], [float(part) for part in parts.values()], CLOSE)
    assert (second.layer, second.rung, second.weights) == ("layers/1", "conv", 8)


def test_layers_that_are_not_selected_are_not_named():
    model = Mixture(nnx.Rngs(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        free = cl.relax(model, "dense", (7, 5, 2), only="first")
    assert isinstance(free.first, cl.Dense)
    with pytest.warns(UserWarning, match="relax leaves alone dilated, which has input_dilation 2"):
        cl.relax(model, "dense", (7, 5, 2), only="dilated")


def test_other_factors_of_a_mask_become_part_of_the_kernel():
    model, mask = masked(nnx.Conv, (3, 2, 2, 4))
    model.layers[0].mask = 2.5 * mask
    [x] = gaussian((2, 7, 5, 2))
    free = relax(model, "locally_connected", (7, 5, 2))
    close(outputs(free, x), outputs(model, x), CLOSE)
    assert set(np.unique(free.layers[0].mask)) == {0.0, 1.0}
