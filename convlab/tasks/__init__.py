"""Synthetic tasks with theoretical predictions of how many training examples each rung needs.

Most functions return a `Task`, which samples examples in a jittable function. Their docstrings define the images and the label,
and name the shifts and permutations that leave the label unchanged. They then say which accuracy or number of examples theory
predicts for each rung, and why. `examples_needed` measures these numbers, and `fit_power_law` measures how they scale.
"""

from convlab.tasks.hierarchy import random_hierarchy
from convlab.tasks.processes import nonlinear_process, process_covariance
from convlab.tasks.sample_complexity import (
    PowerLaw,
    SampleComplexity,
    examples_needed,
    fit_power_law,
    loop_over_runs,
    threshold_crossing,
)
from convlab.tasks.scenes import coordinate_classification, flying_pigs, red_green, template_detection
from convlab.tasks.sequences import chirps, spectrogram, word_order
from convlab.tasks.signals import correlation_sign, energy_comparison, parity, random_patch
from convlab.tasks.task import Task
from convlab.tasks.teachers import linear_teacher

__all__ = [
    "PowerLaw",
    "SampleComplexity",
    "Task",
    "chirps",
    "coordinate_classification",
    "correlation_sign",
    "energy_comparison",
    "examples_needed",
    "fit_power_law",
    "flying_pigs",
    "linear_teacher",
    "loop_over_runs",
    "nonlinear_process",
    "parity",
    "process_covariance",
    "random_hierarchy",
    "random_patch",
    "red_green",
    "spectrogram",
    "template_detection",
    "threshold_crossing",
    "word_order",
]
