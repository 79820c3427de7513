"""Test errors for unknown names."""

import pytest
from flax import nnx

import convlab as cl
from convlab.choices import did_you_mean, one_of


@pytest.mark.parametrize(
    "value, choices, nearest",
    [
        ("dens", ("dense", "conv"), "dense"),
        ("Dense", ("dense", "conv"), "dense"),
        ("low-rank", ("low_rank", "tiled"), "low_rank"),
        ("convolution", ("dense", "conv"), "conv"),
        ("local", ("dense", "locally_connected"), "locally_connected"),
    ],
)
def test_errors_end_with_the_nearest_name(value, choices, nearest):
    known = ", ".join(choices)
    with pytest.raises(ValueError, match=f"rung {value!r} is unknown; needs one of {known}; did you mean {nearest!r}[?]$"):
        one_of("rung", value, choices)


@pytest.mark.parametrize("value", ["qzx", "", 3, None, ["dense"]])
def test_errors_suggest_nothing_where_no_name_is_near(value):
    with pytest.raises(ValueError, match=r"is unknown; needs one of dense, conv$"):
        one_of("rung", value, ("dense", "conv"))


def test_several_nearest_names_are_listed_in_order():
    assert did_you_mean("minst1d", ("mnist", "mnist1d", "cifar10"), most=2) == "; did you mean 'mnist1d' or 'mnist'?"


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: cl.Window(3, padding="sane"), "padding 'SANE' is unknown; .*, ints or .*; did you mean 'SAME'"),
        (lambda: cl.Config(optimizer="Adam"), "optimizer 'Adam' .*; did you mean 'adam'"),
        (lambda: cl.Config(schedule="cosin"), "schedule 'cosin' .*; did you mean 'cosine'"),
        (lambda: cl.relax(None, "locally-connected", (5, 7, 1)), "did you mean 'locally_connected'"),
        (lambda: cl.relax(None, "tiled", (5, 7, 1), priod=2), "priod: no rung has this parameter; .*; did you mean 'period'"),
        (lambda: cl.models.MLP((8, 8, 1), 10, connectivity="convolution", rngs=nnx.Rngs(0)), "did you mean 'conv'"),
    ],
)
def test_public_functions_suggest_the_nearest_name(call, match):
    with pytest.raises(ValueError, match=match):
        call()
