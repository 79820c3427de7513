"""Texts and HTML of the objects of the package, for interactive sessions and notebooks."""

import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convlab as cl
from convlab import algebra, convert, data, layers, linen, measure, models, report, rungs, surgery, tasks, train
from convlab.report.results import ResultTable
from convlab.report.table import to_table

LONGEST = 1000  # characters
SHAPE = (32, 32, 3)
ABSTRACT = {layers.Layer, models.Stack, rungs.Tying}


def public_classes():
    """Yield the classes that packages export, and that have instances to show."""
    modules = [cl, *(importlib.import_module(found.name) for found in pkgutil.walk_packages(cl.__path__, "convlab."))]
    values = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    for value in sorted({value for value in values if inspect.isclass(value)}, key=lambda value: value.__qualname__):
        is_protocol = getattr(value, "_is_protocol", False) or getattr(value, "__total__", None) is not None
        if not (is_protocol or value in ABSTRACT or issubclass(value, Exception)):
            yield value


def blank(dtype=np.uint8, space=(28, 28), channels=1, names=10):
    """Make a data set of zeros."""
    images = np.zeros((500, *space, channels), dtype)
    split = data.Split(images, np.arange(500) % names)
    return data.Data("blank", split, split, tuple(map(str, range(names))))


def fitted(rows=40):
    """Make the result of a run of 40 evaluations without training."""
    model = nnx.eval_shape(lambda: models.Pyramid((28, 28, 1), 10, rngs=nnx.Rngs(0)))
    trainable = train.as_trainable(model, (28, 28, 1))
    history = [
        {"step": n, "epoch": n / 10, "seconds": 1.0 * n, "loss": 2 / n, "test_loss": 3 / n, "test_accuracy": 1 - 1 / n}
        for n in range(1, rows + 1)
    ]
    known = {
        "history": history,
        "seconds": 3.0,
        "step_seconds": 0.1,
        "config": train.Config(epochs=4),
        "classes": tuple("abc"),
        "dtype": np.dtype("uint8"),
        "image_shape": (28, 28, 1),
    }
    names = set(inspect.signature(train.Fitted).parameters)
    others = {"apply": trainable.apply, "parameters": trainable.parameters, "model_state": trainable.model_state}
    others |= {"mean": np.zeros(1), "std": np.ones(1)}
    return train.Fitted(**{name: value for name, value in (known | others).items() if name in names})


def network(kind, *arguments, **options):
    """Return a function that makes the shapes of a network."""
    return lambda: nnx.eval_shape(lambda: kind(*arguments, **options, rngs=nnx.Rngs(0)))


def layer(kind):
    """Return a function that makes the shapes of a layer with 16 and 32 channels."""
    options = {} if "Conv" in kind.__name__ else {"space": (28, 28)}
    options |= {"period": 2} if "Tiled" in kind.__name__ else {"rank": 3} if "LowRank" in kind.__name__ else {}
    return network(kind, 16, 32, (3, 3), **options)


def count():
    """Count the costs of a network of stages."""
    return measure.count(network(models.Pyramid, (8, 8, 1), 10)(), (8, 8, 1))


