"""Hypothesis strategies for windows on small images, with the pixels that they read."""

import numpy as np
import oracle
from hypothesis import assume
from hypothesis import strategies as st

from convlab import Window

NAMES = ["SAME", "SAME_LOWER", "VALID", "FULL", "CIRCULAR", "REFLECT", "EDGE"]
LARGEST = {1: (11, 5, 3), 2: (7, 4, 2), 3: (4, 3, 2)}  # ndim -> largest pixels, taps and steps per axis


@st.composite
def windows(draw, ndims=(1, 2, 3), names=(*NAMES, "CAUSAL"), cells=4000):
    """Draw (window, space, reads) with any padding, stride and dilation and at least one output."""
    ndim = draw(st.sampled_from(ndims))
    pixels, taps, steps = LARGEST[ndim]

    def axes(most):
        return draw(st.tuples(*[st.integers(1, most)] * ndim))

    space, strides, dilation = axes(pixels), axes(steps), axes(steps)
    square = draw(st.booleans())  # swapped taps go unnoticed or raise errors, depending on whether windows are square
    size = (draw(st.integers(2, taps)),) * ndim if square else axes(taps)
    name = st.sampled_from([name for name in names if ndim == 1 or name != "CAUSAL"])
    padding = draw(name | st.tuples(*[st.sampled_from(names) | st.tuples(st.integers(0, 2), st.integers(0, 2))] * ndim))
    window, space, reads = case(space, size, strides, padding, dilation)
    assume(all(len(table) > 0 for table in reads))
    assume(np.prod([len(table) * len(table[0]) for table in reads]) <= cells)
    return window, space, reads


def case(space, size, strides, padding, dilation):
    """Return (window, space, reads) for explicit arguments, as `windows` draws it."""
    return Window(size, strides, padding, dilation), space, oracle.tables(space, size, strides, dilation, padding)


def gaussian(*shapes, seed=0):
    """Draw float64 Gaussian arrays of the given shapes."""
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in shapes]
