"""The form under every windowed rung: each implementation against loops, its derivatives as transposes, and `vmap` over all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from strategies import case, gaussian, windows

import convlab as cl
from convlab.kernels import blocks, table, trilinear
from convlab.kernels.form import LETTERS, OTHERS, Form, mirrored
from convlab.kernels.trilinear import form_p, layer
from convlab.unfold import fold
from convlab.unfold import windows as gather

pytestmark = pytest.mark.usefixtures("float64")
NAMES = [(family, name) for family, entry in table.FAMILIES.items() for name in ("auto", *entry.implementations)]
SPACE, C, D, S = (6, 5), 3, 2, 2
AXES = cl.Window((3, 2), strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2)).axes(SPACE)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Cut small images into several blocks; what was compiled before is forgotten, as it does not know of this."""
    with pytest.MonkeyPatch.context() as patch:
        for kernels in (blocks, table.windows):
            patch.setattr(kernels, "BYTES", 1500)
        jax.clear_caches()
        yield
    jax.clear_caches()


def made(family, name="auto", axes=AXES):
    """A form of the family; tiles of 2, 3 and 1 positions, or as many as there are."""
    period = tuple(min(axis.outputs, p) for axis, p in zip(axes, (2, 3, 1), strict=False)) if family == "tiled" else ()
    return Form(family, axes, name, period=period)


