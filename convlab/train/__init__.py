"""Training of networks: a pure step on plain pytrees, and the loop that feeds it batches.

A model becomes a `Trainable`, that is, a pure function and its arrays. `train_step` maps a `State` to the next one, and `fit`
repeats it. No compiled program depends on the seed, the number of images or their order, so runs that differ only in those
share one compilation. The step takes any batch, from memory or from disk. `Fitted` is the result, which predicts on raw images,
and can be saved and loaded.
"""

from convlab.train.checked_step import train_step, train_steps
from convlab.train.checkpoint import Checkpoints
from convlab.train.config import OPTIMIZERS, SCHEDULES, Config
from convlab.train.fitted import Fitted
from convlab.train.learner import make_learner
from convlab.train.log import Log, LogWriter
from convlab.train.loop import fit, training_batches
from convlab.train.many import FittedRuns, fit_many, fit_seeds, jit_build
from convlab.train.memory import keep_freed_memory
from convlab.train.mode_connectivity import bezier_path, evaluate_along, fit_bezier, linear_path, loss_barrier
from convlab.train.raw_inputs import RawInputs
from convlab.train.step import (
    Apply,
    State,
    StepOptions,
    Trainable,
    as_trainable,
    cross_entropy,
    initial_state,
)

__all__ = [
    "Apply",
    "Checkpoints",
    "Config",
    "Fitted",
    "FittedRuns",
    "Log",
    "LogWriter",
    "OPTIMIZERS",
    "RawInputs",
    "SCHEDULES",
    "State",
    "StepOptions",
    "Trainable",
    "as_trainable",
    "bezier_path",
    "cross_entropy",
    "evaluate_along",
    "fit",
    "fit_bezier",
    "fit_many",
    "fit_seeds",
    "initial_state",
    "jit_build",
    "keep_freed_memory",
    "linear_path",
    "loss_barrier",
    "make_learner",
    "train_step",
    "train_steps",
    "training_batches",
]
