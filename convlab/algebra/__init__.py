"""Kernel algebra: kernels multiplied, divided and added as the convolutions they stand for, and kernels that have a name."""

from convlab.algebra.composition import adjoint, compose, composes, flip
from convlab.algebra.factors import Bottleneck, Factors, factorise, middle_width, separate, tucker
from convlab.algebra.merging import maximum, merge_batch_norm, merge_branches, merge_pointwise
from convlab.algebra.norms import clip_norm, norm_bound, scale_norm, transfer
from convlab.algebra.stencils import (
    blur,
    derivative,
    diagonal_cross,
    directional,
    identity,
    laplace,
    on_channels,
    shift,
    sobel,
    upright_cross,
)

__all__ = ["adjoint", "compose", "composes", "flip", "maximum", "merge_batch_norm", "merge_branches", "merge_pointwise"]
__all__ += ["Bottleneck", "Factors", "factorise", "middle_width", "separate", "tucker"]
__all__ += ["clip_norm", "norm_bound", "scale_norm", "transfer"]
__all__ += ["blur", "derivative", "diagonal_cross", "directional", "identity", "laplace", "on_channels", "shift", "sobel"]
__all__ += ["upright_cross"]
