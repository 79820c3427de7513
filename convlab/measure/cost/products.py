"""Multiply-adds of a traced program, by one rule for every operation of JAX.

A multiply-add is one product and its addition to a sum, in a dot product, a convolution or a layer of convlab. A product with a
zero that a convolution itself inserts, as padding or between pixels, is not counted. Operations on single elements, reductions
and moves of data have no multiply-adds. Those of an operation without a rule are not known.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from convlab.kernels.form import sizes


def dot_products(equation: Any) -> int:
    """Count the products of a dot product: one for each output and each contracted index."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    return math.prod(_shape(equation.outvars[0])) * math.prod(shape[axis] for axis in contracted)


def convolution_products(equation: Any) -> int:
    """Count the products of XLA's convolution with pixels, not with padding or with zeros between them."""
    params = equation.params
    images, kernel, outputs = params["dimension_numbers"]
    x, v, h = (_shape(variable) for variable in (*equation.invars, *equation.outvars))
    products = h[outputs[0]] * h[outputs[1]] * v[kernel[1]]
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    for axis, (stride, (low, _), spread, dilation) in enumerate(zip(*(params[name] for name in names), strict=True), 2):
        products *= _reads(x[images[axis]], v[kernel[axis]], h[outputs[axis]], stride, low, spread, dilation)
    return products


