"""Measures: what a network costs, what it sees, and what its weights have become."""

from convlab.measure.activations import Kept, activation_rank, feature_maps, watch_activations
from convlab.measure.attribution import grad_cam, occlusion, saliency
from convlab.measure.cost.count import Cost, Count, count
from convlab.measure.cost.memory import Memory, memory
from convlab.measure.cost.summary import summary
from convlab.measure.cost.width import match_width, weights_of
from convlab.measure.equivariance.downsampling import WAYS, aliased_energy, downsampling
from convlab.measure.equivariance.layers import audit
from convlab.measure.equivariance.shift import equivariance_error, shift, shift_consistency, shifts
from convlab.measure.receptive_field.effective import effective_field
from convlab.measure.receptive_field.pixels import precedents, receptive_field
from convlab.measure.spectrum import Linear, convolution, null_space, rank, singular_values
from convlab.measure.stem import Stem, stem_report
from convlab.measure.weights.layers import indices, watch_indices
from convlab.measure.weights.patches import dealt, mean_distance, patch_share
from convlab.measure.weights.shares import (
    inverse_participation_ratio,
    local_share,
    neighbour_distance,
    signal_to_noise,
    tile_share,
)

__all__ = [
    "Cost",
    "Count",
    "Kept",
    "Linear",
    "Memory",
    "Stem",
    "WAYS",
    "activation_rank",
    "aliased_energy",
    "audit",
    "convolution",
    "count",
    "dealt",
    "downsampling",
    "effective_field",
    "equivariance_error",
    "feature_maps",
    "grad_cam",
    "indices",
    "inverse_participation_ratio",
    "local_share",
    "match_width",
    "mean_distance",
    "memory",
    "neighbour_distance",
    "null_space",
    "occlusion",
    "patch_share",
    "precedents",
    "rank",
    "receptive_field",
    "saliency",
    "shift",
    "shift_consistency",
    "shifts",
    "signal_to_noise",
    "singular_values",
    "stem_report",
    "summary",
    "tile_share",
    "watch_activations",
    "watch_indices",
    "weights_of",
]
