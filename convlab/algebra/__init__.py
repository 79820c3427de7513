"""Algebra of convolution kernels: composition, factorisation, adjoints, varying blur, and named stencils."""

from convlab.algebra.blur import VaryingBlur, varying_blur
from convlab.algebra.composition import adjoint, compose, flip, is_composable
from convlab.algebra.factors import Factors, factorise, middle_width
from convlab.algebra.fourier import transfer_function
from convlab.algebra.merging import merge_batch_norm
from convlab.algebra.stencils import depthwise_kernel, derivative, diagonal_cross, sobel, upright_cross

__all__ = [
    "Factors",
    "VaryingBlur",
    "adjoint",
    "compose",
    "depthwise_kernel",
    "derivative",
    "diagonal_cross",
    "factorise",
    "flip",
    "is_composable",
    "merge_batch_norm",
    "middle_width",
    "sobel",
    "transfer_function",
    "upright_cross",
    "varying_blur",
]
