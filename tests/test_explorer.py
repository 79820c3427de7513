"""The explorer's page computes what the library computes, in a real browser."""

import dataclasses
import functools
import json
import shutil
import subprocess

import numpy as np
import pytest

from convlab.geometry import Window
from convlab.report.explorer import LARGEST, Explorer, explore, fill, settings
from convlab.rungs import RUNGS, Layout, transfer, with_rung

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--dump-dom"]
WINDOWS = [
    (Window((3, 2)), (7, 5)),
    (Window((2, 3), (2, 1), "SAME_LOWER"), (5, 7)),
    (Window((3, 3), 2, "VALID"), (7, 7)),
    (Window((2, 2), 1, "FULL", (3, 1)), (5, 3)),
    (Window((3, 3), 1, ("SAME", "CIRCULAR")), (5, 4)),
    (Window((4, 4), 1, "REFLECT"), (5, 3)),
    (Window((5, 3), 3, "EDGE"), (4, 7)),
    (Window((3, 3), 1, ((2, 0), (-1, 3))), (5, 7)),
    (Window((5, 5)), (2, 3)),
    (Window(3, padding="CAUSAL"), (7,)),
]


def dense_matrix(layout, labels):
    """The dense matrix of a layer whose weights are these numbers: (outputs, pixels)."""
    dense = with_rung(layout, "dense")
    matrix = np.asarray(transfer({layout.tying.arrays[0]: labels}, layout, dense)["kernel"])
    return matrix[..., 0, 0].reshape(np.prod(layout.positions), -1)


@functools.cache
def cases():
    wanted = []
    for window, space in WINDOWS:
        for rung in RUNGS:
            options = {"tiled": {"period": 2}, "low_rank": {"rank": 2}}.get(rung, {})
            tying = RUNGS[rung](**options)
            layout = Layout(tying, window, 1, 1, space, use_bias=False)
            layout = Layout(tying.clipped(layout), window, 1, 1, space, use_bias=False)
            wanted.append(
                (rung, layout, settings(window.with_ndim(len(space)), space) | {"rung": rung, "period": 2, "rank": 2})
            )
    return wanted


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    folder = tmp_path_factory.mktemp("browser")
    page = Explorer(fill({"test": [state for *_, state in cases()]})).save(folder / "page.html")
    run = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={folder}", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    return json.loads(run.stdout.split("<body>")[1].split("</body>")[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(cases())), ids=lambda number: f"{cases()[number][0]}-{number // len(RUNGS)}")
def test_page_has_the_numbers_and_the_dense_matrix_of_the_library(number, answers):
    (rung, layout, _), answer = cases()[number], answers[number]
    shape = (1,) * (2 - layout.ndim) + layout.positions
    assert tuple(answer["outputs"]) == shape
    weights = sum(int(np.prod(s)) for s in layout.tying.shapes(layout).values())
    assert answer["weights"] == weights
    assert answer["live"] == weights - layout.tying.dead(layout)
    assert answer["adds"] == layout.tying.multiply_adds(layout)
    if rung == "low_rank":
        return
    if rung != "dense":
        assert answer["coverage"] == layout.window.coverage(layout.space).ravel().tolist()
    values = np.random.default_rng(0).normal(size=layout.tying.shapes(layout)["kernel"])
    numbers = dict(enumerate(values.ravel()))
    if rung == "symmetric":  # the page numbers the orbits of taps in the order of their first taps
        large = dataclasses.replace(layout, space=(99,) * layout.ndim)  # no tap is dead
        orbits = np.asarray(layout.tying.kernels({"kernel": np.arange(len(values))[:, None, None]}, large)).ravel()
        numbers = {number: values.ravel()[orbit] for number, orbit in enumerate(dict.fromkeys(orbits.tolist()))}
    matrix = np.zeros((int(np.prod(layout.positions)), int(np.prod(layout.space))))
    for output, pixel, weight in answer["dense"]:
        matrix[output, pixel] += numbers[weight]
    np.testing.assert_allclose(matrix, dense_matrix(layout, values), atol=1e-5)


@pytest.mark.slow
def test_page_draws_the_largest_image_without_a_hitch(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    text = explore(Window((3, 3)), (32, 32), "locally_connected").text
    measure = "const t = performance.now(); for (let k = 0; k < 5; k++) draw(); document.title = (performance.now() - t) / 5;"
    timed = text.replace("rebuild(); }\n</script>", f"rebuild(); {measure} }}\n</script>")
    page = Explorer(timed).save(tmp_path / "page.html")
    run = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path}", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert float(run.stdout.split("<title>")[1].split("</title>")[0]) < 1000


def test_page_is_one_document_with_the_callers_window():
    page = explore(Window(3, 2, ("SAME", (1, 0))), (9, 7), "tiled", period=3)
    assert '"strides": "2", "dilation": "1", "padding": "SAME,1:0", "rung": "tiled", "period": 3' in page.text
    assert "http" not in page.text.replace("http-equiv", "")
    assert page._repr_html_().startswith("<iframe srcdoc=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Window(3), (LARGEST + 1, 5)), "space is .65, 5.; the page shows"),
        ((Window(3), (5, 5, 5)), "one or two spatial axes"),
        ((Window(3, padding="VALID"), (2, 5)), "fits nowhere|no output"),
        ((Window(3), (5, 5), "conf"), "connectivity.*did you mean 'conv'"),
        ((3, (5, 5)), "window must be a convlab.Window"),
    ],
)
def test_bad_arguments_are_clear_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        explore(*arguments)
