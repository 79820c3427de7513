"""The form under every windowed rung: each implementation against loops, its derivatives as transposes, and `vmap` over all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from strategies import case, gaussian, windows

import convlab as cl
from convlab.kernels import blocks, table, trilinear
from convlab.kernels.trilinear import OTHERS, Form, form_p, layer
from convlab.unfold import fold
from convlab.unfold import windows as gather

pytestmark = pytest.mark.usefixtures("float64")
NAMES = [(family, name) for family, entry in table.FAMILIES.items() for name in ("auto", *entry.implementations)]
SPACE, C, D, S = (6, 5), 3, 2, 2
AXES = cl.Window((3, 2), strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2)).axes(SPACE)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Images so small would fit one block."""
    for kernels in (blocks, table.windows):
        monkeypatch.setattr(kernels, "BYTES", 1500)
    jax.clear_caches()


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11 * max(1, np.abs(np.asarray(expected)).max(initial=0)))


def made(family, name="auto", axes=AXES):
    """A form of the family; tiles of 2, 3 and 1 positions, or as many as there are."""
    period = tuple(min(axis.outputs, p) for axis, p in zip(axes, (2, 3, 1), strict=False)) if family == "tiled" else ()
    return Form(family, axes, name, period=period)


def arrays(form, n=5, s=S, seed=0):
    """Gaussian x, v and g of a form."""
    outputs, size = tuple(axis.outputs for axis in form.axes), tuple(axis.size for axis in form.axes)
    kernels = table.FAMILIES[form.family].positions(form)
    shapes = (s, n, *(axis.pixels for axis in form.axes), C), (s, *kernels, *size, C, D), (s, n, *outputs, D)
    return dict(zip("xvh", map(jnp.asarray, gaussian(*shapes, seed=seed)), strict=True))


def derivative(wrt, form, these):
    """The derivative of the form by x, v or g, given all three arrays."""
    p, q = (these[name] for name in OTHERS[wrt])
    return form_p.bind(p, q, wrt=wrt, form=form, dtype=np.dtype(float))


@given(windows(names=("SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"), cells=400), st.integers(1, 5))
@example(case((7, 5), (3, 3), (1, 1), "SAME", (1, 2)), 5)  # first, so that a fault is not shrunk for minutes
@example(case(SPACE, (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2)), 5)
@settings(max_examples=1)
def test_every_implementation_equals_its_loops_and_its_gradients_are_its_transposes(drawn, n):
    window, space, reads = drawn
    for family, name in NAMES:
        form = made(family, name, window.axes(space))
        these = arrays(form, n)
        h = derivative("h", form, these)
        loops = {"local": oracle.locally_connected, "conv": oracle.conv, "tiled": oracle.tiled}[family]
        close(h, np.stack([[loops(x, v, reads) for x in xs] for xs, v in zip(these["x"], these["v"], strict=True)]))
        value = jnp.vdot(h, these["h"])
        for wrt in "xv":
            gradient = derivative(wrt, form, these)
            assert gradient.shape == these[wrt].shape
            close(jnp.vdot(gradient, these[wrt]), value)
            close(gradient, derivative(wrt, made(family, "windows", form.axes), these))


def test_blocks_are_several_and_cover_all_positions():
    form = Form("local", AXES)
    cut = blocks.grid(S, form, 500)
    assert np.prod(cut.starts) > 1
    assert tuple(b * m for b, m in zip(cut.block, cut.starts, strict=True)) == (S, *(axis.outputs for axis in AXES))


@pytest.mark.parametrize("family, name", NAMES)
@pytest.mark.parametrize("wrt", ["h", "x", "v"])
@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_vmap_over_either_or_both_arrays_equals_a_loop(family, name, wrt, batched):
    form = made(family, name)
    several = [arrays(made(family), seed=seed) for seed in range(3)]
    one, two = OTHERS[wrt]
    fixed = {key: several[0][key] for key, on in zip((one, two), batched, strict=True) if not on}
    runs = [{**these, **fixed} for these in several]
    stacked = [fixed[key] if key in fixed else jnp.stack([run[key] for run in runs], 1) for key in (one, two)]
    got = jax.vmap(lambda p, q: derivative(wrt, form, {one: p, two: q}), [1 if on else None for on in batched])(*stacked)
    close(got, jnp.stack([derivative(wrt, form, run) for run in runs]))


@pytest.mark.parametrize("family, name", NAMES)
def test_derivatives_of_all_orders_agree_with_those_of_plain_windows(family, name):
    these = arrays(made(family), n=4)

    def loss(name, x, v):
        return jnp.sum(jnp.sin(layer(x, v, made(family, name))))

    tangents = arrays(made(family), n=4, seed=3)
    for transform in (
        lambda f: jax.grad(f, (0, 1)),
        lambda f: lambda x, v: jax.jvp(f, (x, v), (tangents["x"], tangents["v"])),
        lambda f: lambda x, v: jax.jvp(jax.grad(f, (0, 1)), (x, v), (tangents["x"], tangents["v"]))[1],
        lambda f: jax.grad(lambda x, v: jnp.sum(jax.grad(f, 1)(x, v) ** 2), (0, 1)),
        lambda f: jax.checkpoint(jax.grad(f)),
    ):
        got, expected = (transform(functools.partial(loss, each))(these["x"], these["v"]) for each in (name, "windows"))
        jax.tree.map(close, got, expected)


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
    close(got, gradient(these["x"], these["v"]))


@given(windows(names=("VALID",), cells=2000))
@settings(max_examples=8)
def test_fold_is_the_transpose_of_gathering_windows(drawn):
    window, space, _ = drawn
    axes = tuple(axis._replace(low=0, high=0) for axis in window.axes(space))
    slab = tuple(axis.stride * (axis.outputs - 1) + axis.dilation * (axis.size - 1) + 1 for axis in axes)
    x = jnp.asarray(gaussian((2, *slab, 3))[0])
    p = gather(x, axes, 1)
    (g,) = gaussian(p.shape, seed=1)
    close(fold(jnp.asarray(g), axes, 1), jax.linear_transpose(lambda x: gather(x, axes, 1), x)(jnp.asarray(g))[0])


def test_results_have_the_dtype_asked_for_and_sums_that_of_the_wider():
    these = arrays(made("conv"))
    x, v = these["x"].astype(jnp.bfloat16), these["v"].astype(jnp.bfloat16)
    h = layer(x, v, Form("conv", AXES), jnp.float32)
    assert h.dtype == jnp.float32
    gradient = jax.grad(lambda x: layer(x, v, Form("conv", AXES), jnp.float32).sum())(x)
    assert gradient.dtype == jnp.bfloat16


def test_an_unknown_implementation_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="implementation 'fast' is unknown; needs 'auto', 'blocks', 'windows'"):
        Form("local", AXES, "fast")


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
        assert all(letter in trilinear.LETTERS[name] for name in names)
