"""Measures: what a network costs, and what its weights have become."""

from convlab.measure.cost import Cost, Count, count, summary
from convlab.measure.match import match_width, weights

__all__ = ["Cost", "Count", "count", "match_width", "summary", "weights"]
