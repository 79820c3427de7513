"""Algebra of convolution kernels: composition, factorisation, adjoints, and named stencils."""

from convlab.algebra.composition import adjoint, compose, composes, flip
from convlab.algebra.factors import Factors, factorise, middle_width
from convlab.algebra.fourier import transfer
from convlab.algebra.merging import merge_batch_norm
from convlab.algebra.stencils import derivative, diagonal_cross, on_channels, sobel, upright_cross

__all__ = ["Factors", "adjoint", "compose", "composes", "factorise", "flip", "merge_batch_norm", "middle_width", "transfer"]
__all__ += ["derivative", "diagonal_cross", "on_channels", "sobel", "upright_cross"]
