"""The sparse random hierarchy model: sequences from production rules, with blanks between symbols."""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.geometry import as_integer
from convlab.tasks.task import Task, make_sampler


def random_hierarchy(levels: int, branching: int, vocabulary: int, synonyms: int, blanks: int, key: PRNGKeyArray) -> Task:
    r"""Make a task of hierarchical sequences with synonyms: the sparse random hierarchy model.

    A symbol of level l is replaced by one of m tuples of s symbols of level l - 1, its synonyms, drawn uniformly. No two
    symbols share a tuple. Each symbol of a tuple is put at a uniform position among s_0 blanks. A blank is replaced by blanks.
    The rules, that is, the tuples of every symbol, are drawn once.

    An image holds the $(s (s_0 + 1))^L$ symbols of the lowest level as one-hot vectors of v channels, with blanks as zeros. The
    label is the one symbol of the top level.

    Symmetries: Exchanging synonyms or moving symbols among their blanks leaves the label unchanged, at any level.

    Predicted number of examples: A deep network with one layer for each level has windows of s (s_0 + 1) positions and strides
    of the same size.

    - Convolution: of the order of $v m^L (s_0 + 1)^2$. A kernel learns the tuples from all positions together.
    - Locally connected: of the order of $v m^L (s_0 + 1)^L$. A kernel sees only the examples whose symbols are in its window,
      and the blanks of every level make them rarer.
    - A shallow network: exponentially many in the number of symbols.

    Args:
      levels: The number of levels L.
      branching: The number of symbols s of a tuple.
      vocabulary: The number of symbols v of every level, which is also the number of classes.
      synonyms: The number of tuples m of each symbol, at most v^(s-1).
      blanks: The number of blanks s_0 around each symbol.
      key: The key of the rules.

    Raises:
      ValueError: There are fewer tuples than the rules need, or a count is below its minimum.
      TypeError: A count is not an integer.

    Example:
      >>> task = random_hierarchy(2, 2, 4, 2, 1, jax.random.key(0))
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
    check.key("key", key)
    check.shape_fits("all tuples of branching symbols of vocabulary", *[v] * min(s, 64 if v > 1 else 0), s)
    if m * v > v**s:
        raise ValueError(f"synonyms is {m}; {v} symbols then need {m * v} tuples, but there are {v**s} of {s} symbols")
    image = (s * (gap + 1)) ** min(depth, 64 if s * (gap + 1) > 1 else 0)
    check.shape_fits("an image of levels, branching, blanks and vocabulary", image, v, max(depth, 1))
    tuples = jnp.array(list(itertools.product(range(v), repeat=s)))
    rules = [jax.random.permutation(level_key, tuples)[: v * m].reshape(v, m, s) for level_key in jax.random.split(key, depth)]

    def write(symbols: Array, rule: Array, key: PRNGKeyArray) -> Array:
        """Replace (p,) symbols, -1 for blanks, by the (p s (s_0 + 1),) symbols of the next level."""
        synonym_key, position_key = jax.random.split(key)
        chosen = rule[symbols, jax.random.randint(synonym_key, symbols.shape, 0, m)]
        position = jax.random.randint(position_key, (*symbols.shape, s, 1), 0, gap + 1)
        is_symbol = (jnp.arange(gap + 1) == position) & (symbols[:, None, None] >= 0)
        return jnp.where(is_symbol, chosen[..., None], -1).ravel()

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, *level_keys = jax.random.split(key, 1 + depth)
        y = jax.random.randint(class_key, (), 0, v)
        symbols = y[None]
        for rule, level_key in zip(rules, level_keys, strict=True):
            symbols = write(symbols, rule, level_key)
        return jax.nn.one_hot(symbols, v), y

    return Task("random hierarchy", ((s * (gap + 1)) ** depth, v), tuple(map(str, range(v))), make_sampler(draw))
