"""Measures: what a network costs, what it sees, and what its weights have become."""

from convlab.measure.cost import Cost, Count, count
from convlab.measure.memory import Memory, memory
from convlab.measure.summary import summary

__all__ = ["Cost", "Count", "Memory", "count", "memory", "summary"]
