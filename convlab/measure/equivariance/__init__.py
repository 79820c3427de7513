"""Equivariance under shifts: of functions, predictions, and networks layer by layer."""
