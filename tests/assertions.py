"""What the tests assert of arrays."""

import chex


def close(got, expected, tolerance=1e-12):
    """Assert that two trees of arrays are equal but for rounding: to `tolerance`, relative to each entry and to 1."""
    chex.assert_trees_all_close(got, expected, rtol=tolerance, atol=tolerance)
