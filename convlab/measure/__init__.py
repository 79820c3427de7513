"""Measures: what a network costs, what it sees, and what its weights have become."""

from convlab.measure.audit import audit
from convlab.measure.cost import Cost, Count, count
from convlab.measure.keeping import (
    Kept,
    Stem,
    activation_rank,
    reconstruct,
    reconstruct_by_gradient,
    stem_report,
)
from convlab.measure.looking import feature_maps, grad_cam, occlusion, saliency, watch_activations
from convlab.measure.match import match_width, weights_of
from convlab.measure.memory import Memory, memory
from convlab.measure.needed import Needed, Slope, crossing, examples_needed, one_by_one, slope
from convlab.measure.network import indices, watch_indices
from convlab.measure.patches import dealt, patch_share
from convlab.measure.paths import along, barrier, bezier, connect_by_curve, line
from convlab.measure.seeing import coverage, effective_field, precedents, receptive_field
from convlab.measure.shift import WAYS, aliased_energy, downsampling, equivariance_error, shift, shift_consistency, shifts
from convlab.measure.spectrum import (
    Linear,
    condition,
    convolution,
    matrix,
    null_space,
    operator_norm,
    rank,
    singular_values,
)
from convlab.measure.summary import summary
from convlab.measure.weights import (
    circulant_share,
    excess_kurtosis,
    inverse_participation_ratio,
    local_share,
    mean_distance,
    neighbour_distance,
    share,
    signal_to_noise,
    tile_share,
)

__all__ = [
    "Cost",
    "Count",
    "Kept",
    "Linear",
    "Memory",
    "Needed",
    "Slope",
    "Stem",
    "WAYS",
    "activation_rank",
    "aliased_energy",
    "along",
    "audit",
    "barrier",
    "bezier",
    "circulant_share",
    "condition",
    "connect_by_curve",
    "convolution",
    "count",
    "coverage",
    "dealt",
    "downsampling",
    "effective_field",
    "equivariance_error",
    "crossing",
    "examples_needed",
    "excess_kurtosis",
    "feature_maps",
    "grad_cam",
    "indices",
    "inverse_participation_ratio",
    "line",
    "local_share",
    "match_width",
    "matrix",
    "mean_distance",
    "memory",
    "neighbour_distance",
    "null_space",
    "occlusion",
    "one_by_one",
    "operator_norm",
    "patch_share",
    "precedents",
    "rank",
    "receptive_field",
    "reconstruct",
    "reconstruct_by_gradient",
    "saliency",
    "share",
    "shift",
    "shift_consistency",
    "shifts",
    "signal_to_noise",
    "singular_values",
    "slope",
    "stem_report",
    "summary",
    "tile_share",
    "watch_activations",
    "watch_indices",
    "weights_of",
]
