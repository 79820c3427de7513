"""What property tests draw: windows on small images, with what the oracle says they read."""

import numpy as np
import oracle
from hypothesis import assume
from hypothesis import strategies as st

from convlab import Window

NAMES = ["SAME", "SAME_LOWER", "VALID", "FULL", "CIRCULAR", "REFLECT", "EDGE"]
LARGEST = {1: (11, 5, 3), 2: (7, 4, 2), 3: (4, 3, 2)}  # pixels, taps, stride and dilation an axis, by rank


@st.composite
def windows(draw, ranks=(1, 2, 3), names=(*NAMES, "CAUSAL"), cells=4000):
    """Draw (window, space, reads): unequal axes, any padding, stride and dilation, at least one output."""
    rank = draw(st.sampled_from(ranks))
    pixels, taps, steps = LARGEST[rank]

    def axes(most):
        return draw(st.tuples(*[st.integers(1, most)] * rank))

    space, strides, dilation = axes(pixels), axes(steps), axes(steps)
    square = draw(st.booleans())  # square windows let swapped taps through where oblong ones raise, and the other way round
    size = (draw(st.integers(2, taps)),) * rank if square else axes(taps)
    padding = draw(st.sampled_from([name for name in names if rank == 1 or name != "CAUSAL"]) | _pairs(rank))
    window, space, reads = case(space, size, strides, padding, dilation)
    assume(all(len(table) > 0 for table in reads))
    assume(np.prod([len(table) * len(table[0]) for table in reads]) <= cells)
    return window, space, reads


def case(space, size, strides, padding, dilation):
    """What `windows` draws, chosen by hand."""
    return Window(size, strides, padding, dilation), space, oracle.tables(space, size, strides, dilation, padding)


def _pairs(rank):
    return st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank)


def gaussian(*shapes, seed=0):
    """Gaussian arrays of the shapes, float64."""
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in shapes]
