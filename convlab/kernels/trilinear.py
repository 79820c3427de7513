r"""The trilinear form of all windowed layers, closed under differentiation and `vmap`.

$$T(x, v, g) = \sum_{snijabcd} x_{s\,n\,i+a\,j+b\,c} \; v_{s\,i\,j\,abcd} \; g_{s\,nijd}$$

For a convolution, v has no i and j. For a tiled layer, v has their remainders modulo the period. The derivative of T with
respect to g is the layer's output h. The derivatives with respect to x and v are its two gradients. Each derivative is bilinear
in the other two arrays, and each is a transpose of the other two. So three functions suffice for forward mode, reverse mode and
all higher derivatives. The letter s stacks independent forms, for example groups of channels or networks.

An axis that `vmap` adds to two of the three arrays is merged with the letter that they share. This is n for x and h, d for v
and h, and c for x and v. An axis that it adds to all three arrays is merged with s. So a batched form is a larger form of the
same kind.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, DTypeLike, Float

from convlab import check
from convlab.choices import one_of
from convlab.kernels import sharding
from convlab.kernels.form import LETTERS, OTHERS, Form, known_sizes, proxy
from convlab.kernels.table import FAMILIES, choose, implement
from convlab.unfold import extend

SHARED = {frozenset("xh"): "n", frozenset("vh"): "d", frozenset("xv"): "c", frozenset("xvh"): "s"}


def layer(
    x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form, dtype: DTypeLike | None = None
) -> Float[Array, "s n *out d"]:
    """Compute the layer's output h, the derivative of the form with respect to g.

    Args:
      x: The images.
      v: The kernels.
      form: The form.
      dtype: The dtype of the result. If None, the dtype of the operands.
    """
    x, v = sharding.vary_alike(x, v)
    return form_p.bind(x, v, wrt="h", form=form, dtype=jnp.dtype(dtype or jnp.result_type(x, v)))


def windowed(
    x: Float[Array, "*n k l c"], v: Array, form: Form, groups: int = 1, dtype: DTypeLike | None = None
) -> Float[Array, "*n i j d"]:
    """Apply a windowed layer to arrays in the public layout.

    Unlike `layer`, this supports any number of batch axes, groups of channels and padding that repeats pixels. An eager call
    runs one program.

    Raises:
      ValueError: The family has no implementation of this name.
    """
    one_of("implementation", form.implementation, ("auto", *FAMILIES[form.family].implementations))
    eager = check.is_concrete(x) and check.is_concrete(v)
    return _windowed(x, v, dataclasses.replace(form, eager=eager), groups, dtype)


@functools.partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _windowed(x: Array, v: Array, form: Form, groups: int, dtype: DTypeLike | None) -> Array:
    start = x.ndim - 1 - form.ndim
    batch, space = x.shape[:start], x.shape[start:-1]
    x, v = _stack_groups(x.reshape(math.prod(batch), *space, x.shape[-1]), groups), _stack_groups(v, groups)

    def part(x: Array, v: Array, form: Form) -> Array:
        repeating = tuple(axis._replace(low=0, high=0) if axis.mode == "zero" else axis for axis in form.axes)
        x, axes = extend(x, repeating, 2), []
        for axis in form.axes:
            pixels = axis.low + axis.pixels + axis.high
            axes.append(axis if axis.mode == "zero" else axis._replace(pixels=pixels, low=0, high=0, mode="zero"))
        return layer(x, v, form.with_axes(axes), dtype)

    h = sharding.windowed(part, x, v, form)
    features = groups * h.shape[-1]
    h = h[0] if groups == 1 else jnp.moveaxis(h, 0, -2)
    return h.reshape(*batch, *form.outputs, features)


def _stack_groups(array: Array, groups: int) -> Array:
    """Move groups of channels to a new first axis."""
    if groups == 1:  # XLA copies what it believes to be transposed, even if the axis has size 1
        return array[None]
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups), -2, 0)


form_p = Primitive("convlab_form")


def _derivative(p: Array, q: Array, *, wrt: str, form: Form, dtype: np.dtype, platform: str) -> Array:
    compute = jnp.promote_types(jnp.result_type(p, q), dtype)
    p, q = p.astype(compute), q.astype(compute)
    result = form.shape(wrt, p, q)
    size = known_sizes(wrt, p, q)
    if 0 in size.values():  # an empty batch
        return jnp.zeros(result, dtype)
    return implement(form, choose(form, wrt, size, platform), wrt, p, q).astype(dtype)


@form_p.def_abstract_eval
def _abstract(p, q, *, wrt, form, dtype):
    """Return shape, dtype and varying mesh axes of the result, which JAX derives from a proxy."""
    return jax.make_jaxpr(lambda p, q: proxy(form, wrt, p, q).astype(dtype))(p, q).out_avals[0]


_compiled = jax.jit(form_p.bind, static_argnames=("wrt", "form", "dtype"))


@form_p.def_impl
def _evaluate(p, q, *, wrt, form, dtype):
    """Evaluate the primitive outside of a trace.

    It is compiled, or runs operation by operation under `jax.disable_jit`.
    """
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return _derivative(p, q, wrt=wrt, form=form, dtype=dtype, platform=jax.default_backend())
    return _compiled(p, q, wrt=wrt, form=form, dtype=dtype)


def _transpose(operand: int):
    """Make the transpose rule of operand 0 or 1: the derivative by that operand."""

    def rule(cotangent, p, q, *, wrt, form, dtype):
        name = OTHERS[wrt][operand]
        arrays = {wrt: cotangent, OTHERS[wrt][1 - operand]: (q, p)[operand]}
        unknown = (p, q)[operand].aval
        return form_p.bind(*(arrays[other] for other in OTHERS[name]), wrt=name, form=form, dtype=unknown.dtype)

    return rule


ad.defbilinear(form_p, _transpose(0), _transpose(1))


def _batch(arrays, dims, *, wrt, form, dtype):
    batched = {name: dim for name, dim in zip(OTHERS[wrt], dims, strict=True) if dim is not None}
    letter = SHARED[frozenset(("".join(batched)) + wrt)]
    operands, extra, inner = [], 0, 0
    for name, array in zip(OTHERS[wrt], arrays, strict=True):
        if name in batched:
            at = LETTERS[name][letter] % (array.ndim - 1)
            array = jnp.moveaxis(array, batched[name], at)
            extra, inner = array.shape[at : at + 2]
            array = array.reshape(*array.shape[:at], extra * inner, *array.shape[at + 2 :])
        operands.append(array)
    out = form_p.bind(*operands, wrt=wrt, form=form, dtype=dtype)
    at = LETTERS[wrt][letter] % out.ndim
    return out.reshape(*out.shape[:at], extra, inner, *out.shape[at + 1 :]), at


batching.primitive_batchers[form_p] = _batch
mlir.register_lowering(form_p, mlir.lower_fun(functools.partial(_derivative, platform="cpu"), False), platform="cpu")
mlir.register_lowering(form_p, mlir.lower_fun(functools.partial(_derivative, platform="other"), False))
