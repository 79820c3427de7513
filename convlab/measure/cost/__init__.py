"""Costs of networks: weights, operations, memory, and widths of equal cost."""
