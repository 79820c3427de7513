"""Synthetic tasks with theoretical predictions of how many training examples each rung needs.

Most functions return a `Task`, which samples examples in a jittable function. Their docstrings give the distribution of the
examples, its symmetries, and the predictions.
"""

from convlab.tasks.hierarchy import hierarchy
from convlab.tasks.processes import bent_process, covariance
from convlab.tasks.sample_complexity import SampleComplexity, Slope, crossing, examples_needed, per_run, slope
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
    "pairs",
    "parity",
    "per_run",
    "random_patch",
    "red_green",
    "slope",
    "spectrogram",
    "template",
]
