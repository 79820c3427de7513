"""Optax transformations and penalties that learn or enforce a convolution's constraints.

| name | effect on the parameters | place |
|---|---|---|
| `beta_lasso` | gradient steps that set small weights to exactly zero | an optimizer |
| `soft_threshold` | proximal gradient steps of an L1 penalty, with exact zeros | an optimizer |
| `project_every` | every m-th update replaces them by their projection, such as shared kernels | last in a chain |
| `tie_gradients` | each step is the same for all tied kernels | before the optimizer |
| `add_penalty` | adds the gradient of a scalar function | before the optimizer |
| `keep_pruned` | keeps pruned weights at exactly zero | last in a chain |

There are three penalties. `projection_penalty` is the distance from a projection, for soft tying or soft locality.
`locality_penalty` is the size of the weights by their distance from the window's centre. `neighbour_penalty` is the difference
between units that are neighbours on a layer's sheet, for topographic maps.

`sharing_projection` makes the projection of a model's kernels, and `at_paths` combines projections of several arrays. `prune`,
`rewind` and `iterative_pruning` find a mask for `keep_pruned`. Masks and labels are those of Optax. All functions are pure
functions of trees.
"""

from convlab.optim.leaves import at_paths, kernel_mask
from convlab.optim.penalties import add_penalty, locality_penalty, projection_penalty
from convlab.optim.pruning import iterative_pruning, keep_pruned, prune, rewind
from convlab.optim.sharing import project_every, sharing_projection, tie_gradients
from convlab.optim.thresholds import beta_lasso, soft_threshold
from convlab.optim.topography import neighbour_penalty

__all__ = [
    "add_penalty",
    "at_paths",
    "beta_lasso",
    "iterative_pruning",
    "keep_pruned",
    "kernel_mask",
    "locality_penalty",
    "neighbour_penalty",
    "project_every",
    "projection_penalty",
    "prune",
    "rewind",
    "sharing_projection",
    "soft_threshold",
    "tie_gradients",
]