def _reads(pixels: int, taps: int, outputs: int, stride: int, low: int, spread: int, dilation: int) -> int:
    r"""Count the pairs of output and tap that read a pixel along one axis, where pixels are `spread` apart.

    $$\#\{\, (i, a) : si + ta - p = e k, \; 0 \le k < K \,\}$$

    Outputs that are `spread` apart read pixels at the same distance, so that those of one remainder form one range.
    """
    total, last = 0, (pixels - 1) * spread
    for first in range(min(spread, outputs)):
        start = first * stride - low + np.arange(taps) * dilation
        step = stride * spread
        begin, end = np.maximum(-(start // step), 0), np.minimum((last - start) // step + 1, -(-(outputs - first) // spread))
        total += int(np.where(start % spread == 0, np.maximum(end - begin, 0), 0).sum())
    return total


def form_products(equation: Any) -> int:
    """Count the products of convlab's primitive.

    They are the terms of the trilinear form, which the layer and its two gradients share.
    """
    form, wrt = equation.params["form"], equation.params["wrt"]
    size = sizes(wrt, *(variable.aval for variable in equation.invars))
    axes = [_reads(axis.pixels, axis.size, axis.outputs, axis.stride, axis.low, 1, axis.dilation) for axis in form.axes]
    return math.prod(axes) * math.prod(size[letter] for letter in "sncd")


PRODUCTS: dict[str, Callable[[Any], int]] = {
    "dot_general": dot_products,
    "conv_general_dilated": convolution_products,
    "convlab_form": form_products,
}
FREE = frozenset(  # operations without multiply-adds
    [
        *(
            "abs",
            "acos",
            "acosh",
            "add",
            "add_any",
            "and",
            "asin",
            "asinh",
            "atan",
            "atan2",
            "atanh",
            "bessel_i0e",
            "bessel_i1e",
        ),
        *("bitcast_convert_type", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type", "copy"),
        *("cos", "cosh", "digamma", "div", "eq", "eq_to", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge"),
        *("gt", "igamma", "igamma_grad_a", "igammac", "imag", "integer_pow", "is_finite", "le", "le_to", "lgamma", "log"),
        *("log1p", "logistic", "lt", "lt_to", "max", "min", "mul", "mulhi", "name", "ne", "neg", "nextafter", "not", "or"),
        *("polygamma", "population_count", "pow", "real", "reduce_precision", "regularized_incomplete_beta", "rem", "round"),
        *("rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt"),
        *("square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta", "random_gamma"),
        *("approx_top_k", "argmax", "argmin", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "reduce_and"),
        *("reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_window_max", "reduce_window_min"),
        *("reduce_window_sum", "reduce_xor", "select_and_gather_add", "select_and_scatter_add", "sort", "top_k"),
        *("broadcast_in_dim", "broadcast_to", "concatenate", "device_put", "dynamic_slice"),
        *("dynamic_update_slice", "empty", "empty2", "gather", "iota", "iota_2x32_shape", "pad", "reshape", "rev", "scatter"),
        *("scatter-add", "scatter-max", "scatter-min", "scatter-mul", "scatter-sub"),
        *("slice", "split", "squeeze", "stack", "tile", "transpose", "unstack"),
        *("philox2x32", "philox4x32", "random_bits", "random_clone", "random_fold_in", "random_seed", "random_split"),
        *("random_unwrap", "random_wrap", "rng_bit_generator", "rng_uniform", "threefry2x32", "threefry4x32"),
        *("all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all", "axis_index", "pbroadcast", "pmax", "pmin"),
        *(
            "ppermute",
            "psum",
            "preduced",
            "psum2",
            "psum_invariant",
            "psum_scatter",
            "pvary",
            "ragged_all_to_all",
            "reduce_scatter",
        ),
        *("reshard", "sharding_constraint", "layout_constraint", "with_memory_space_constraint"),
        *("addupdate", "get", "swap", "num_programs", "program_id"),
        *("after_all", "check", "create_token", "debug_callback", "debug_print", "dim_as_value", "dimension_size"),
        *("inspect_sharding", "optimization_barrier", "platform_index", "shape_assertion", "lu_pivots_to_permutation"),
        *("reduced_vary_cast_p", "unreduced_psum", "unreduced_reduce_scatter", "vary_unreduced_cast_p"),
    ]
)
ONCE = (
    *("call", "checkpoint", "closed_call", "composite", "core_call", "core_closed_call", "custom_jvp_call", "custom_vjp_call"),
    *("custom_vjp_call_jaxpr", "custom_vmap_call", "jit", "pjit", "remat", "remat2"),
)


def _devices(params: Mapping[str, Any]) -> int:
    """Count the devices that run a program. The name of the parameter depends on the version of JAX."""
    axes = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
    return math.prod(params["mesh"].shape[axis] for axis in axes)


# name -> function from the parameters of an operation to the number of times that it runs its programs
REPEATS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    **dict.fromkeys(ONCE, lambda params: 1),
    "scan": lambda params: params["length"],
    "shard_map": _devices,
}


class Key(NamedTuple):
    """The module that an amount belongs to, or None for the whole network, and the name of the amount."""

    owner: Any
    name: str


@dataclasses.dataclass
class Tally:
    """Hold amounts by owner, and the operations whose multiply-adds are not known.

    Attributes:
      amounts: The amounts. Multiply-adds are lower bounds for owners with unknown operations.
      unknown: The pairs of an owner and the name of an operation.
    """

    amounts: Counter[Key] = dataclasses.field(default_factory=Counter)
    unknown: dict[Key, None] = dataclasses.field(default_factory=dict)  # an ordered set

    def add(self, owner: Any, amounts: Mapping[str, int]) -> None:
        """Add amounts to those of an owner and to those of the network."""
        for name, amount in amounts.items():
            for key in (Key(owner, name), Key(None, name)):
                self.amounts[key] += amount

    def mark_unknown(self, owner: Any, operation: str) -> None:
        """Name an operation whose multiply-adds are not known."""
        self.unknown |= {Key(owner, operation): None, Key(None, operation): None}

    def merge(self, program: "Tally", operation: str, times: int | None) -> None:
        """Add the tally of a program that an operation runs a number of times.

        If the number is None, its multiply-adds are not known, and the other amounts are those of one run.
        """
        for key, amount in program.amounts.items():
            if times is not None:
                self.amounts[key] += times * amount
            elif key.name != "multiply_adds":
                self.amounts[key] += amount
            elif amount:
                self.unknown[Key(key.owner, operation)] = None
        if times != 0:
            self.unknown |= program.unknown

    def merge_branches(self, branches: list["Tally"], operation: str) -> None:
        """Add the least amounts of alternative tallies. Multiply-adds that differ are not known."""
        for key in dict.fromkeys(key for branch in branches for key in branch.amounts):
            amounts = {branch.amounts[key] for branch in branches}
            self.amounts[key] += min(amounts)
            if key.name == "multiply_adds" and len(amounts) > 1:
                self.unknown[Key(key.owner, operation)] = None
        for branch in branches:
            self.unknown |= branch.unknown


Special = Callable[[Any, str], tuple[Any, Mapping[str, int] | None]]


def tally(jaxpr: Jaxpr, special: Special, scope: str = "") -> Tally:
    """Count the multiply-adds of a traced program by owner.

    Args:
      jaxpr: The program.
      special: A function of an equation and its name stack. It returns the owner of the equation, and the amounts to count
        instead of those of its multiply-adds, or None.
      scope: The name stack of the program.
    """
    result = Tally()
    for equation in jaxpr.eqns:
        stack, name = f"{scope}/{equation.source_info.name_stack}", equation.primitive.name
        owner, amounts = special(equation, stack)
        if amounts is not None:
            result.add(owner, amounts)
        elif name in PRODUCTS:
            result.add(owner, {"multiply_adds": PRODUCTS[name](equation)})
        elif name == "cond":
            result.merge_branches([tally(branch.jaxpr, special, stack) for branch in equation.params["branches"]], name)
        elif name not in FREE:
            programs = [tally(program, special, stack) for program in _programs([*equation.params.values()])]
            for program in programs:
                result.merge(program, name, REPEATS[name](equation.params) if name in REPEATS else None)
            if not programs:
                result.mark_unknown(owner, name)
    return result


def _programs(values: Any) -> Iterator[Jaxpr]:
    """Yield the programs among the parameters of an operation."""
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _programs(value)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
