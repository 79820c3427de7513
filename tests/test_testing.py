"""The assertions that convlab offers to other projects: they pass where the property holds, and say where it does not."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import filled
from strategies import gaussian

import convlab as cl
from convlab.testing import (
    assert_matches_dense,
    assert_on_rung,
    assert_same_function,
    assert_shift_equivariant,
    check_answer,
)

WINDOW, SPACE = cl.Window((3, 2), padding="SAME"), (5, 7)


def kernel(*shape):
    return np.float32(gaussian(shape)[0])


def test_the_same_function_is_accepted_and_the_largest_difference_is_located():
    model = filled(lambda: cl.models.Pyramid((5, 6, 1), 3, (2, 3), rngs=nnx.Rngs(0)))
    model.eval()
    assert_same_function(cl.relax(model, "locally_connected", (5, 6, 1)), model, (5, 6, 1))

    def off_at_one_place(x):
        return x.at[1, 2, 4, 0].add(0.5)

    with pytest.raises(AssertionError, match=r"the largest difference is 0.5 at \(1, 2, 4, 0\), where the values are"):
        assert_same_function(off_at_one_place, lambda x: x, (5, 7, 2))
    with pytest.raises(AssertionError, match=r"the shapes are \(3, 5, 7, 2\) and \(3, 5, 7\)"):
        assert_same_function(lambda x: x, lambda x: x.sum(-1), (5, 7, 2))
    with pytest.raises(AssertionError, match="largest difference is inf"):
        assert_same_function(lambda x: x.at[0].set(jnp.nan), lambda x: x, (5, 7, 2))


def test_an_op_matches_its_dense_weight_and_no_other():
    v = kernel(3, 2, 2, 3)
    w = np.array(cl.lift_conv_to_dense(v, WINDOW, SPACE))
    assert_matches_dense(lambda x: cl.conv(x, v, WINDOW), w)
    w[4, 1, 3, 2, 1, 2] += 1
    with pytest.raises(
        AssertionError, match=r"the Jacobian of op differs from w: the largest difference is 1 at \(4, 1, 3, 2, 1, 2\)"
    ):
        assert_matches_dense(lambda x: cl.conv(x, v, WINDOW), w)
    with pytest.raises(AssertionError, match="op is not linear"):
        assert_matches_dense(lambda x: cl.conv(x, v, WINDOW) ** 2, w)
    with pytest.raises(AssertionError, match="op of a zero image is not zero"):
        assert_matches_dense(lambda x: cl.conv(x, v, WINDOW) + 1, w)


@pytest.mark.parametrize("rung", ["locally_connected", "tiled", "low_rank", "conv", "symmetric"])
def test_a_weight_on_a_rung_is_accepted_and_another_is_not(rung):
    layer = filled(lambda: cl.layers.connect(rung, 2, 3, (3, 2), space=SPACE, use_bias=False, rngs=nnx.Rngs(0)), deviation=1)
    arrays = {name: getattr(layer, name)[...] for name in layer.tying.arrays}
    dense = cl.rungs.with_rung(layer.layout, "dense")
    w = np.array(cl.rungs.transfer(arrays, layer.layout, dense)["kernel"])
    if rung != "low_rank":  # whose dense weight has lost what the mixture is on padding
        assert_on_rung(w, WINDOW, SPACE, rung)
    w[2, 3, 0, 0] += 1
    with pytest.raises(AssertionError, match=f"w differs from the nearest {rung} weight: the largest difference"):
        assert_on_rung(w, WINDOW, SPACE, rung)


def test_equivariance_to_shifts_is_that_of_circular_padding_up_to_the_stride():
    v, circular = kernel(3, 2, 2, 3), cl.Window((3, 2), padding="CIRCULAR")
    assert_shift_equivariant(lambda x: cl.conv(x, v, circular), (5, 7, 2), (1, 3))
    assert_shift_equivariant(lambda x: cl.conv(x, v, circular).mean((1, 2)), (5, 7, 2), (1, 3))
    strided = cl.Window((3, 2), strides=2, padding="CIRCULAR")
    assert_shift_equivariant(lambda x: cl.conv(x, v, strided), (6, 8, 2), (2, 4), stride=2)
    with pytest.raises(AssertionError, match=r"does not commute with a shift by \(1, 3\): the largest difference is"):
        assert_shift_equivariant(lambda x: cl.conv(x, v, WINDOW), (5, 7, 2), (1, 3))
    with pytest.raises(ValueError, match=r"delta \(1, 1\) must be a multiple of the stride \(2, 2\)"):
        assert_shift_equivariant(lambda x: cl.conv(x, v, strided), (6, 8, 2), 1, stride=2)


def test_an_answer_is_right_wrong_missing_or_no_number(capsys):
    check_answer(np.ones(3) + 1e-4, np.ones(3))
    check_answer(..., 9)
    assert capsys.readouterr().out == "Correct.\nNot answered yet.\n"
    for answer in (8, [9], np.nan):
        with pytest.raises(AssertionError, match="answer"):
            check_answer(answer, 9)
    for arguments, error, message in (
        (("nine", 9), TypeError, "answer must be a number or an array of numbers, got 'nine'"),
        ((9, None), TypeError, "expected must be a number or an array of numbers, got None"),
        ((9, 9, np.nan), ValueError, "tolerance must be a number of at least 0, got nan"),
    ):
        with pytest.raises(error, match=message):
            check_answer(*arguments[:2], **({"tolerance": arguments[2]} if len(arguments) > 2 else {}))
