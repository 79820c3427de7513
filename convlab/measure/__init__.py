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

__all__ = ["Cost", "Count", "Memory", "count", "match_width", "memory", "summary", "weights_of"]
__all__ += ["circulant_share", "excess_kurtosis", "inverse_participation_ratio", "local_share", "mean_distance"]
__all__ += ["neighbour_distance", "share", "signal_to_noise", "tile_share", "indices", "watch_indices"]
__all__ += ["along", "barrier", "bezier", "connect_by_curve", "line"]
__all__ += ["dealt", "patch_share"]
__all__ += ["Linear", "condition", "convolution", "matrix", "null_space", "operator_norm", "rank", "singular_values"]
__all__ += ["Kept", "Stem", "activation_rank", "reconstruct", "reconstruct_by_gradient", "stem_report"]
__all__ += ["WAYS", "aliased_energy", "audit", "downsampling", "equivariance_error", "shift", "shift_consistency", "shifts"]
__all__ += ["coverage", "effective_field", "precedents", "receptive_field"]
__all__ += ["feature_maps", "grad_cam", "occlusion", "saliency", "watch_activations"]
