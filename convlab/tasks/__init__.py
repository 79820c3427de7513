"""Laws to draw examples from, of which theory says what each rung of the ladder needs: jittable samplers, documented.

Every function returns a `Task`; its docstring gives the law, its symmetries, and what the rungs are predicted to need.
"""

from convlab.tasks.hierarchy import hierarchy
from convlab.tasks.processes import bent_process, covariance
from convlab.tasks.scenes import coordinates, flying, red_green, template
from convlab.tasks.sequences import chirps, distance, spectrogram
from convlab.tasks.signals import halves, pairs, parity, random_patch
from convlab.tasks.task import Task
from convlab.tasks.teachers import RUNGS, linear_teacher

__all__ = [
    "RUNGS",
    "Task",
    "bent_process",
    "chirps",
    "coordinates",
    "covariance",
    "distance",
    "flying",
    "halves",
    "hierarchy",
    "linear_teacher",
    "pairs",
    "parity",
    "random_patch",
    "red_green",
    "spectrogram",
    "template",
]
