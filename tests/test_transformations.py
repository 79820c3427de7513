"""Every op under every transformation of JAX, against a matrix product built from the windows' definition."""

import functools
import itertools
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import export
from jax.sharding import Mesh, PartitionSpec

import convlab as cl

N, SPACE, SIZE, C, D, PERIOD, RANK = 7, (5,), (3,), 2, 3, 2, 2
WINDOW = cl.Window(SIZE, 2, ("CIRCULAR",), 1)
READS = oracle.tables(SPACE, SIZE, (2,), (1,), "CIRCULAR")
(OUT,) = oracle.out_shape(READS)
DTYPES = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 1e-12, "complex64": 1e-5}


def expansion(shape, kernel_at, groups=1):
    """Return the tensor that maps kernels of a shape, flattened, to dense weights (i, k, c, d)."""
    columns = []
    for unit in np.eye(np.prod(shape)):
        kernels = functools.partial(kernel_at, unit.reshape(shape))
        columns.append(oracle.dense_matrix(kernels, READS, SPACE, C, shape[-1], groups))
    return np.stack(columns, -1)


KERNELS = {
    "conv": ((*SIZE, C, D), lambda v, position: v),
    "locally_connected": ((OUT, *SIZE, C, D), lambda v, position: v[position]),
    "tiled": ((PERIOD, *SIZE, C, D), lambda v, position: v[position[0] % PERIOD]),
    "low_rank": ((RANK, *SIZE, C, D), lambda v, position: np.tensordot(MIX[position], v, 1)),
}
MIX = np.random.default_rng(1).normal(size=(OUT, RANK))
EXPANSIONS = {name: expansion(*case) for name, case in KERNELS.items()}
NAMES = {
    "conv": ("canonical", "lax", "windows", "toeplitz", "fft"),
    "locally_connected": ("blocks", "windows"),
    "tiled": ("canonical", "lax", "windows", "toeplitz", "fft"),
    "low_rank": ("kernels", "outputs", "lax"),
}


def by_matrix(name, x, v):
    """Apply a layer as one matrix product."""
    w = jnp.asarray(EXPANSIONS[name], v.dtype) @ v.ravel()
    return jnp.einsum("nkc,ikcd->nid", x, w)


def by_matrix_transposed(name, h, v):
    w = jnp.asarray(EXPANSIONS[name], v.dtype) @ v.ravel()
    return jnp.einsum("nid,ikcd->nkc", h, w)


def apply(name, implementation, x, v):
    weights = (jnp.asarray(MIX, v.dtype),) if name == "low_rank" else ()
    return getattr(cl, name)(x, v, *weights, WINDOW, implementation=implementation)


def apply_transposed(name, h, v):
    weights = (jnp.asarray(MIX, v.dtype),) if name == "low_rank" else ()
    return getattr(cl, f"{name}_transpose")(h, v, *weights, WINDOW, SPACE)


def patches(x, window, space):
    """Gather windows by their table of pixels."""
    reads = window.reads(space)
    return jnp.where(jnp.asarray(reads >= 0)[..., None], x[:, np.maximum(reads, 0)], -jnp.inf)


def pooled(reduce, window, x, v):
    return v * reduce(patches(x, window, SPACE), 2)


