"""Training of classifiers: a pure step on plain pytrees, and the loop that feeds it batches.

A model becomes a `Trainable`, that is, a pure function and its arrays. `train_step` maps a `State` to the next one, and `fit`
repeats it. No compiled program depends on the seed, the number of images or their order, so runs that differ only in those
share one compilation. The step takes any batch, from memory or from disk.
"""

from convlab.train.checkpoint import Checkpoints
from convlab.train.config import OPTIMIZERS, SCHEDULES, Config
from convlab.train.fitted import Fitted
from convlab.train.learner import learner
from convlab.train.log import Log, Writer
from convlab.train.loop import feed, fit
from convlab.train.many import Runs, compiled_build, fit_many, fit_seeds
from convlab.train.memory import keep_freed_memory
from convlab.train.mode_connectivity import barrier, bezier_path, evaluate_along, fit_bezier, linear_path
from convlab.train.step import Apply, Recipe, State, Trainable, cross_entropy, initial, train_step, train_steps, trainable

__all__ = [
    "Apply",
    "Checkpoints",
    "Config",
    "Fitted",
    "Log",
    "OPTIMIZERS",
    "Recipe",
    "Runs",
    "SCHEDULES",
    "State",
    "Trainable",
    "Writer",
    "evaluate_along",
    "barrier",
    "bezier_path",
    "compiled_build",
    "fit_bezier",
    "cross_entropy",
    "feed",
    "fit",
    "fit_many",
    "fit_seeds",
    "initial",
    "keep_freed_memory",
    "learner",
    "linear_path",
    "train_step",
    "train_steps",
    "trainable",
]
