"""Test all implementations of the trilinear form: values, derivatives and `vmap`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from strategies import case, gaussian, windows

import convlab as cl
from convlab.kernels import blocks, depthwise, table, trilinear
from convlab.kernels.form import LETTERS, OTHERS, Form, mirrored
from convlab.kernels.thresholds import Thresholds
from convlab.kernels.trilinear import form_p, layer, windowed
from convlab.unfold import windows as gather

pytestmark = pytest.mark.usefixtures("float64")
NAMES = [(family, name) for family, entry in table.FAMILIES.items() for name in ("auto", *entry.implementations)]
SPACE, C, D, S = (6, 5), 3, 2, 2
AXES = cl.Window((3, 2), strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2)).axes(SPACE)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Set a small block size, so that small images are cut into several blocks.

    Compiled programs are discarded, because they hold the previous block size.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kernels in (blocks, table.windows):
            patch.setattr(kernels, "BYTES", 1500)
        jax.clear_caches()
        yield
    jax.clear_caches()


def make_form(family, name="auto", axes=AXES):
    """Make a form of the family, with a period of at most 2, 3 and 1 positions if it is tiled."""
    period = tuple(min(axis.outputs, p) for axis, p in zip(axes, (2, 3, 1), strict=False)) if family == "tiled" else ()
    return Form(family, axes, name, period=period)


def arrays(form, n=5, s=S, seed=0, c=C):
    """Draw Gaussian arrays x, v and g for a form."""
    shapes = (s, n, *form.pixels, c), (s, *form.kernels, *form.taps, c, D), (s, n, *form.outputs, D)
    return dict(zip("xvh", gaussian(*shapes, seed=seed), strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def derivative(wrt, form, operands):
    """Differentiate the form with respect to x, v or g, given the other two arrays."""
    p, q = (operands[name] for name in OTHERS[wrt])
    return form_p.bind(p, q, wrt=wrt, form=form, dtype=np.dtype(float))


@functools.partial(jax.jit, static_argnums=0)
def derivatives(forms, operands):
    """Return one dictionary of derivatives per form, all for the same arrays."""
    return [{wrt: derivative(wrt, form, operands) for wrt in "hxv"} for form in forms]


@given(windows(names=("SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"), cells=400), st.integers(1, 5))
@example(case((7, 5), (3, 3), (1, 1), "SAME", (1, 2)), 5)  # an explicit example avoids minutes of shrinking after a failure
@example(case(SPACE, (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2)), 17)  # more images than `FEW`
@example(case((7, 5), (3, 2), (3, 2), "VALID", (1, 1)), 5)  # windows that do not overlap
@settings(max_examples=1)
def test_every_implementation_matches_loops_and_its_gradients_are_transposes(drawn, n):
    window, space, reads = drawn
    for family, loops in {"local": oracle.locally_connected, "conv": oracle.conv, "tiled": oracle.tiled}.items():
        names = [name for member, name in NAMES if member == family]
        forms = tuple(make_form(family, name, window.axes(space)) for name in names)
        operands = arrays(forms[0], n)
        expected = np.stack([[loops(x, v, reads) for x in xs] for xs, v in zip(operands["x"], operands["v"], strict=True)])
        results = derivatives(forms, operands)
        plain = results[names.index("windows")]
        for result in results:
            close(result["h"], expected, 1e-11)
            for wrt in "xv":
                assert result[wrt].shape == operands[wrt].shape
                close(np.vdot(result[wrt], operands[wrt]), np.vdot(expected, operands["h"]), 1e-11)
                close(result[wrt], plain[wrt], 1e-11)


@given(windows(names=("SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"), cells=400), st.integers(1, 5))
@example(case(SPACE, (3, 2), (2, 1), ((1, 2), (-1, 1)), (1, 2)), 5)
@settings(max_examples=1)
def test_single_channels_give_the_same_depthwise_as_by_windows(drawn, n):
    window, space, reads = drawn
    for family, loops in {"conv": oracle.conv, "tiled": oracle.tiled}.items():
        forms = tuple(make_form(family, name, window.axes(space)) for name in ("depthwise", "auto", "windows"))
        operands = arrays(forms[0], n, s=3, c=1)
        expected = np.stack([[loops(x, v, reads) for x in xs] for xs, v in zip(operands["x"], operands["v"], strict=True)])
        *results, plain = derivatives(forms, operands)
        for result in results:
            close(result["h"], expected, 1e-11)
            for wrt in "xv":
                close(result[wrt], plain[wrt], 1e-11)


@pytest.mark.parametrize("few", [1, 8])
@pytest.mark.parametrize("axes", [AXES, cl.Window((3, 2), (4, 3), "VALID", (1, 2)).axes((7, 11))])
def test_depthwise_gradient_by_the_image_adds_features_at_once_or_one_by_one(monkeypatch, few, axes):
    monkeypatch.setattr(depthwise, "FEW", few)
    form = make_form("conv", axes=axes)
    operands = arrays(form, s=3, c=1)
    got = jax.jit(lambda v, g: depthwise.gradient_x(v, g, form))(operands["v"], operands["h"])
    close(got, derivative("x", make_form("conv", "windows", axes), operands), 1e-11)


def test_grid_has_several_blocks_that_cover_all_positions():
    form = Form("local", AXES)
    grid = blocks.make_grid(S, form, 500)
    assert np.prod(grid.blocks) > 1
    assert tuple(b * m for b, m in zip(grid.block, grid.blocks, strict=True)) == (S, *form.outputs)


@pytest.mark.parametrize("family, name", NAMES)
@pytest.mark.parametrize("wrt", ["h", "x", "v"])
@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_vmap_over_one_or_both_arrays_matches_a_loop(family, name, wrt, batched):
    form = make_form(family, name)
    several = [arrays(make_form(family), seed=seed) for seed in range(3)]
    one, two = OTHERS[wrt]
    fixed = {key: several[0][key] for key, on in zip((one, two), batched, strict=True) if not on}
    runs = [{one: operands[one], two: operands[two], **fixed} for operands in several]
    stacked = [fixed[key] if key in fixed else np.stack([run[key] for run in runs], 1) for key in (one, two)]
    axes = [1 if on else None for on in batched]
    got = jax.jit(jax.vmap(lambda p, q: derivative(wrt, form, {one: p, two: q}), axes))(*stacked)
    close(got, np.stack([derivative(wrt, form, run) for run in runs]), 1e-11)


@pytest.mark.parametrize("family, name", NAMES)
def test_first_and_second_derivatives_agree_with_those_of_plain_windows(family, name):
    operands, tangents = (arrays(make_form(family), n=4, seed=seed) for seed in (0, 3))
    got, expected = (
        orders(make_form(family, implementation), operands["x"], operands["v"], tangents["x"], tangents["v"])
        for implementation in (name, "windows")
    )
    close(got, expected, 1e-11)


@functools.partial(jax.jit, static_argnums=0)
def orders(form, x, v, *tangents):
    """Return first and second derivatives of a loss in forward and reverse mode."""

    def loss(x, v):
        return jnp.sum(jnp.sin(layer(x, v, form)))

    return (
        jax.grad(loss, (0, 1))(x, v),
        jax.jvp(loss, (x, v), tangents),
        jax.jvp(jax.grad(loss, (0, 1)), (x, v), tangents)[1],
        jax.grad(lambda x, v: jnp.sum(jax.grad(loss, 1)(x, v) ** 2), (0, 1))(x, v),
        jax.checkpoint(jax.grad(loss))(x, v),
    )


@pytest.mark.parametrize("family, name", NAMES)
def test_shard_map_over_the_batch_sums_the_gradients_of_all_shards(family, name):
    operands = arrays(make_form(family), n=4)
    mesh = Mesh(np.array(jax.devices()[:1]), ("n",))
    batch, replicated = PartitionSpec(None, "n"), PartitionSpec()

    def gradient(x, v):
        return jax.grad(lambda v: jnp.sum(layer(x, v, make_form(family, name)) ** 2))(v)

    def sharded_gradient(x, v):
        varying = jax.lax.pcast(v, "n", to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(v, "n")
        return jax.lax.psum(gradient(x, varying), "n")

    got = jax.jit(jax.shard_map(sharded_gradient, mesh=mesh, in_specs=(batch, replicated), out_specs=replicated))(
        operands["x"], operands["v"]
    )
    close(got, jax.jit(gradient)(operands["x"], operands["v"]), 1e-11)


@given(windows(names=("SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"), cells=2000))
@settings(max_examples=20)
def test_mirrored_axis_reads_exactly_the_outputs_that_read_each_pixel(drawn):
    window, space, _ = drawn
    for axis in window.axes(space):
        back = mirrored(axis)
        assert back.low + back.pixels + back.high == back.reach
        there, back_again = axis.reads, back.reads[:, ::-1]
        seen = {(there[i, a], axis.stride * i, a) for i, a in zip(*np.nonzero(there >= 0), strict=True)}
        assert seen == {(k, at, a) for (k, a), at in np.ndenumerate(back_again) if at >= 0 and at % axis.stride == 0}


@given(windows(names=("VALID",), cells=2000))
@settings(max_examples=8)
def test_gathering_a_block_agrees_with_slices_and_adding_up_is_its_transpose(drawn):
    window, space, _ = drawn
    grid = blocks.make_grid(S, Form("local", window.axes(space)), 1)
    (x,) = gaussian((*grid.slab, 3, 5))

    def gather_block(x):
        return blocks._gather(x, [np.uint32(0)] * len(grid.slab), grid)

    def both(x):
        p, pull = jax.vjp(gather_block, x)
        return p, gather(x, grid.axes, 0, after=2).reshape(p.shape), blocks._add_up(p, grid, 3), pull(p)[0]

    by_table, by_slices, added, transposed = jax.jit(both)(x)
    close(by_table, by_slices, 0)
    close(added, transposed, 1e-11)


@pytest.mark.parametrize("family", table.FAMILIES)
@pytest.mark.parametrize("wrt", ["h", "x", "v"])
@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_vmap_over_an_empty_axis_gives_an_empty_result(family, wrt, batched):
    form = make_form(family)
    operands = arrays(form)
    axes = [0 if on else None for on in batched]
    p, q = (
        np.empty((0, *operands[name].shape)) if on else operands[name] for name, on in zip(OTHERS[wrt], batched, strict=True)
    )
    result = jax.eval_shape(jax.jit(jax.vmap(lambda p, q: form_p.bind(p, q, wrt=wrt, form=form, dtype=p.dtype), axes)), p, q)
    assert result.shape == (0, *operands[wrt].shape)


def test_gradient_of_a_shared_kernel_adds_low_precision_terms_in_float32():
    x, g = (np.ones(shape, jnp.bfloat16) for shape in ((1, 521, 12, 1), (1, 521, 9, 32)))
    form = Form("conv", cl.Window((4,), padding="VALID").axes((12,)), "windows")
    v = jax.jit(lambda x, g: form_p.bind(x, g, wrt="v", form=form, dtype=jnp.dtype(jnp.bfloat16)))(x, g)
    np.testing.assert_allclose(np.asarray(v, float), 521 * 9, rtol=2**-8)


def test_result_has_the_requested_dtype_and_gradient_the_input_dtype():
    operands = arrays(make_form("conv"))
    x, v = (jnp.asarray(operands[name].astype(jnp.bfloat16)) for name in "xv")
    h = layer(x, v, Form("conv", AXES), jnp.float32)
    assert h.dtype == jnp.float32
    gradient = jax.grad(lambda x: layer(x, v, Form("conv", AXES), jnp.float32).sum())(x)
    assert gradient.dtype == jnp.bfloat16


def test_unknown_implementation_raises_an_error_that_lists_the_known_ones():
    form = Form("local", AXES, "fast")
    x, v, _ = arrays(form).values()
    with pytest.raises(ValueError, match="implementation 'fast' is unknown; needs one of auto, blocks, windows"):
        windowed(x[0], v[0], form)


@pytest.mark.parametrize(
    "make",
    [lambda: cl.Conv(3, 2, (3, 2), rngs=nnx.Rngs(0)), lambda: cl.ConvTranspose(3, 2, (3, 2), strides=(2, 2), rngs=nnx.Rngs(0))],
)
def test_a_later_eager_call_traces_nothing(make, monkeypatch):
    layer, x, traced = make(), jnp.ones((2, 11, 13, 3)), []
    derivative = trilinear.form_p.bind
    monkeypatch.setattr(trilinear.form_p, "bind", lambda *arrays, **options: traced.append(0) or derivative(*arrays, **options))
    layer(x)
    first = len(traced)
    layer(2 * x)
    assert len(traced) == first > 0


SET = Thresholds(  # given, so that newly measured values change no test
    local_min_images=4,
    local_images_per_feature=0.5,
    depthwise_max_multiplier=4,
    forward_max_channels=3,
    forward_max_window=32,
    forward_min_features=24,
    forward_min_eager=2**16,
    forward_max_entries=2**24,
    image_min_channels=8,
    image_min_strided=16,
    image_max_entries=2**24,
    kernel_min_images=8,
    kernel_max_entries=2**24,
    kernel_min_features=32,
    kernel_max_channels=4,
    kernel_min_positions=128,
    kernel_min_products=2**11,
)


def choose(form, wrt, s, n, c, d, platform="cpu"):
    return table.choose(form, wrt, {"s": s, "n": n, "c": c, "d": d}, platform, SET)


def test_automatic_choice_depends_on_sizes_and_platform():
    def chosen(family, wrt, n, c, platform, d=8):
        return choose(Form(family, AXES), wrt, 1, n, c, d, platform)

    assert chosen("local", "h", 64, 3, "cpu") == "blocks"
    assert chosen("local", "h", 1, 3, "cpu") == chosen("local", "h", 64, 3, "gpu") == "windows"
    assert [chosen("local", wrt, 32, 3, "cpu", 64) for wrt in "hxv"] == ["windows", "blocks", "windows"]  # small beside kernels
    assert [chosen("local", wrt, 33, 3, "cpu", 64) for wrt in "hxv"] == ["blocks"] * 3
    assert [chosen("conv", wrt, 64, 1, "cpu") for wrt in "hxv"] == ["windows", "windows", "canonical"]
    assert choose(Form("conv", AXES, eager=True), "h", 1, 4, 1, 8) == "canonical"
    assert chosen("conv", "h", 1 << 20, 1, "cpu") == chosen("conv", "x", 1 << 20, 1, "cpu") == "canonical"  # too large to copy
    assert [chosen("conv", wrt, 64, 32, "cpu", 64) for wrt in "hxv"] == ["canonical", "canonical", "windows"]
    assert chosen("conv", "h", 64, 3, "gpu") == "lax"
    # With stride 1, the x product equals the h product of a layer with d channels.
    tiled = Form("tiled", cl.Window((3, 2)).axes(SPACE), period=(2, 2))
    swapped = [choose(tiled, "x", 1, 64, c, d) for c, d in ((1, 16), (16, 1))]
    assert swapped == ["canonical", "windows"]
    depthwise = [choose(Form("conv", AXES), "h", s, 9, c, d) for s, c, d in ((8, 1, 2), (8, 1, 8), (8, 2, 2), (1, 1, 2))]
    assert [name == "depthwise" for name in depthwise] == [True, False, False, False]
    full = Form("conv", cl.Window.full(SPACE).axes(SPACE))
    assert choose(full, "h", 1, 64, 3, 8, "gpu") == "toeplitz"


def test_automatic_choice_of_a_convolution_depends_on_its_windows():
    def chosen(wrt, c, d, size, stride, pixels=20, dilation=1, n=64):
        return choose(Form("conv", cl.Window((size, size), stride, "VALID", dilation).axes((pixels, pixels))), wrt, 1, n, c, d)

    assert [chosen(wrt, 16, 16, 2, 2) for wrt in "hxv"] == ["canonical", "windows", "windows"]  # disjoint: reshapes
    assert [chosen(wrt, 16, 16, 1, 1) for wrt in "hxv"] == ["windows"] * 3  # matrix products
    assert [chosen(wrt, 16, 16, 2, 1) for wrt in "hxv"] == ["canonical"] * 3
    assert chosen("x", 16, 16, 2, 2, dilation=2) == "canonical"  # windows with gaps
    assert [chosen("v", 16, 32, 3, *sizes) for sizes in ((1, 20), (1, 9), (2, 40))] == ["windows", "canonical", "canonical"]
    assert [chosen("v", 16, 16, 3, 1, n=n) for n in (7, 8)] == ["windows", "canonical"]
    assert chosen("v", 16, 16, 3, 1, n=1, pixels=999) == "canonical"  # too large to copy
    assert [chosen("x", 15, 16, 3, stride) for stride in (1, 2)] == ["canonical", "windows"]
    assert [chosen("h", c, d, 3, 1) for c, d in ((2, 23), (2, 24), (3, 24))] == ["windows", "canonical", "windows"]


def test_new_axis_letters_are_shared_by_their_arrays():
    for names, letter in trilinear.SHARED.items():
        assert all(letter in LETTERS[name] for name in names)