CONV = rungs.Layout(rungs.Shared(), cl.Window((3, 3)), 16, 32, space=(28, 28))
INSTANCES = {
    measure.ActivationRank: lambda: measure.ActivationRank(3, 2.5),
    measure.ClassPreference: lambda: measure.ClassPreference(jnp.zeros((8, 9, 16), int), jnp.zeros((8, 9, 16))),
    measure.Cost: lambda: count().total,
    measure.Count: count,
    measure.LinearOperator: lambda: measure.conv_operator(jnp.zeros((3, 3, 16, 32)), cl.Window(3), (28, 28)),
    measure.Memory: lambda: measure.Memory(10**9, 10**6, 10**9, 10**9, 10**12),
    measure.OrientationTuning: lambda: measure.OrientationTuning(*[jnp.zeros((8, 9, 16))] * 3),
    measure.ShuffledNull: lambda: measure.ShuffledNull(0.2, 0.7, 0.6, 0.8),
    measure.StemCost: lambda: measure.StemCost("total", *[10**9] * (len(measure.StemCost._fields) - 1)),
    algebra.Factors: lambda: algebra.Factors(jnp.zeros((3, 3, 16, 32)), jnp.zeros((3, 3, 32, 32)), jnp.zeros(())),
    algebra.VaryingBlur: lambda: algebra.varying_blur(jnp.ones((1, 3, 1, 1)), [[0]], (5,)),
    convert.Entries: lambda: convert.Entries(*np.zeros((3, 10**4)), (10**4, 10**4)),
    data.Data: lambda: blank(names=100),
    data.PreparedData: lambda: data.PreparedData(
        "mnist", "1.0.0", "folder/mnist", "array_record", {"train": 60000}, 20.0, ["28"]
    ),
    data.Split: lambda: blank().train,
    data.StoredImages: lambda: data.StoredImages(lambda n: n, np.arange(10**6), (28, 28, 1), np.dtype("uint8")),
    cl.Window: lambda: cl.Window((3, 3, 3), (2, 2, 2), ("SAME", "CIRCULAR", (10, 20)), 2),
    models.Block: network(models.Block, (28, 28, 16), 32, 2, connections=models.Connections()),
    models.Stem: lambda: next(iter(models.STEMS.values())),
    models.Connections: models.Connections,
    models.Head: network(models.Head, (7, 7, 64), (128, 10)),
    models.Stage: network(models.Stage, (28, 28, 1), 16, 3, connections=models.Connections(), batch_norm=True),
    report.Explorer: lambda: report.explore(cl.Window(3), (28, 28)),
    report.Interval: lambda: report.interval([1.0, 2.0]),
    report.Style: lambda: report.RUNG_STYLE["conv"],
    rungs.Layout: lambda: CONV,
    rungs.Start: lambda: rungs.Start(nnx.initializers.lecun_normal(), jnp.float32),
    surgery.Change: lambda: surgery.Change("stages/0/layer", "conv", "dense", 10**6, 10**9, 0.1, 1.0, 0.0, 0.0),
    surgery.LayerShares: lambda: surgery.LayerShares("stages/0/layer", "conv", 10**6, 1.0, 0.0, 0.0),
    tasks.PowerLaw: lambda: tasks.PowerLaw(report.Interval(1.0, 0.9, 1.1), 2.0),
    tasks.SampleComplexity: lambda: tasks.SampleComplexity((100.0,) * 5, {(n, n): 0.5 for n in range(100)}),
    tasks.Task: lambda: tasks.Task("birds", SHAPE, tuple(map(str, range(1000))), lambda key, n: n),
    train.Checkpoints: lambda: train.Checkpoints("folder"),
    train.Config: lambda: train.Config(epochs=4),
    train.Fitted: fitted,
    train.FittedRuns: lambda: train.FittedRuns([fitted()] * 3),
    train.Log: lambda: train.Log("folder"),
    train.LogWriter: lambda: train.LogWriter(train.Log("folder", tensorboard=False)),
    train.RawInputs: network(lambda rngs: train.RawInputs(models.Pyramid((8, 8, 1), 10, rngs=rngs), np.zeros(1), np.ones(1))),
    train.State: lambda: train.State(*[fitted().parameters] * 3, jax.random.key(0), jnp.zeros((), int), jnp.zeros((), bool)),
    train.StepOptions: train.StepOptions,
    train.Trainable: lambda: train.as_trainable(network(models.Pyramid, (28, 28, 1), 10)(), (28, 28, 1)),
}
INSTANCES |= {kind: layer(kind) for kind in vars(layers).values() if inspect.isclass(kind) and issubclass(kind, layers.Layer)}
INSTANCES |= {kind: kind for kind in rungs.RUNGS.values()}
INSTANCES |= {
    kind: network(kind, SHAPE, 10)
    for kind in vars(models).values()
    if inspect.isclass(kind) and issubclass(kind, models.Stack) and kind not in ABSTRACT
}
INSTANCES |= {
    getattr(linen, name): lambda name=name: getattr(linen, name)(16, 3 if "Conv" in name else (3, 3)) for name in linen.__all__
}
NETWORKS = {kind for kind in INSTANCES if issubclass(kind, models.Stack)}


