"""Implementations of the windowed ops, the rule that chooses among them, and their derivatives."""
