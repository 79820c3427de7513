"""Compile every function of convlab: use `import compiled as cl` for `import convlab as cl`.

Called eagerly, a function compiles one program for each operation and shape, which takes most of the time of a test on small
arrays. Here every call is one program. Arguments that are not arrays (windows, shapes, names) are static.
"""

import functools
import inspect
from typing import Any

import jax
import numpy as np

import convlab

ARRAYS = (jax.Array, np.ndarray, np.generic)


def compiled(function):
    """Compile a function whose non-array arguments are static."""

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def program(structure, static, arrays):
        leaves = [leaf if array is None else array for (_, leaf), array in zip(static, arrays, strict=True)]
        arguments, options = jax.tree.unflatten(structure, leaves)
        return function(*arguments, **options)

    @functools.wraps(function)
    def call(*arguments, **options):
        leaves, structure = jax.tree.flatten((arguments, options))
        arrays = [leaf if isinstance(leaf, ARRAYS) else None for leaf in leaves]
        static = tuple(
            (type(leaf), None if isinstance(leaf, ARRAYS) else leaf) for leaf in leaves
        )  # the type distinguishes 1 from 1.0
        return program(structure, static, arrays)

    return call


_of_convlab = functools.cache(compiled)


def __getattr__(name: str) -> Any:
    value = getattr(convlab, name)
    return _of_convlab(value) if inspect.isfunction(value) else value
