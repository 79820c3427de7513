"""Data that grow by rules, level by level, with blanks between: what depth and windows are for."""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab.geometry import as_integer
from convlab.tasks.task import Task, one_by_one


def hierarchy(levels: int, branching: int, vocabulary: int, synonyms: int, blanks: int, key: PRNGKeyArray) -> Task:
    r"""A class that is written out level by level, each symbol as one of its synonyms: the sparse random hierarchy.

    A symbol of level l becomes one of m tuples of s symbols of level l - 1, uniformly; no two symbols share a tuple. Each
    symbol of a tuple stands at a uniform place among s_0 blanks of its own, and a blank becomes blanks. The class is the symbol
    of the top level, and what is seen are the $(s (s_0 + 1))^L$ symbols of the lowest, one-hot, blanks as zeros.

    Symmetries: synonyms may be exchanged, and symbols moved among their blanks, at any level, without changing the class.

    Predicted need for examples, for v classes: a deep network with windows of s (s_0 + 1) and strides as wide of the order of
    $v m^L (s_0 + 1)^L$ with kernels of their own at every position, and $v m^L (s_0 + 1)^2$ with shared ones; a shallow one
    exponentially many in the number of symbols.

    Args:
      levels: L.
      branching: s, symbols of a tuple.
      vocabulary: v, symbols of every level, and classes.
      synonyms: m, tuples of each symbol, at most v^(s-1).
      blanks: s_0, beside each symbol.
      key: Draws the rules.

    Raises:
      ValueError: There are not tuples enough, or a count is below its least.

    Example:
      >>> task = hierarchy(2, 2, 4, 2, 1, jax.random.key(0))
      >>> x, y = task.sample(jax.random.key(1), 3)
      >>> x.shape, x.sum((1, 2)).tolist()
      ((3, 16, 4), [4.0, 4.0, 4.0])

    Reference: Tomasini and Wyart 2024, How deep networks learn sparse and hierarchical data, the
    sections on the model and on its sample complexity.
    """
    depth, s, v = (
        as_integer(name, n) for name, n in (("levels", levels), ("branching", branching), ("vocabulary", vocabulary))
    )
    m, gap = as_integer("synonyms", synonyms), as_integer("blanks", blanks, least=0)
    if m * v > v**s:
        raise ValueError(f"{v} symbols with {m} synonyms need {m * v} tuples, but there are {v**s} of {s} symbols")
    tuples = jnp.array(list(itertools.product(range(v), repeat=s)))
    rules = [jax.random.permutation(each, tuples)[: v * m].reshape(v, m, s) for each in jax.random.split(key, depth)]

    def write(symbols: Array, rule: Array, key: PRNGKeyArray) -> Array:
        """One level: (p,) symbols, -1 for blanks, to (p s (s_0 + 1),)."""
        which, where = jax.random.split(key)
        chosen = rule[symbols, jax.random.randint(which, symbols.shape, 0, m)]
        place = jax.random.randint(where, (*symbols.shape, s, 1), 0, gap + 1)
        here = (jnp.arange(gap + 1) == place) & (symbols[:, None, None] >= 0)
        return jnp.where(here, chosen[..., None], -1).ravel()

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, *keys = jax.random.split(key, 1 + depth)
        y = jax.random.randint(which, (), 0, v)
        symbols = y[None]
        for rule, own in zip(rules, keys, strict=True):
            symbols = write(symbols, rule, own)
        return jax.nn.one_hot(symbols, v), y

    return Task("hierarchy", ((s * (gap + 1)) ** depth, v), tuple(map(str, range(v))), one_by_one(draw))
