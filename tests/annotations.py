"""Check every type annotation of convlab while its examples run.

The command is `PYTHONPATH=tests python -m pytest -p annotations convlab`. The annotations are written for images with two
spatial axes. This plugin also accepts images with one or three.
"""

import functools
import operator
import types
import typing

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import install_import_hook

PAIRS = ("k l", "i j", "p q", "a b", "e f", "g h")  # axis names that are repeated for each spatial axis
check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # accept an int for a float, as type checkers do


def read_for(ndim, annotation):
    """Rewrite an annotation for images with `ndim` spatial axes, with unique axis names."""
    if hasattr(annotation, "dim_str"):
        axes = annotation.dim_str
        for pair in PAIRS:
            axes = axes.replace(pair, " ".join(f"{pair[0]}{axis}" for axis in range(ndim)))
        named = (f"{axis}_{ndim}" if axis.strip("*#").isidentifier() else axis for axis in axes.split())
        return annotation.dtype[annotation.array_type, " ".join(named)]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    rewritten = tuple(read_for(ndim, part) for part in parts)
    if all(new is part for new, part in zip(rewritten, parts, strict=True)):
        return annotation
    return functools.reduce(operator.or_, rewritten) if origin in (typing.Union, types.UnionType) else origin[rewritten]


def typechecked(function):
    """Check a function's annotations for two spatial axes, then for one, then for three."""
    if isinstance(function, type):
        return function
    versions = []
    for ndim in (2, 1, 3):
        copy = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__annotations__ = {name: read_for(ndim, annotation) for name, annotation in function.__annotations__.items()}
        versions.append(check(copy))

    def checked(*arguments, **options):
        violations = []
        for version in versions:
            try:
                return version(*arguments, **options)
            except BeartypeCallHintViolation as violation:
                violations.append(violation)
        raise violations[0]

    return checked


def pytest_configure():
    """Check all modules of convlab that are imported from now on."""
    install_import_hook("convlab", "annotations.typechecked")
