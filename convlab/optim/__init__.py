"""Learning and enforcing a convolution's constraints: Optax transformations and penalties, all pure functions of trees.

| name | what it does to the parameters | where it stands |
|---|---|---|
| `beta_lasso` | gradient steps, and small weights become exactly zero | an optimizer |
| `soft_threshold` | proximal gradient steps of an L1 penalty: exact zeros | an optimizer |
| `project_every` | every m-th update they become their projection, e.g. kernels that are shared | last in a chain |
| `tie_gradients` | each step is that of tied kernels | before the optimizer |
| `add_penalty` | the gradient of any scalar function of them is added | before the optimizer |
| `keep_pruned` | pruned weights stay at exactly zero | last in a chain |

Penalties are `projection_penalty` (the distance from a projection: soft tying, soft locality) and `locality_penalty` (the size
of weights by their distance from the window's centre). `sharing_projection` reads the projection of each kernel off a model, and
`at_paths` makes one of several. `prune`, `rewind` and `iterative_pruning` find a mask for `keep_pruned`. Masks and labels are
those of Optax.
"""

from convlab.optim.leaves import at_paths, kernel_mask
from convlab.optim.penalties import add_penalty, locality_penalty, projection_penalty
from convlab.optim.pruning import iterative_pruning, keep_pruned, prune, rewind
from convlab.optim.sharing import project_every, sharing_projection, tie_gradients
from convlab.optim.thresholds import beta_lasso, soft_threshold

__all__ = [
    "add_penalty",
    "at_paths",
    "beta_lasso",
    "projection_penalty",
    "locality_penalty",
    "iterative_pruning",
    "keep_pruned",
    "kernel_mask",
    "project_every",
    "prune",
    "rewind",
    "sharing_projection",
    "soft_threshold",
    "tie_gradients",
]