OVERLAP, DISJOINT = cl.Window((3,), 2, "SAME"), cl.Window((2,), 2, "SAME")
# name -> (op, reference, shape of the first array, shape of the second array)
OPS: dict[str, Any] = {
    f"{name}:{implementation}": (
        functools.partial(apply, name, implementation),
        functools.partial(by_matrix, name),
        (*SPACE, C),
        KERNELS[name][0],
    )
    for name, implementations in NAMES.items()
    for implementation in ("auto", *implementations)
}
OPS |= {
    f"{name}_transpose": (
        functools.partial(apply_transposed, name),
        functools.partial(by_matrix_transposed, name),
        (OUT, D),
        KERNELS[name][0],
    )
    for name in NAMES
}
DEPTHWISE = expansion((*SIZE, 1, 2 * C), lambda v, position: v, groups=C)
OPS["conv:groups"] = (
    lambda x, v: cl.conv(x, v, WINDOW, C, implementation="depthwise"),
    lambda x, v: jnp.einsum("nkc,ikcd->nid", x, jnp.asarray(DEPTHWISE, v.dtype) @ v.ravel()),
    (*SPACE, C),
    (*SIZE, 1, 2 * C),
)
OPS["dense"] = (
    cl.dense,
    lambda x, w: jnp.einsum("nkc,ikcd->nid", x, w),
    (*SPACE, C),
    (OUT, *SPACE, C, D),
)
OPS |= {
    "max_pool": (
        lambda x, v: v * cl.max_pool(x, OVERLAP),
        functools.partial(pooled, jnp.max, OVERLAP),
        (*SPACE, C),
        (C,),
    ),
    "max_pool:blocks": (
        lambda x, v: v * cl.max_pool(x, DISJOINT),
        functools.partial(pooled, jnp.max, DISJOINT),
        (*SPACE, 16),
        (16,),
    ),
    "mean_pool": (
        lambda x, v: v * cl.mean_pool(x, WINDOW),
        functools.partial(pooled, jnp.mean, WINDOW),
        (*SPACE, C),
        (C,),
    ),
    "blur_pool": (
        lambda x, v: v * cl.blur_pool(x, WINDOW),
        functools.partial(pooled, lambda p, axis: (p * jnp.array([1, 2, 1], p.dtype)[:, None]).sum(axis) / 4, WINDOW),
        (*SPACE, C),
        (C,),
    ),
    "unfold": (
        lambda x, v: v * cl.unfold(x, WINDOW),
        functools.partial(pooled, lambda p, axis: p, WINDOW),
        (*SPACE, C),
        (C,),
    ),
}


def loss(f, x, v):
    h = f(x, v)
    return jnp.sum(jnp.real(h * jnp.conj(h)))


