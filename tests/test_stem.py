"""Reports of stems against formulas and against the costs of equal networks."""

import jax
import numpy as np
import oracle
import pytest
from compiled import compiled
from flax import nnx
from strategies import gaussian

import convlab as cl
from convlab import algebra, measure
from convlab.measure import stem
from convlab.models.resnet import PADDING, POOL_WINDOW, STEMS

pytestmark = pytest.mark.usefixtures("float64")
W = cl.Window


@pytest.fixture(autouse=True)
def _in_few_programs(monkeypatch):
    for name in ("conv", "max_pool", "aliased_energy"):
        monkeypatch.setattr(stem, name, compiled(getattr(stem, name)))


@pytest.mark.parametrize("name", ["7x7", "3x3x3", "patchify"])
def test_every_stem_of_the_models_has_a_report(name):
    width, image = 64, (16, 16, 3)
    (x,) = gaussian((8, *image))
    layers = [(W(size, strides, PADDING), int(np.ceil(share * width))) for share, size, strides in STEMS[name].layers]
    rows = measure.stem_report(layers, x, jax.random.key(0), pool=POOL_WINDOW if STEMS[name].pool else None)
    assert len(rows) == len(layers) + STEMS[name].pool + 1
    for row, (_, size, strides), c in zip(rows, STEMS[name].layers, [3, *(d for _, d in layers)], strict=False):
        assert row.window_ratio == row.channels / (size**2 * c)
        assert row.stride_ratio == row.channels / (strides**2 * c)
        assert row.rank == row.rank_bound == min(row.channels, size**2 * c)
        assert row.rank <= row.rank_after_relu <= row.channels
        assert (row.aliasing == 0) == (strides == 1)
    model = nnx.eval_shape(lambda: cl.models.ResNet(image, 10, (1,), width=width, stem=name, rngs=nnx.Rngs(0)))
    names = {f"stages/{number}/layer" for number in range(len(layers))}
    counted = [row for row in cl.count(model, image).layers if row.name in names]
    assert rows[-1].weights == sum(row.weights for row in counted) == {"7x7": 9408, "3x3x3": 28512, "patchify": 3072}[name]
    assert rows[-1].multiply_adds == sum(row.multiply_adds for row in counted)
    for row, cost in zip(rows[: len(layers)], counted, strict=True):
        assert (row.receptive_field, row.effective_stride) == (cost.receptive_field, cost.effective_stride)


def test_a_stem_with_given_kernels_is_measured_with_them():
    (x,) = gaussian((2, 16, 18, 2))
    blur = algebra.depthwise_kernel(np.outer(*[[1.0, 4, 6, 4, 1]] * 2)[..., None, None] / 256, 2)
    [smooth, total] = measure.stem_report([(W(5, 2), 2)], x, jax.random.key(0), kernels=[blur])
    [rough, _] = measure.stem_report([(W(5, 2), 2)], x, jax.random.key(0))
    assert smooth.aliasing < 0.2 < 0.5 < rough.aliasing
    assert total == smooth._replace(name="total")
    with pytest.raises(ValueError, match=r"kernels\[0\] returns \(2,\) channels but its layer has \(3,\)"):
        measure.stem_report([(W(5, 2), 3)], x, jax.random.key(0), kernels=[blur])
    with pytest.raises(ValueError, match="layers is empty"):
        measure.stem_report([], x, jax.random.key(0))


def test_a_stem_with_a_padding_per_axis_counts_its_live_taps_and_ranks():
    (x,) = gaussian((4, 8, 10, 2))
    reads = oracle.tables((8, 10), (3, 2), (2, 1), (1, 1), ("SAME", "CIRCULAR"))
    [row, _] = measure.stem_report([(W((3, 2), (2, 1), ("SAME", "CIRCULAR")), 5)], x, jax.random.key(0))
    assert row.multiply_adds == len(list(oracle.each_tap(reads))) * 2 * 5
    assert row.rank == 5
    with pytest.raises(TypeError, match="images has dtype complex128 but needs a real one"):
        measure.stem_report([(W(3), 5)], x + 0j, jax.random.key(0))
    with pytest.raises(TypeError, match=r"kernels\[0\] has dtype complex128 but needs a real one"):
        measure.stem_report([(W(1), 5)], x, jax.random.key(0), kernels=[np.ones((1, 1, 2, 5), complex)])


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_stem_needs_one_kernel_per_layer(number):
    x, layers = np.ones((2, 8, 8, 3)), [(W(3), 4), (W(3), 5)]
    with pytest.raises(ValueError, match=f"kernels has {number} entries but the stem has 2 layers"):
        measure.stem_report(layers, x, jax.random.key(0), kernels=[np.ones((3, 3, 3, 4))] * number)


def test_a_stem_needs_finite_nonzero_images():
    x, key = np.ones((2, 8, 8, 3)), jax.random.key(0)
    unknown = x.copy()
    unknown[0, 0, 0, 0] = np.nan
    for images in (x * 0, unknown):
        with pytest.raises(ValueError, match="not finite, or only zeros"):
            measure.stem_report([(W(3), 4)], images, key)
    with pytest.raises(ValueError, match=r"images has shape \(8, 3\); needs images \(n, \*space, c\)"):
        measure.stem_report([(W(3), 4)], x[0, 0], key)
    with pytest.raises(TypeError, match=r"the width in layers\[0\] must be an integer"):
        measure.stem_report([(W(3), 4.5)], x, key)