@pytest.mark.parametrize("kind", list(public_classes()), ids=lambda kind: kind.__name__)
def test_every_public_object_prints_short_and_names_its_class(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = repr(INSTANCES[kind]())
    assert kind.__name__ in text.splitlines()[0]
    assert not re.search(r"Array\(\[|array\(\[| at 0x", text)
    lines = text.splitlines()
    if kind in NETWORKS:  # a line per stage
        assert max(map(len, lines)) <= 160
        assert len(lines) <= 15
    elif kind is measure.Count:  # two tables of 80 columns
        assert len(lines) <= 30
    else:
        assert len(text) <= LONGEST


def test_a_container_of_layers_prints_a_line_for_each():
    conv, tiled = layer(cl.Conv)(), layer(cl.Tiled)()
    lines = repr(nnx.Sequential(conv, tiled)).splitlines()
    assert "    Conv(16 -> 32, window 3x3, SAME, 4,640 parameters)," in lines
    assert "    Tiled(16 -> 32, period 2x2, window 3x3, SAME, on 28x28 pixels, 18,464 parameters)" in lines


def test_a_layer_whose_construction_failed_prints_its_class():
    assert repr(nnx.eval_shape(lambda: cl.Conv.__new__(cl.Conv))) == "Conv()"


# --- tables ----------------------------------------------------------------------------------------------------------


def rows():
    """Return results with names that are markup."""
    return ResultTable("a & b", [{"layer": "<b>head</b>", "weights": 20}], to_table, total=True)


def test_results_are_lists_that_print_as_tables():
    table = rows()
    assert table == [{"layer": "<b>head</b>", "weights": 20}]
    assert [line.strip() for line in str(table).splitlines()][0] == "a & b"
    assert repr(pickle.loads(pickle.dumps(table))) == repr(table)
    assert repr(ResultTable("changes", [], to_table)) == "changes: no rows"


def test_tables_in_notebooks_escape_names_and_print_nothing(monkeypatch, capsys):
    import rich.console

    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    table = rows()
    assert table._repr_html_() == (
        '<table><caption>a &amp; b</caption><thead><tr><th>layer</th><th style="text-align:right">weights</th></tr></thead>'
        '<tbody><tr><td>&lt;b&gt;head&lt;/b&gt;</td><td style="text-align:right">20</td></tr></tbody></table>'
    )
    assert "<b>head</b>" in repr(table)
    assert capsys.readouterr().out == ""


def test_counts_diffs_shares_and_summaries_are_tables_in_notebooks():
    model = nnx.Sequential(cl.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))
    for result in (
        cl.count(model, (5, 4, 1)),
        cl.summary(model, (5, 4, 1)),
        cl.diff(model, model, (5, 4, 1)),
        cl.shares(model, (5, 4, 1)),
    ):
        assert result._repr_html_().startswith("<table>")
        assert "layers/0" in result._repr_html_()
        assert "layers/0" in repr(result)


def test_costs_and_options_are_tables_of_their_fields_in_notebooks():
    for value, shown in (
        (count().total, "multiply_adds"),
        (train.Checkpoints("runs/<a>"), "runs/&lt;a&gt;"),
        (train.Log("runs"), "folder"),
    ):
        html = value._repr_html_()
        assert html.startswith(f"<table><thead><tr><th>{type(value).__name__}</th>")
        assert shown in html
        assert "<a>" not in html


def test_printed_counts_and_summaries_fit_80_columns_without_a_terminal(capsys):
    model = network(models.Pyramid, (8, 8, 1), 10)()
    for result in (cl.count(model, (8, 8, 1)), cl.summary(model, (8, 8, 1))):
        print(result)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert all(any(word in line for line in lines) for word in ("window", "intensity", "24,170", "0.7679"))


# --- pictures --------------------------------------------------------------------------------------------------------


def cells(html, colour):
    """Count the cells of a drawing that have a colour."""
    return html.count(f'fill="{colour}"')


def test_a_window_draws_the_pixels_that_two_positions_read():
    html = cl.Window((3, 3), padding="SAME")._repr_html_()
    assert cells(html, "#F0CF80") == 5  # taps of the corner on padding
    assert cells(html, "#E69F00") + cells(html, "#009E73") == 4
    assert cells(html, "#56B4E9") + cells(html, "#009E73") == 9
    strided = cl.Window((3, 2), (2, 1), "VALID", dilation=(1, 2))._repr_html_()
    assert cells(strided, "#E69F00") + cells(strided, "#009E73") == 6
    assert cells(strided, "#D9D9D9") == 0
    assert cells(cl.Window((3,), padding="CAUSAL")._repr_html_(), "#F0CF80") == 2
    circular = cl.Window((3,), padding="CIRCULAR")._repr_html_()  # the first position also reads the last pixel
    assert cells(circular, "#E69F00") + cells(circular, "#009E73") == 3


