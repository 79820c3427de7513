"""Measures: what a network costs, and what its weights have become."""

from convlab.measure.cost import Cost, Count, count, summary

__all__ = ["Cost", "Count", "count", "summary"]