def arrays(form, n=5, s=S, seed=0):
    """Gaussian x, v and g of a form."""
    shapes = (s, n, *form.pixels, C), (s, *form.kernels, *form.taps, C, D), (s, n, *form.outputs, D)
    return dict(zip("xvh", gaussian(*shapes, seed=seed), strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def derivative(wrt, form, these):
    """Differentiate the form by x, v or g, given the other two arrays."""
    p, q = (these[name] for name in OTHERS[wrt])
    return form_p.bind(p, q, wrt=wrt, form=form, dtype=np.dtype(float))


@functools.partial(jax.jit, static_argnums=0)
def derivatives(forms, these):
    """Apply all forms to the same arrays: a dictionary of results for each form."""
    return [{wrt: derivative(wrt, form, these) for wrt in "hxv"} for form in forms]


@given(windows(names=("SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"), cells=400), st.integers(1, 5))
@example(case((7, 5), (3, 3), (1, 1), "SAME", (1, 2)), 5)  # first, so that a fault is not shrunk for minutes
@example(case(SPACE, (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2)), 5)
@settings(max_examples=1)
def test_every_implementation_equals_its_loops_and_its_gradients_are_its_transposes(drawn, n):
    window, space, reads = drawn
    for family, loops in {"local": oracle.locally_connected, "conv": oracle.conv, "tiled": oracle.tiled}.items():
        names = [name for each, name in NAMES if each == family]
        forms = tuple(made(family, name, window.axes(space)) for name in names)
        these = arrays(forms[0], n)
        expected = np.stack([[loops(x, v, reads) for x in xs] for xs, v in zip(these["x"], these["v"], strict=True)])
        results = derivatives(forms, these)
        plain = results[names.index("windows")]
        for result in results:
            close(result["h"], expected, 1e-11)
            for wrt in "xv":
                assert result[wrt].shape == these[wrt].shape
                close(np.vdot(result[wrt], these[wrt]), np.vdot(expected, these["h"]), 1e-11)
                close(result[wrt], plain[wrt], 1e-11)


def test_blocks_are_several_and_cover_all_positions():
    form = Form("local", AXES)
    grid = blocks.make_grid(S, form, 500)
    assert np.prod(grid.blocks) > 1
    assert tuple(b * m for b, m in zip(grid.block, grid.blocks, strict=True)) == (S, *form.outputs)


@pytest.mark.parametrize("family, name", NAMES)
@pytest.mark.parametrize("wrt", ["h", "x", "v"])
@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_vmap_over_either_or_both_arrays_equals_a_loop(family, name, wrt, batched):
    form = made(family, name)
    several = [arrays(made(family), seed=seed) for seed in range(3)]
    one, two = OTHERS[wrt]
    fixed = {key: several[0][key] for key, on in zip((one, two), batched, strict=True) if not on}
    runs = [{one: these[one], two: these[two], **fixed} for these in several]
    stacked = [fixed[key] if key in fixed else np.stack([run[key] for run in runs], 1) for key in (one, two)]
    axes = [1 if on else None for on in batched]
    got = jax.jit(jax.vmap(lambda p, q: derivative(wrt, form, {one: p, two: q}), axes))(*stacked)
    close(got, np.stack([derivative(wrt, form, run) for run in runs]), 1e-11)


@pytest.mark.parametrize("family, name", NAMES)
def test_derivatives_of_all_orders_agree_with_those_of_plain_windows(family, name):
    these, tangents = (arrays(made(family), n=4, seed=seed) for seed in (0, 3))
    got, expected = (
        orders(made(family, each), these["x"], these["v"], tangents["x"], tangents["v"]) for each in (name, "windows")
    )
    close(got, expected, 1e-11)


@functools.partial(jax.jit, static_argnums=0)
def orders(form, x, v, *tangents):
    """Differentiate a loss of a form once and twice, forwards and backwards."""

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
def test_shard_map_over_the_batch_sums_the_gradients_of_its_parts(family, name):
    these = arrays(made(family), n=4)
    mesh = Mesh(np.array(jax.devices()[:1]), ("n",))
    batch, all_of_it = PartitionSpec(None, "n"), PartitionSpec()

    def gradient(x, v):
        return jax.grad(lambda v: jnp.sum(layer(x, v, made(family, name)) ** 2))(v)

    def parts(x, v):
        varying = jax.lax.pcast(v, "n", to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(v, "n")
        return jax.lax.psum(gradient(x, varying), "n")

    got = jax.jit(jax.shard_map(parts, mesh=mesh, in_specs=(batch, all_of_it), out_specs=all_of_it))(these["x"], these["v"])
    close(got, jax.jit(gradient)(these["x"], these["v"]), 1e-11)


@given(windows(names=("SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"), cells=2000))
@settings(max_examples=20)
def test_a_mirrored_axis_reads_the_cotangents_of_the_outputs_that_read_a_pixel(drawn):
    window, space, _ = drawn
    for axis in window.axes(space):
        back = mirrored(axis)
        assert back.low + back.pixels + back.high == back.reach
        there, back_again = axis.reads, back.reads[:, ::-1]
        seen = {(there[i, a], axis.stride * i, a) for i, a in zip(*np.nonzero(there >= 0), strict=True)}
        assert seen == {(k, at, a) for (k, a), at in np.ndenumerate(back_again) if at >= 0 and at % axis.stride == 0}


@given(windows(names=("VALID",), cells=2000))
@settings(max_examples=8)
def test_fold_is_the_transpose_of_gathering_windows(drawn):
    window, space, _ = drawn
    axes = tuple(axis._replace(low=0, high=0) for axis in window.axes(space))
    slab = tuple(axis.stride * (axis.outputs - 1) + axis.dilation * (axis.size - 1) + 1 for axis in axes)
    (x,) = gaussian((2, *slab, 3))
    (g,) = gaussian(jax.eval_shape(lambda x: gather(x, axes, 1), x).shape, seed=1)
    close(*jax.jit(lambda g: (fold(g, axes, 1), jax.linear_transpose(lambda x: gather(x, axes, 1), x)(g)[0]))(g), 1e-11)


def test_results_have_the_requested_dtype_and_sums_the_wider_dtype():
    these = arrays(made("conv"))
    x, v = (jnp.asarray(these[name].astype(jnp.bfloat16)) for name in "xv")
    h = layer(x, v, Form("conv", AXES), jnp.float32)
    assert h.dtype == jnp.float32
    gradient = jax.grad(lambda x: layer(x, v, Form("conv", AXES), jnp.float32).sum())(x)
    assert gradient.dtype == jnp.bfloat16


def test_an_unknown_implementation_raises_an_error_with_the_known_names():
    form = Form("local", AXES, "fast")
    x, v, _ = arrays(form).values()
    with pytest.raises(ValueError, match="implementation 'fast' is unknown; needs 'auto', 'blocks', 'windows'"):
        layer(x, v, form)


def test_the_rule_takes_every_choice_somewhere():
    def chosen(family, wrt, n, c, platform, d=8):
        return table.choose(Form(family, AXES), wrt, {"s": 1, "n": n, "c": c, "d": d}, platform)

    assert chosen("local", "h", 64, 3, "cpu") == "blocks"
    assert chosen("local", "h", 1, 3, "cpu") == chosen("local", "h", 64, 3, "gpu") == "windows"
    assert [chosen("conv", wrt, 64, 1, "cpu") for wrt in "hxv"] == ["windows", "windows", "canonical"]
    assert chosen("conv", "h", 1 << 20, 1, "cpu") == chosen("conv", "x", 1 << 20, 1, "cpu") == "canonical"  # too many to copy
    assert [chosen("conv", wrt, 64, 32, "cpu", 64) for wrt in "hxv"] == ["canonical", "canonical", "windows"]
    assert chosen("conv", "h", 64, 3, "gpu") == "lax"
    every = Form("tiled", cl.Window((3, 2)).axes(SPACE), period=(2, 2))  # with stride 1 its x is the h of a layer of d channels
    swapped = [table.choose(every, "x", {"s": 1, "n": 64, "c": c, "d": d}, "cpu") for c, d in ((1, 16), (16, 1))]
    assert swapped == ["canonical", "windows"]
    full = Form("conv", cl.Window.full(SPACE).axes(SPACE))
    assert table.choose(full, "h", {"s": 1, "n": 64, "c": 3, "d": 8}, "gpu") == "toeplitz"


def test_letters_of_a_new_axis_are_those_that_the_arrays_share():
    for names, letter in trilinear.SHARED.items():
        assert all(letter in LETTERS[name] for name in names)