def test_windows_that_are_too_large_or_have_three_axes_are_not_drawn():
    assert cl.Window((99, 99))._repr_html_() is None
    assert cl.Window((3, 3, 3))._repr_html_() is None


def test_a_layer_shows_its_text_and_its_window():
    html = layer(cl.Conv)()._repr_html_()
    assert "<code>Conv(16 -&gt; 32, window 3x3, SAME, 4,640 parameters)</code>" in html
    assert "<svg" in html
    assert "<svg" not in layer(cl.Dense)()._repr_html_()


@pytest.mark.parametrize("space, channels", [((28, 28), 1), ((9, 8), 3), ((9, 8), 2), ((30,), 2), ((4, 5, 6), 1)])
def test_data_show_images_of_every_class_and_escape_its_name(space, channels):
    shown = blank(np.float32, space, channels, names=3)
    shown = data.Data("<i>", shown.train, shown.test, ("<script>", "b", "c"))
    html = shown._repr_html_()
    part = shown.train._repr_html_()
    assert part.count("<img") == html.count("<img")
    assert part.count("<tr>") == 4
    assert "examples" in part
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "<i>" not in html
    assert html.count("<img") == 3 or html.count("<svg") == 24
    assert html.count("<tr>") == 4


def test_a_configuration_prints_what_differs_and_shows_all_fields_in_a_notebook():
    config = train.Config(epochs=3, batch_size=1000, learning_rate=float("1e-3"), shuffle=False)
    assert repr(config) == "Config(epochs=3, batch_size=1000, shuffle=False)"
    assert repr(train.Config()) == "Config()"
    assert repr(train.Config(epochs=10.0)) == "Config(epochs=10.0)"
    html = config._repr_html_()
    assert html.count("<tr>") == 1 + len(dataclasses.fields(config))
    assert "<td>batch_size</td><td>1000</td><td>128</td>" in html


def test_a_log_shows_its_options_and_its_curves_once_they_are_drawn(tmp_path):
    log = train.Log(tmp_path / "<b>")
    assert "&lt;b&gt;" in log._repr_html_()
    assert "<img" not in log._repr_html_()
    with log.writer() as writer:
        writer.add({"step": 1, "loss": 0.5, "test_loss": 0.5, "test_accuracy": 0.5})
    assert log._repr_html_().count("<img") == 1


def test_brightness_of_samples_is_relative_to_the_brightest_one():
    from convlab.data.sheet import _as_bytes

    images = np.arange(17, dtype=np.uint8).reshape(1, 17, 1, 1)
    assert _as_bytes(images, 0.0, 16.0).ravel()[[0, 8, 16]].tolist() == [0, 128, 255]


