r"""Mode connectivity: paths between two trained networks, and the loss along them.

A path leads through parameter space. It is a function of t that returns the parameters of one network at t = 0 and of the other
at t = 1. Parameters are pytrees with the same structure and shapes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from convlab import check
from convlab.choices import shown
from convlab.geometry import as_integer
from convlab.train.step import Tree, leaves_by_path

MAXIMUM_POINTS = 10**6  # on a path
Path = Callable[[Float[Array, ""] | float], Tree]


def linear_path(a: Tree, b: Tree) -> Path:
    r"""Make the straight path from one network to another.

    $$\theta(t) = (1 - t) a + t b$$

    Args:
      a: The parameters at t = 0.
      b: The parameters at t = 1.

    Returns:
      A function that maps t to parameters.

    Raises:
      ValueError: The parameters differ in structure or shapes.

    Example:
      >>> linear_path({"w": jnp.array([0.0, 2.0])}, {"w": jnp.array([4.0, 2.0])})(0.25)
      {'w': Array([1., 2.], dtype=float32)}
    """
    _check_alike(a=a, b=b)
    return lambda t: jax.tree.map(lambda a, b: (1 - t) * a + t * b, a, b)


def bezier_path(a: Tree, middle: Tree, b: Tree) -> Path:
    r"""Make the quadratic Bezier curve from one network to another.

    $$\theta(t) = (1 - t)^2 a + 2 t (1 - t) \theta_m + t^2 b$$

    Args:
      a: The parameters at t = 0.
      middle: The control point $\theta_m$. It lies on the curve only if it lies on the straight path.
      b: The parameters at t = 1.

    Returns:
      A function that maps t to parameters.

    Raises:
      ValueError: The parameters differ in structure or shapes.

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
    """Evaluate the loss at evenly spaced points on a path, including its ends.

    Batch statistics belong to one network. Between the ends, the statistics of either end or their mean are wrong, and raise
    the loss even if the network is good. `refresh` computes them again at every point.

    Args:
      path: A function that maps t to parameters.
      loss: A function of the parameters, and of the output of `refresh` if that is not None. It returns one number, or several
        by name, and need not be jittable.
      points: The number of points, at least 2.
      refresh: A function that maps parameters to further inputs of `loss`, such as batch statistics.

    Returns:
      One row per point, with "t" and either "loss" or the names that `loss` returns.

    Raises:
      ValueError: `points` is less than 2 or more than a million.
      TypeError: `path`, `loss` or `refresh` is no function, or `loss` returns something else than numbers.

    Example:
      >>> evaluate_along(linear_path(jnp.array(-1.0), jnp.array(1.0)), lambda x: x**2, 3)
      [{'t': 0.0, 'loss': 1.0}, {'t': 0.5, 'loss': 0.0}, {'t': 1.0, 'loss': 1.0}]
    """
    check.function("path", path, "a function from t to parameters, such as linear_path(a, b)")
    check.function("loss", loss, "a function of parameters")
    if refresh is not None:
        check.function("refresh", refresh, "a function of parameters")
    if as_integer("points", points, most=MAXIMUM_POINTS) < 2:
        raise ValueError(f"points must be at least 2, to include both ends of the path, got {points}")
    rows = []
    for t in np.linspace(0, 1, points).tolist():
        parameters = path(t)
        scores = loss(parameters) if refresh is None else loss(parameters, refresh(parameters))
        named = scores if isinstance(scores, Mapping) else {"loss": scores}
        rows.append({"t": t} | {name: float(check.number("the result of loss", value)) for name, value in named.items()})
    return rows


