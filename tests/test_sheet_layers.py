"""Sheets in experiments: layers that are timed beside Keras' compute one function, and written maps are read as they were."""

import numpy as np
import pytest

import convlab as cl
from experiments.parts import sheet_layers, sheets

LAYER = sheet_layers.Layer("", 11, 2, 3, 5, 3, images=7)


def test_sparse_matrix_of_all_weights_is_the_locally_connected_layer():
    x, v = (np.asarray(LAYER.draw(name), np.float64) for name in ("images", "kernels"))
    matrix = np.zeros((LAYER.outputs**2 * LAYER.features, LAYER.side**2 * LAYER.channels))
    outputs, inputs = sheet_layers.sparse_indices(LAYER).T
    matrix[outputs, inputs] = np.moveaxis(v, -1, 2).ravel()
    h = cl.locally_connected(x, v, cl.Window((5, 5), strides=3, padding="VALID"))
    np.testing.assert_allclose((matrix @ x.reshape(7, -1).T).T.reshape(h.shape), h, rtol=1e-4, atol=1e-4)
    assert len(outputs) == LAYER.weights


@pytest.mark.parametrize("first", [False, True])
def test_contenders_of_jax_have_the_same_gradients(first, monkeypatch):
    results = []
    monkeypatch.setattr(sheet_layers, "compiled", lambda labels, step, arrays: results.append(step(*arrays)))
    for name in (sheet_layers.OURS, sheet_layers.OP):
        sheet_layers.contenders(LAYER._replace(first=first), name)
    (h, ours), (other_h, others) = results
    np.testing.assert_allclose(h, other_h, rtol=1e-4, atol=1e-4)
    assert len(ours) == len(others) == 1 + (not first)
    by_kernel = np.moveaxis(ours[-1], 4, 2).reshape(others[-1].shape)
    for one, other in zip((*ours[:-1], by_kernel), others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_all_tnn_has_107_million_weights():
    assert round(sum(layer.weights for layer in sheet_layers.ALL_TNN) / 1e6) == 107


def test_written_maps_of_orientations_and_classes_are_read_as_they_were():
    orientations = np.random.default_rng(0).uniform(0, np.pi, (3, 5))
    orientations[1, 2] = np.nan
    read = sheets.read_map(sheets.write_map(orientations, "orientation"), "orientation")
    assert np.nanmax(abs(read - orientations)) <= np.pi / len(sheets.LETTERS) / 2
    assert np.array_equal(np.isnan(read), np.isnan(orientations))
    classes = np.random.default_rng(0).integers(-1, 10, (3, 5))
    np.testing.assert_array_equal(sheets.read_map(sheets.write_map(classes, "class"), "class"), classes)
