"""Matched widths of networks."""

import pytest
from flax import nnx

import convlab as cl
from convlab import models
from convlab.measure import count_weights, match_width


def wide(width, connectivity="conv"):
    return models.SNet((8, 6, 3), 5, width=width, connectivity=connectivity, rngs=nnx.Rngs(0))


def products(model):
    return cl.count(model, (8, 6, 3)).total.multiply_adds


@pytest.mark.parametrize("cost", [count_weights, products])
def test_the_matched_width_costs_nearest_to_the_target_of_all_widths(cost):
    target, widths = cost(nnx.eval_shape(lambda: wide(3, "dense"))), range(1, 12)
    costs = [cost(nnx.eval_shape(lambda width=width: wide(width))) for width in widths]
    nearest = min(widths, key=lambda width: abs(costs[width - 1] - target))
    assert 1 < nearest < 11
    assert match_width(wide, target, cost=cost, widths=widths) == nearest


def test_a_network_matches_itself_and_ties_go_to_the_smaller_width():
    costs = {width: count_weights(nnx.eval_shape(lambda width=width: wide(width))) for width in (1, 2, 7, 16)}
    for width, cost in costs.items():
        assert match_width(wide, cost, widths=range(1, 17)) == width
    line = lambda width: nnx.Linear(1, width, use_bias=False, rngs=nnx.Rngs(0))  # noqa: E731
    assert [match_width(line, n, widths=range(2, 33, 4)) for n in (3, 4, 5, 7, 30)] == [2, 2, 6, 6, 30]
    assert [match_width(line, n, widths=[1, 2, 4, 16]) for n in (1, 3, 11)] == [1, 2, 16]


def test_matching_the_width_allocates_no_weights():
    def huge(width):
        return models.SNet((256, 256, 3), 10, width=width, connectivity="dense", rngs=nnx.Rngs(0))

    target = 3 * 256**4 // 4 * 100 + 6 * 256**2 * 100**2 + 240 * 100
    assert match_width(huge, target) == 100  # 1.3 TB of weights


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: match_width(wide, 10, widths=range(1, 5)), "target is 10 but widths 1 to 4 cost"),
        (lambda: match_width(wide, 10**6, widths=range(1, 5)), "target is 1,000,000 but widths"),
        (lambda: match_width(wide, 10, widths=range(0)), "at least one width"),
        (lambda: match_width(wide, 10, widths=range(9, 1, -1)), "in increasing order"),
        (lambda: match_width(wide, 10, widths=[1, 4, 2]), "in increasing order"),
    ],
)
def test_widths_and_targets_out_of_range_are_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