def loss_barrier(rows: Iterable[Mapping[str, float]], name: str = "loss") -> float:
    r"""Compute the loss barrier of a path.

    The barrier is the largest excess of the loss over linear interpolation between the losses at the ends.

    $$\max_t \; L(\theta(t)) - (1 - t) L(\theta(0)) - t L(\theta(1))$$

    Args:
      rows: The rows that `evaluate_along` returns.
      name: The column of the loss.

    Returns:
      The height of the barrier. It is 0 if there is none, as on a straight path under a convex loss, and nan if a loss is nan.

    Raises:
      ValueError: There are fewer than two rows, or a row has no column `name`.
      TypeError: The rows are no mappings, or a column holds something else than numbers.

    Example:
      >>> loss_barrier([{"t": 0.0, "loss": 1.0}, {"t": 0.5, "loss": 3.0}, {"t": 1.0, "loss": 2.0}])
      1.5

    Reference: Entezari et al. 2022, The role of permutation invariance in linear mode connectivity, definition 2.2.
    """
    rows = check.sequence("rows", rows, "rows, such as evaluate_along returns")
    if len(rows) < 2:
        raise ValueError(f"rows must have at least 2 points, the ends of the path, got {len(rows)}; see evaluate_along")
    for row in rows:
        columns = [key for key in check.mapping("rows", row, "numbers by column") if key != "t"]
        if check.text("name", name) not in columns:
            raise ValueError(f"name must be a column of every row ({', '.join(columns)}), got {name!r}")
    points = [[float(check.number(f"{column} of rows", row.get(column))) for column in ("t", name)] for row in rows]
    (_, first), *inside, (_, last) = points
    heights = [height - (1 - t) * first - t * last for t, height in inside]
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
    r"""Train the control point of a Bezier curve of low loss between two networks.

    $$\min_{\theta_m} \; \mathbb{E}_{t \sim U(0, 1)} \, L(\theta(t))$$

    Training starts from the midpoint of the straight path. Each step draws one t and uses one batch.

    Args:
      a: The parameters at t = 0, which stay fixed.
      b: The parameters at t = 1, which stay fixed.
      loss: A jittable function of parameters and a batch. All data must come through the batch, because arrays in the closure
        become constants of the compiled program.
      optimizer: An Optax gradient transformation.
      batches: The batches, one per step, in the form that `loss` takes, such as images and labels, or keys.
      key: The random key for the points on the path.

    Returns:
      The control point `middle`, for `bezier_path(a, middle, b)`.

    Raises:
      ValueError: The parameters `a` and `b` differ in structure or shapes.
      TypeError: An argument has the wrong type, or `loss` returns something else than a number.

    Example:
      >>> def ring(x, _):
      ...     return (jnp.linalg.norm(x) - 1) ** 2
      >>> a, b = jnp.array([-1.0, 0.1]), jnp.array([1.0, 0.1])
      >>> middle = fit_bezier(a, b, ring, optax.adam(0.1), range(200), key=jax.random.key(0))
      >>> paths = linear_path(a, b), bezier_path(a, middle, b)
      >>> [loss_barrier(evaluate_along(path, lambda x: ring(x, None))) < 0.05 for path in paths]
      [False, True]

    Reference: Garipov et al. 2018, equation 2.
    """
    middle = linear_path(a, b)(0.5)
    check.function("loss", loss, "a function of parameters and a batch")
    state, key = check.optimizer("optimizer", optimizer).init(middle), check.key("key", key)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be an iterable of batches, got {shown(batches)}")

    def scalar(parameters, batch):
        return check.number("the result of loss", loss(parameters, batch))

    @jax.jit
    def step(middle, state, a, b, batch, key):
        t = jax.random.uniform(key)
        gradient = jax.grad(lambda middle: scalar(bezier_path(a, middle, b)(t), batch))(middle)
        updates, state = optimizer.update(gradient, state, middle)
        return optax.apply_updates(middle, updates), state

    for number, batch in enumerate(batches):
        middle, state = step(middle, state, a, b, check.tree("batches", batch), jax.random.fold_in(key, number))
    return middle


def _check_alike(**trees: Tree) -> None:
    """Raise ValueError unless all trees have the same leaves, of the same shapes."""
    leaves = {name: leaves_by_path(check.tree(name, tree)) for name, tree in trees.items()}
    shapes = {name: {path: jnp.shape(leaf) for path, leaf in by_path.items()} for name, by_path in leaves.items()}
    (first, expected), *others = shapes.items()
    for name, got in others:
        mismatches = [path for path in {**expected, **got} if expected.get(path) != got.get(path)]
        if mismatches:
            listed = "; ".join(f"{path or 'the array'}: {expected.get(path)} and {got.get(path)}" for path in mismatches[:5])
            raise ValueError(f"{first} and {name} have different shapes ({listed}); a path needs the same structure and shapes")