def test_data_without_pillow_and_runs_without_matplotlib_show_tables(monkeypatch):
    for name in ("PIL", "matplotlib", "matplotlib.figure", "convlab.report.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "<img" not in blank(names=3)._repr_html_()
    html = fitted()._repr_html_()
    assert "<img" not in html
    assert "test accuracy" in html


def test_runs_show_their_curves_and_last_scores():
    for run in (fitted(), train.FittedRuns([fitted()] * 2)):
        html = run._repr_html_()
        assert html.count("<img") == 1
        assert "0.975" in html
    assert "<img" not in fitted(rows=0)._repr_html_()


def test_figures_show_themselves_without_pyplot_and_can_be_pickled():
    figure, _ = report.new_figure()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")


def test_every_drawing_function_returns_its_figure():
    summary = [{"rung": "conv", "size": n, "loss": 1.0, "test_loss": 1.0, "step": n} for n in (1, 2)]
    draw = {
        "comparison": lambda axes: report.comparison(axes[0], summary, "rung", "loss", label="", x_label=""),
        "curves": lambda axes: report.curves(axes[0], summary, "size", "loss", x_label="", y_label=""),
        "dot_plot": lambda axes: report.dot_plot(axes[0], summary, "size", "loss", x_label="", y_label=""),
        "dense_matrix": lambda axes: report.dense_matrix(cl.Window(3), (5,), axis=axes[0]),
        "feature_map_grid": lambda axes: report.feature_map_grid(axes[0], np.ones((2, 3, 4))),
        "filter_grid": lambda axes: report.filter_grid(axes[0], np.ones((2, 3, 4))),
        "heatmap": lambda axes: report.heatmap(axes[0], np.ones((3, 4)), np.ones((3, 4)), label=""),
        "matrix_picture": lambda axes: report.matrix_picture(axes[0], np.ones((2, 3), int)),
        "sheet": lambda axes: report.sheet(axes[0], np.ones((2, 3)), kind="orientation"),
        "training_curves": lambda axes: report.training_curves(axes, summary),
    }
    functions = [name for name in report.__all__ if inspect.isfunction(getattr(report, name))]
    drawing = {name for name in functions if {"axis", "axes"} & {*inspect.signature(getattr(report, name)).parameters}}
    assert drawing == {*draw}
    for function in draw.values():
        figure, axes = report.new_figure(2)
        assert function(axes) is figure


# --- dense matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rung", rungs.RUNGS)
def test_cells_have_the_same_number_if_their_weights_are_equal(rung, transposed):
    from convlab.report.matrices import weight_numbers

    window = cl.Window((2, 3), (2, 1), ("SAME", "REFLECT"))  # at the border, two taps read one pixel
    groups = 2 if rungs.RUNGS[rung].has_groups else 1
    layout = rungs.Layout(rungs.Shared(), window, 2, 4, (5, 4), groups=groups)
    layout = rungs.with_rung(layout, rung)
    random = np.random.default_rng(1)
    arrays = {name: jnp.asarray(random.normal(size=shape), "float32") for name, shape in layout.tying.shapes(layout).items()}
    variables = {name: nnx.Param(array) for name, array in arrays.items()}
    made = layers.Layer.from_layout(layout, variables | {"bias": None})
    matrix = measure.LinearOperator(made, (5, 4, 2)).to_scipy_sparse().toarray()
    numbers = weight_numbers(rungs.Layout(**(vars(layout) | {"transposed": transposed})))
    numbers = numbers.T if transposed else numbers
    assert numbers.shape == matrix.shape
    np.testing.assert_array_equal(numbers > 0, matrix != 0)
    values = matrix.round(5)
    pairs = np.unique(np.stack([values[values != 0], numbers[values != 0]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[1])) == numbers.max()
    assert rung in ("low_rank", "dense") or pairs.shape[1] == len(np.unique(pairs[0]))


def test_the_picture_of_a_dense_matrix_has_the_number_of_weights_and_lines_between_image_rows():
    figure = report.dense_matrix(cl.Window(3), (4, 5), "tiled", period=(2, 1))
    [axis] = figure.axes
    assert axis.get_title() == "tiled, period 2x1\n18 weights"
    assert len(axis.lines) == 3 + 3
    assert report.dense_matrix(cl.Window(3), (7,), "low_rank", rank=2, title="").axes[0].get_title() == "20 weights"
    with pytest.raises(ValueError, match="tying 'tile' is unknown; needs one of .*did you mean 'tiled'"):
        report.dense_matrix(cl.Window(3), (4, 5), "tile")
    with pytest.raises(MemoryError, match="picture of the matrix"):
        report.dense_matrix(cl.Window(3), (10**4, 10**4))


# --- rounding errors -------------------------------------------------------------------------------------------------


def test_rounding_errors_are_drawn_as_zero():
    gray, [axis] = np.ones((3, 4)) / 2, report.new_figure()[1]
    report.heatmap(axis, gray, np.full((3, 4), 1e-9), label="")
    assert axis.images[1].get_clim() == (0, 1)
    [axis] = report.new_figure()[1]
    report.heatmap(axis, gray, np.full((3, 4), 1e-9), label="", vmax=1e-9)
    assert axis.images[1].get_clim() == (0, 1e-9)
    [axis] = report.new_figure()[1]
    report.heatmap(axis, gray, np.array([[2.0, -1e-9]]), label="")
    assert axis.images[1].get_clim() == (0, 2)


def test_units_of_rounding_errors_are_drawn_as_zero():
    [axis] = report.new_figure()[1]
    report.filter_grid(axis, np.stack([np.ones((2, 2)), np.full((2, 2), 1e-9)]), columns=2)
    sheet = axis.images[0].get_array()
    assert sheet[1:3, 1:3].min() == 1
    assert abs(sheet[1:3, 4:6]).max() == 0
