"""Measures of networks: costs, receptive fields, equivariance, and locality of weights."""

from convlab.measure.activations import ActivationRank, activation_metrics, activation_rank, feature_maps
from convlab.measure.attribution import grad_cam, occlusion, saliency
from convlab.measure.cost.count import Cost, Count, count
from convlab.measure.cost.memory import Memory, memory
from convlab.measure.cost.summary import summary
from convlab.measure.cost.width import match_width, weights_of
from convlab.measure.equivariance.downsampling import WAYS, aliased_energy, downsampling
from convlab.measure.equivariance.layers import equivariance_by_layer
from convlab.measure.equivariance.shift import equivariance_error, sample_shifts, shift_consistency, shift_images
from convlab.measure.receptive_field.effective import effective_receptive_field
from convlab.measure.receptive_field.pixels import input_dependencies, receptive_field
from convlab.measure.spectrum import Linear, convolution, matrix_rank, null_space, singular_values
from convlab.measure.stem import Stem, stem_report
from convlab.measure.weights.layers import index_metrics, indices
from convlab.measure.weights.patches import mean_distance, patch_share, shuffle_inputs
from convlab.measure.weights.shares import (
    inverse_participation_ratio,
    local_share,
    neighbour_distance,
    signal_to_noise,
    tile_share,
)

__all__ = [
    "ActivationRank",
    "Cost",
    "Count",
    "Linear",
    "Memory",
    "Stem",
    "WAYS",
    "activation_metrics",
    "activation_rank",
    "aliased_energy",
    "convolution",
    "count",
    "downsampling",
    "effective_receptive_field",
    "equivariance_by_layer",
    "equivariance_error",
    "feature_maps",
    "grad_cam",
    "index_metrics",
    "indices",
    "input_dependencies",
    "inverse_participation_ratio",
    "local_share",
    "match_width",
    "matrix_rank",
    "mean_distance",
    "memory",
    "neighbour_distance",
    "null_space",
    "occlusion",
    "patch_share",
    "receptive_field",
    "saliency",
    "sample_shifts",
    "shift_consistency",
    "shift_images",
    "shuffle_inputs",
    "signal_to_noise",
    "singular_values",
    "stem_report",
    "summary",
    "tile_share",
    "weights_of",
]