def in_shard_map(f, x, v, **options):
    """Compute in a `shard_map` of the caller the gradient of a replicated array, from the sum of all losses."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("devices",))
    split, replicated = PartitionSpec("devices"), PartitionSpec()

    def gradient(x, v):
        return jax.grad(lambda v: jax.lax.psum(loss(f, x, v), "devices"))(v)

    return jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(split, replicated), out_specs=replicated, **options))(x, v)


def exported(f, x, v):
    """Export with a symbolic batch, serialize with derivatives, and call the result with another batch."""
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    restored = export.deserialize(
        export.export(jax.jit(f))(images, jax.ShapeDtypeStruct(v.shape, v.dtype)).serialize(vjp_order=1)
    )
    h = restored.call(x, v)
    return h, restored.vjp().call(x, v, jnp.ones_like(h))


def with_cotangents(f, x, v):
    h, transpose = jax.vjp(f, x, v)
    return h, transpose(jnp.ones_like(h))


def with_gradients(f, x, v):
    return f(x, v), jax.grad(loss, (1, 2))(f, x, v)


def flagged(flag, f, x, v):
    """Compute value and gradients eagerly, with another way of evaluation or with checks of every result."""
    with flag(True):
        return with_gradients(f, x, v)


def in_while_loop(f, x, v):
    start = 0, jnp.zeros(jax.eval_shape(f, x, v).shape, jnp.result_type(x, v))
    return jax.lax.while_loop(lambda state: state[0] < 2, lambda state: (state[0] + 1, f(x, v).astype(start[1].dtype)), start)


TRANSFORMATIONS: dict[str, Any] = {
    "jit": lambda f, x, v: jax.jit(f)(x, v),
    "grad": lambda f, x, v: jax.grad(loss, (1, 2))(f, x, v),
    "jvp": lambda f, x, v: jax.jvp(f, (x, v), (x[::-1], v + 1)),
    "vjp": lambda f, x, v: jax.vjp(f, x, v)[1](f(x, v)),
    "linearize": lambda f, x, v: jax.linearize(f, x, v)[1](x[::-1], v + 1),
    "forward over reverse": lambda f, x, v: jax.jvp(lambda x: jax.grad(loss, 2)(f, x, v), (x,), (x[::-1],)),
    "reverse over reverse": lambda f, x, v: jax.grad(lambda x: jnp.sum(jnp.abs(jax.grad(loss, 2)(f, x, v)) ** 2))(x),
    "vmap x": lambda f, x, v: jax.vmap(f, (0, None))(jnp.stack([x, 2 * x]), v),
    "vmap v": lambda f, x, v: jax.vmap(f, (None, -1))(x, jnp.stack([v, 2 * v], -1)),
    "vmap both": lambda f, x, v: jax.vmap(jax.grad(loss, 2, holomorphic=False), (None, 1, 0))(
        f, jnp.stack([x, 2 * x], 1), jnp.stack([v, 2 * v])
    ),
    "named axis": lambda f, x, v: jax.vmap(lambda x: jax.lax.psum(f(x, v), "batch"), axis_name="batch")(jnp.stack([x, 2 * x])),
    "scan": lambda f, x, v: jax.lax.scan(lambda v, x: (v, jax.grad(loss, 2)(f, x, v)), v, jnp.stack([x, 2 * x]))[1],
    "while": in_while_loop,
    "cond": lambda f, x, v: jax.jit(lambda flag: jax.lax.cond(flag, f, lambda x, v: f(2 * x, v), x, v))(False),
    "remat": lambda f, x, v: jax.grad(loss, (1, 2))(jax.checkpoint(f), x, v),
    "jaxpr": lambda f, x, v: jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(f)(x, v))(x, v),
    "donate": lambda f, x, v: jax.jit(lambda x, v: f(x, v), donate_argnums=0)(jnp.array(x), v),
    "shard_map": in_shard_map,
    "shard_map without types": functools.partial(in_shard_map, check_vma=False),
    "pmap": lambda f, x, v: jax.pmap(f, in_axes=(0, None))(x[None], v),
    "export": exported,
    "disable_jit": functools.partial(flagged, jax.disable_jit),
    "debug_nans": functools.partial(flagged, jax.debug_nans),
    "debug_infs": functools.partial(flagged, jax.debug_infs),
}
ONCE_FAILED = ("shard_map", "export", "disable_jit", "debug_infs")
AUTO = [name for name in OPS if ":" not in name or name.endswith(":auto")]


def operands(name, is_complex):
    """Draw both arrays of an op in double precision."""
    shapes, random = OPS[name][2:], np.random.default_rng(0)
    x, v = (random.normal(size=shape) for shape in ((N, *shapes[0]), shapes[1]))
    return (x + 1j * x[..., ::-1], v - 2j * v[..., ::-1]) if is_complex else (x, v)


@functools.cache
def expected(name, transformation, is_complex):
    """Transform the reference of an op in double precision. Implementations of one op share the result."""
    without = {
        "export": with_cotangents,
        "disable_jit": with_gradients,
        "debug_nans": with_gradients,
        "debug_infs": with_gradients,
    }
    with jax.enable_x64(True):
        arrays = map(jnp.asarray, operands(name, is_complex))
        transform = without.get(transformation) or TRANSFORMATIONS[transformation]
        results = transform(OPS[name][1], *arrays)
        return [np.asarray(result) for result in jax.tree.leaves(results)]


def check(name, transformation, dtype):
    """Compare a transformed op with its transformed reference."""
    is_complex = dtype.startswith("complex")
    if is_complex and name.startswith("max_pool"):  # complex numbers have no maximum
        return
    op = OPS[name][0]
    family = name.split(":")[0]
    shared = next(other for other in OPS if other.split(":")[0] == family and OPS[other][2:] == OPS[name][2:])
    needed = expected(shared, transformation, is_complex)
    with jax.enable_x64(dtype == "float64"):
        results = TRANSFORMATIONS[transformation](op, *(jnp.asarray(a, dtype) for a in operands(name, is_complex)))
    for got, exact in zip(jax.tree.leaves(results), needed, strict=True):
        if jnp.issubdtype(got.dtype, jnp.inexact):
            assert got.dtype == dtype
            got = np.asarray(got, exact.dtype)
        np.testing.assert_allclose(got, exact, rtol=0, atol=DTYPES[dtype] * max(1.0, np.abs(exact).max()))


@pytest.mark.parametrize("name, transformation", list(itertools.product(AUTO, ONCE_FAILED)))
def test_an_op_keeps_its_function_under_a_transformation(name, transformation):
    check(name, transformation, "float32")


@pytest.mark.parametrize("name", AUTO)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_op_and_its_gradients_lower_for_every_platform(name, dtype):
    x, v = (jax.ShapeDtypeStruct(a.shape, dtype) for a in operands(name, False))
    platforms = ("cpu", "cuda", "tpu")
    program = export.export(jax.jit(functools.partial(with_gradients, OPS[name][0])), platforms=platforms)(x, v)
    assert program.platforms == platforms
    assert [array.dtype for array in program.out_avals] == [dtype] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name, transformation", list(itertools.product(OPS, TRANSFORMATIONS)))
def test_every_implementation_keeps_its_function_under_every_transformation(name, transformation):
    for dtype in DTYPES:
        check(name, transformation, dtype)
