"""Laws to draw examples from, of which theory says what each rung of the ladder needs: jittable samplers, documented.

Every function returns a `Task`; its docstring gives the law, its symmetries, and what the rungs are predicted to need.
"""

from convlab.tasks.hierarchy import hierarchy
from convlab.tasks.processes import bent_process, covariance
from convlab.tasks.sample_complexity import SampleComplexity, Slope, crossing, examples_needed, one_by_one, slope
from convlab.tasks.scenes import coordinates, flying, red_green, template
from convlab.tasks.sequences import chirps, distance, spectrogram
from convlab.tasks.signals import halves, pairs, parity, random_patch
from convlab.tasks.task import Task
from convlab.tasks.teachers import linear_teacher

__all__ = [
    "SampleComplexity",
    "Slope",
    "Task",
    "bent_process",
    "chirps",
    "coordinates",
    "covariance",
    "crossing",
    "distance",
    "examples_needed",
    "flying",
    "halves",
    "hierarchy",
    "linear_teacher",
    "one_by_one",
    "pairs",
    "parity",
    "random_patch",
    "red_green",
    "slope",
    "spectrogram",
    "template",
]
