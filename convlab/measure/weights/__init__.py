"""Locality and sharing of weights: of one layer, of a network, and after pruning."""
