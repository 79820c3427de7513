"""Assertions on arrays."""

import chex


def close(got, expected, tolerance=1e-12):
    """Assert that two trees of arrays are equal up to an absolute and relative `tolerance`."""
    chex.assert_trees_all_close(got, expected, rtol=tolerance, atol=tolerance)
