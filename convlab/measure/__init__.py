"""Measures of networks: costs, receptive fields, equivariance, locality of weights, and topographic maps."""

from convlab.convert import arrange_on_sheet
from convlab.measure.activations import ActivationRank, activation_metrics, activation_rank, feature_maps
from convlab.measure.attribution import grad_cam, occlusion, saliency
from convlab.measure.cost.count import Cost, Count, count
from convlab.measure.cost.memory import Memory, memory
from convlab.measure.cost.summary import summary
from convlab.measure.cost.width import count_weights, match_width
from convlab.measure.equivariance.downsampling import DOWNSAMPLING_METHODS, aliased_energy, compare_downsampling
from convlab.measure.equivariance.layers import equivariance_by_layer
from convlab.measure.equivariance.shift import equivariance_error, sample_shifts, shift_consistency, shift_images
from convlab.measure.operator import LinearOperator, conv_operator
from convlab.measure.receptive_field.effective import effective_receptive_field
from convlab.measure.receptive_field.pixels import input_dependencies, receptive_field
from convlab.measure.spectrum import matrix_rank, null_space, singular_values
from convlab.measure.stem import StemCost, stem_report
from convlab.measure.topography.maps import ShuffledNull, map_roughness, pinwheels, shuffled_null
from convlab.measure.topography.tuning import ClassPreference, OrientationTuning, class_preference, orientation_tuning
from convlab.measure.weights.layers import locality_indices, locality_metrics
from convlab.measure.weights.patches import best_patch_share, mean_input_distance, shuffle_inputs
from convlab.measure.weights.shares import (
    inverse_participation_ratio,
    local_share,
    neighbour_distance,
    signal_to_noise,
    tiled_share,
)

__all__ = [
    "ActivationRank",
    "ClassPreference",
    "Cost",
    "Count",
    "DOWNSAMPLING_METHODS",
    "LinearOperator",
    "Memory",
    "OrientationTuning",
    "ShuffledNull",
    "StemCost",
    "activation_metrics",
    "activation_rank",
    "aliased_energy",
    "arrange_on_sheet",
    "best_patch_share",
    "class_preference",
    "compare_downsampling",
    "conv_operator",
    "count",
    "count_weights",
    "effective_receptive_field",
    "equivariance_by_layer",
    "equivariance_error",
    "feature_maps",
    "grad_cam",
    "input_dependencies",
    "inverse_participation_ratio",
    "local_share",
    "locality_indices",
    "locality_metrics",
    "map_roughness",
    "match_width",
    "matrix_rank",
    "mean_input_distance",
    "memory",
    "neighbour_distance",
    "null_space",
    "occlusion",
    "orientation_tuning",
    "pinwheels",
    "receptive_field",
    "saliency",
    "sample_shifts",
    "shift_consistency",
    "shift_images",
    "shuffle_inputs",
    "shuffled_null",
    "signal_to_noise",
    "singular_values",
    "stem_report",
    "summary",
    "tiled_share",
]
