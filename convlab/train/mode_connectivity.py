r"""Between two trained networks: straight and curved paths through their parameters, and the loss along them.

A path is a function of t that takes 0 to the one and 1 to the other; parameters are any pytrees of one form.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from convlab.train.step import Tree, by_path

Path = Callable[[Float[Array, ""] | float], Tree]


def linear_path(a: Tree, b: Tree) -> Path:
    r"""Return the straight path from one network to another.

    $$\theta(t) = (1 - t) a + t b$$

    Args:
      a: Parameters at t = 0.
      b: Parameters at t = 1.

    Raises:
      ValueError: They are not of one network.

    Example:
      >>> linear_path({"w": jnp.array([0.0, 2.0])}, {"w": jnp.array([4.0, 2.0])})(0.25)
      {'w': Array([1., 2.], dtype=float32)}
    """
    _check_alike(a=a, b=b)
    return lambda t: jax.tree.map(lambda a, b: (1 - t) * a + t * b, a, b)


def bezier_path(a: Tree, middle: Tree, b: Tree) -> Path:
    r"""Return the quadratic curve from one network to another that a third one bends.

    $$\theta(t) = (1 - t)^2 a + 2 t (1 - t) \theta_m + t^2 b$$

    Args:
      a: Parameters at t = 0.
      middle: What bends the path; it lies on it only where it lies on the line.
      b: Parameters at t = 1.

    Raises:
      ValueError: They are not of one network.

    Example:
      >>> bezier_path(jnp.array([-1.0, 0.0]), jnp.array([0.0, 2.0]), jnp.array([1.0, 0.0]))(0.5)
      Array([0., 1.], dtype=float32)

    Reference: Garipov et al. 2018, Loss surfaces, mode connectivity, and fast ensembling of DNNs, equation 4.
    """
    _check_alike(a=a, middle=middle, b=b)
    return lambda t: jax.tree.map(lambda a, m, b: (1 - t) ** 2 * a + 2 * t * (1 - t) * m + t**2 * b, a, middle, b)


def evaluate_along(
    path: Path, loss: Callable[..., Any], points: int = 11, *, refresh: Callable[[Tree], Any] | None = None
) -> list[dict[str, float]]:
    """Score the networks on a path at evenly spaced points, the ends among them.

    Batch statistics belong to their network: those of either end, or their mean, are wrong in between, and raise the loss where
    the network may be good. `refresh` measures them anew at every point.

    Args:
      path: Takes t to parameters.
      loss: Of parameters, and of what `refresh` returns where that is given. A number, or several by name; need not be jax.
      points: How many, at least 2.
      refresh: Takes parameters to what the loss needs besides them.

    Returns:
      A row a point: "t", and "loss" or the names.

    Raises:
      ValueError: `points` is less than 2.

    Example:
      >>> evaluate_along(linear_path(jnp.array(-1.0), jnp.array(1.0)), lambda x: x**2, 3)
      [{'t': 0.0, 'loss': 1.0}, {'t': 0.5, 'loss': 0.0}, {'t': 1.0, 'loss': 1.0}]
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, the ends of the path; got {points}")
    rows = []
    for t in np.linspace(0, 1, points).tolist():
        parameters = path(t)
        scores = loss(parameters) if refresh is None else loss(parameters, refresh(parameters))
        named = scores if isinstance(scores, Mapping) else {"loss": scores}
        rows.append({"t": t} | {name: float(value) for name, value in named.items()})
    return rows


def barrier(rows: Iterable[Mapping[str, float]], name: str = "loss") -> float:
    r"""Tell how high the loss rises on a path over the line between its ends' losses.

    $$\max_t \; L(\theta(t)) - (1 - t) L(\theta(0)) - t L(\theta(1))$$

    Args:
      rows: What `along` returns.
      name: Of the loss in them.

    Returns:
      The height; 0 where it never rises, as on the straight path of a convex loss; nan where a loss is.

    Raises:
      ValueError: Fewer rows than the two ends, or a row without that loss.

    Example:
      >>> barrier([{"t": 0.0, "loss": 1.0}, {"t": 0.5, "loss": 3.0}, {"t": 1.0, "loss": 2.0}])
      1.5

    Reference: Entezari et al. 2022, The role of permutation invariance in linear mode connectivity, definition 2.2.
    """
    rows = list(rows)
    if len(rows) < 2:
        raise ValueError(f"rows holds {len(rows)} points but a path has two ends; evaluate_along() scores them")
    for row in rows:
        if name not in row:
            raise ValueError(f"name {name!r} is not in a row; it has {', '.join(key for key in row if key != 't')}")
    first, last = rows[0][name], rows[-1][name]
    heights = [row[name] - (1 - row["t"]) * first - row["t"] * last for row in rows[1:-1]]
    return float(np.max([0.0 * (first + last), *heights], initial=0.0))


def fit_bezier(
    a: Tree,
    b: Tree,
    loss: Callable[[Tree, Any], Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    batches: Iterable[Any],
    *,
    key: jax.Array,
) -> Tree:
    r"""Find the middle of a `bezier` path of low loss, by descending from the middle of the line.

    $$\min_{\theta_m} \; \mathbb{E}_{t \sim U(0, 1)} \, L(\theta(t))$$

    Each step draws one t, and takes one batch.

    Args:
      a: Parameters at t = 0, which stay.
      b: Parameters at t = 1, which stay.
      loss: Of parameters and a batch, jittable; all data must come through the batch, as what it closes over is compiled in.
      optimizer: An Optax transformation.
      batches: One a step: whatever `loss` takes, such as images and labels, or keys.
      key: Of the points on the path.

    Returns:
      The middle, for `bezier_path(a, middle, b)`.

    Raises:
      ValueError: The ends are not of one network.

    Example:
      >>> def ring(x, _):
      ...     return (jnp.linalg.norm(x) - 1) ** 2
      >>> a, b = jnp.array([-1.0, 0.1]), jnp.array([1.0, 0.1])
      >>> middle = fit_bezier(a, b, ring, optax.adam(0.1), range(200), key=jax.random.key(0))
      >>> paths = linear_path(a, b), bezier_path(a, middle, b)
      >>> [barrier(evaluate_along(path, lambda x: ring(x, None))) < 0.05 for path in paths]
      [False, True]

    Reference: Garipov et al. 2018, equation 2.
    """
    middle = linear_path(a, b)(0.5)
    state = optimizer.init(middle)

    @jax.jit
    def step(middle, state, a, b, batch, key):
        t = jax.random.uniform(key)
        gradient = jax.grad(lambda middle: loss(bezier_path(a, middle, b)(t), batch))(middle)
        updates, state = optimizer.update(gradient, state, middle)
        return optax.apply_updates(middle, updates), state

    for number, batch in enumerate(batches):
        middle, state = step(middle, state, a, b, batch, jax.random.fold_in(key, number))
    return middle


def _check_alike(**trees: Tree) -> None:
    """Raise ValueError unless all trees have the same leaves, of the same shapes."""
    shapes = {name: {path: jnp.shape(leaf) for path, leaf in by_path(tree).items()} for name, tree in trees.items()}
    (first, expected), *others = shapes.items()
    for name, got in others:
        wrong = [path for path in {**expected, **got} if expected.get(path) != got.get(path)]
        if wrong:
            told = "; ".join(f"{path or 'the array'}: {expected.get(path)} and {got.get(path)}" for path in wrong[:5])
            raise ValueError(f"{first} and {name} have arrays of other shapes ({told}): a path needs networks of one form")
