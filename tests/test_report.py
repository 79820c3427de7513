"""Test intervals, summaries, tables, pictures and provenance of reports."""

import csv
import dataclasses
import json
import math
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.text import Text

import convlab
from convlab.report import (
    RUNG_STYLE,
    Interval,
    append_json_lines,
    best_rows,
    comparison,
    curves,
    dot_plot,
    draw_report,
    feature_map_grid,
    filter_grid,
    heatmap,
    holm,
    interval,
    matrix_picture,
    new_figure,
    p_value,
    paired_differences,
    provenance,
    read_json_lines,
    report_folder,
    save_report,
    save_rows,
    summarise,
    training_curves,
)
from convlab.report.drawing import draw_legend, save_figure
from convlab.report.matrices import _colours
from convlab.report.provenance import _without_folders
from convlab.report.table import Table, fit_width, print_table, to_csv, to_markdown, to_table

FILES = ["config.json", "figure.png", "provenance.json", "table.csv", "table.md"]
ROWS = [
    {"rung": rung, "size": size, "seed": seed, "accuracy": 0.7 + 0.1 * (rung == "conv") + 0.01 * seed}
    for rung in ("dense", "conv")
    for size in (64, 256)
    for seed in range(3)
]


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 100
    rungs: tuple[str, ...] = ("dense", "conv")


def picture(summary=None):
    figure, [axis] = new_figure()
    curves(axis, summary or summarise(ROWS, ["rung", "size"], "accuracy"), "size", "accuracy", x_label="a", y_label="b")
    return figure


# Intervals


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20).filter(lambda x: np.std(x) > 1e-3), st.floats(0.5, 0.999))
def test_interval_matches_scipy(values, level):
    low, high = scipy.stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    np.testing.assert_allclose(interval(values, level), (np.mean(values), low, high), rtol=1e-9, atol=1e-9)


def test_interval_covers_the_true_mean_at_its_level():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    covered = np.mean([low <= 3.0 <= high for _, low, high in map(interval, samples)])
    assert abs(covered - 0.95) < 0.02


def test_one_run_has_a_mean_and_no_interval():
    mean, low, high = interval([jnp.float32(0.5)])
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


def test_interval_with_a_diverged_run_is_nan():
    assert all(map(math.isnan, interval([0.5, float("nan"), 0.7])))


def test_equal_runs_have_an_interval_of_width_zero():
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_interval_requires_runs_and_a_probability():
    with pytest.raises(ValueError, match="values is empty"):
        interval([])
    with pytest.raises(ValueError, match="level is 95.0; needs a probability"):
        interval([1.0, 2.0], level=95.0)


BOUNDS = [(0.0, 1.0), (-3.0, 7.0), (0.0, math.inf), (-math.inf, 1.0), (-math.inf, math.inf)]
SCALES = {  # bounds -> transformation of the scale and its inverse
    (-3.0, 7.0): (lambda x: np.arcsin(np.sqrt((x + 3) / 10)), lambda y: 10 * np.sin(np.clip(y, 0, np.pi / 2)) ** 2 - 3),
    (-2.0, math.inf): (lambda x: np.log(x + 2), lambda y: np.exp(y) - 2),
    (-math.inf, 9.0): (lambda x: -np.log(9 - x), lambda y: 9 - np.exp(-y)),
}


@st.composite
def bounded(draw):
    low, high = draw(st.sampled_from(BOUNDS))
    inside = st.floats(max(low, -1e6), min(high, 1e6), allow_subnormal=False)
    values = draw(st.lists(inside, min_size=2, max_size=20))
    if draw(st.booleans()):  # values that differ only by rounding
        values = [values[0], np.nextafter(values[0], values[1]).item()]
    return (low, high), values, draw(st.floats(0.01, 0.999))


@given(bounded())
def test_bounded_interval_contains_the_mean_and_stays_within_the_bounds(drawn):
    (least, most), values, level = drawn
    mean, low, high = interval(values, level, bounds=(least, most))
    assert least <= low <= mean <= high <= most
    np.testing.assert_allclose(mean, np.mean(values), rtol=1e-12, atol=1e-12)
    assert (low == high) == (min(values) == max(values)) or high - low < 1e-9 * (abs(mean) + 1)


@pytest.mark.parametrize("bounds", SCALES)
def test_bounded_interval_is_a_student_interval_on_a_transformed_scale(bounds):
    scale, back = SCALES[bounds]
    values = np.random.default_rng(0).uniform(0.2, 6.5, 7)
    mean, small = np.mean(values), 1e-5
    slope = (scale(mean + small) - scale(mean - small)) / (2 * small)
    ends = scale(mean) + np.array([-1, 1]) * slope * scipy.stats.t.ppf(0.95, 6) * scipy.stats.sem(values)
    np.testing.assert_allclose(interval(values, 0.9, bounds=bounds), (mean, *back(ends)), rtol=1e-7)


def test_distant_bounds_change_nothing_and_bounds_shift_scale_and_flip_with_the_values():
    values = np.random.default_rng(0).normal(3.0, 0.1, 5)
    for bounds in ((-1e5, 2e5), (-1e5, math.inf), (-math.inf, 1e5)):
        np.testing.assert_allclose(interval(values, bounds=bounds), interval(values), rtol=1e-5)
    shares = np.random.default_rng(1).beta(7, 1, 5)
    mean, low, high = interval(shares, bounds=(0, 1))
    np.testing.assert_allclose(interval(3 + 5 * shares, bounds=(3, 8)), 3 + 5 * np.array([mean, low, high]))
    np.testing.assert_allclose(interval(1 - shares, bounds=(0, 1)), 1 - np.array([mean, high, low]))
    np.testing.assert_allclose(interval(7 * shares, bounds=(0, math.inf)), 7 * np.array(interval(shares, bounds=(0, math.inf))))


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, math.inf)])
def test_bounds_improve_the_interval_coverage_for_skewed_values(bounds):
    draw, mean = np.random.default_rng(0).beta, 40 / 42
    samples = draw(40, 2, (2000, 5)) if bounds[1] == 1 else 1 / draw(40, 2, (2000, 5)) - 1
    mean = 40 / 42 if bounds[1] == 1 else 2 / 39
    within, without = (
        np.mean([low <= mean <= high for _, low, high in (interval(sample, bounds=limits) for sample in samples)])
        for limits in (bounds, None)
    )
    assert without + 0.005 < within < 0.97
    assert within > 0.9


def test_bounds_leave_intervals_of_single_equal_and_non_finite_values_unchanged():
    assert interval([1, 1.0, 1], bounds=(0, 1)) == (1, 1, 1)
    assert interval([0.0, 0.0], bounds=(0, math.inf)) == (0, 0, 0)
    assert interval([0.1] * 3) == (0.1, 0.1, 0.1)
    np.testing.assert_equal(interval([0.5], bounds=(0, 1)), (0.5, math.nan, math.nan))
    np.testing.assert_equal(interval([0.5, math.nan], bounds=(0, 1)), (math.nan,) * 3)
    for bounds in (None, (0, math.inf)):
        np.testing.assert_equal(interval([0.5, math.inf], bounds=bounds), (math.inf, math.nan, math.nan))
    assert interval([0.9, 1 + 5e-7], bounds=(0, 1)).high == 1
    assert interval([1 + 5e-7, 1 + 6e-7], bounds=(0, 1)) == (1, 1, 1)
    for bounds in ((1, math.inf), (1, 2)):  # the mean of neighbouring floats is rounded to the bound
        assert interval([1.0, math.nextafter(1, 2)], bounds=bounds).low == 1
        assert 1 < interval([1.0, math.nextafter(1, 2)], bounds=bounds).high < 1 + 1e-14


@pytest.mark.parametrize("values, bounds", [([0.9, 1.001], (0, 1)), ([-0.1, 3], (0, math.inf)), ([0.9, math.inf], (0, 1))])
def test_value_outside_the_bounds_raises_an_error(values, bounds):
    with pytest.raises(ValueError, match=r"values holds .*, which is outside of the bounds \(0, "):
        interval(values, bounds=bounds)


@pytest.mark.parametrize("bounds", [(1, 0), (1, 1), (math.nan, 1)])
def test_bounds_out_of_order_raise_an_error(bounds):
    with pytest.raises(ValueError, match="needs the lower number first"):
        interval([1, 1], bounds=bounds)


# Summaries


def test_best_returns_the_first_row_with_the_highest_non_nan_value_of_each_group():
    rows = [
        {"rung": rung, "rate": rate, "score": score}
        for rung, scores in {
            "conv": (math.nan, 0.7, 0.9, 0.9, None),
            "dense": (0.8, math.nan, 0.2, None, 0.1),
            "null": (None,),
        }.items()
        for rate, score in enumerate(scores)
    ]
    assert [(row["rung"], row["rate"]) for row in best_rows(rows, ["rung"], "score")] == [
        ("conv", 2),
        ("dense", 0),
        ("null", 0),
    ]
    assert best_rows(rows, ("rung", "rate"), "score") == rows
    with pytest.raises(ValueError, match=re.escape("no row has ['loss']; the 11 rows have ['rung', 'rate', 'score']")):
        best_rows(rows, "rung", "loss")


def test_summary_holds_group_means_in_order_of_first_appearance():
    rows = summarise(ROWS, by=["rung", "size"], values="accuracy")
    assert [(row["rung"], row["size"]) for row in rows] == [("dense", 64), ("dense", 256), ("conv", 64), ("conv", 256)]
    np.testing.assert_allclose([row["accuracy"] for row in rows], [0.71, 0.71, 0.81, 0.81])
    assert {row["seeds"] for row in rows} == {3}
    assert all(row["accuracy_low"] < row["accuracy"] < row["accuracy_high"] for row in rows)


def test_summary_takes_bounds_by_value_name():
    rows = [{"seed": seed, "share": share, "gain": -share} for seed, share in enumerate((1.0, 0.99, 0.9))]
    [row] = summarise(rows, [], ["share", "gain"], bounds={"share": (0, 1)})
    assert (row["share_low"], row["share_high"]) == interval((1.0, 0.99, 0.9), bounds=(0, 1))[1:]
    assert (row["gain_low"], row["gain_high"]) == interval((-1.0, -0.99, -0.9))[1:]
    with pytest.raises(ValueError, match=r"gain of \(\): values holds -1, which is outside"):
        summarise(rows, [], "gain", bounds={"gain": (0, 1)})
    with pytest.raises(ValueError, match=r"bounds names \['loss'\] but the values are \['gain'\]"):
        summarise(rows, [], "gain", bounds={"loss": (0, 1)})


def test_equal_numbers_of_different_types_form_one_group():
    rows = [{"size": size, "loss": jnp.float32(1)} for size in (5, np.int64(5), jnp.int32(5))]
    assert [(row["size"], row["seeds"]) for row in summarise(rows, "size", "loss")] == [(5, 3)]


def test_value_missing_from_a_whole_group_is_none():
    rows = [{"rung": "conv", "rank": None}, {"rung": "dense"}, {"rung": "low_rank", "rank": 3}]
    assert [row["rank"] for row in summarise(rows, "rung", "rank")] == [None, None, 3]


def test_value_missing_from_some_runs_of_a_group_raises_an_error():
    with pytest.raises(ValueError, match=r"loss is present in 1 of the 2 runs of \('conv',\)"):
        summarise([{"rung": "conv", "loss": 1.0}, {"rung": "conv"}], "rung", "loss")


def test_name_missing_from_every_row_raises_an_error():
    with pytest.raises(ValueError, match=r"no row has \['run'\]"):
        summarise(ROWS, "run", "accuracy")
    with pytest.raises(ValueError, match="the 0 rows have"):
        summarise([], [], [])


# Tables


def test_table_cells_are_formatted_for_readers():
    row = {
        "rung": "low_rank",
        "parameters": jnp.int32(1234567),
        "loss": np.float32(0.123456),
        "live": True,
        "rank": None,
    }
    table = to_table([row, {"rung": "conv", "loss": float("nan"), "learning_rate": 12345.6}])
    assert table.header == ["rung", "parameters", "loss", "live", "rank", "learning rate"]
    assert table.cells == [["low_rank", "1,234,567", "0.1235", "yes", "", ""], ["conv", "", "nan", "", "", "12,346"]]
    assert table.numeric == [False, True, True, False, True, True]


@pytest.mark.parametrize(
    ("ends", "specification", "text"),
    [
        ((0.931, 0.92, 0.942), ".1%", "93.1 [92.0, 94.2]"),
        ((0.931, 0.92, 0.942), "", "0.9310 [0.9200, 0.9420]"),
        ((12345.6, 12000.0, 12691.2), "", "12,346 [12,000, 12,691]"),
        ((0.0, 0.0, 0.0), "", "0 [0, 0]"),
        ((0.931, float("nan"), float("nan")), "", "0.931"),
        ((None, None, None), ".1%", ""),
    ],
)
def test_interval_is_shown_after_its_mean_with_as_many_decimals(ends, specification, text):
    row = {"loss": ends[0], "loss_low": ends[1], "loss_high": ends[2]}
    table = to_table([row], {"loss": specification})
    assert table.header == ["loss (%)" if specification else "loss"]
    assert table.cells == [[text]]


def test_markdown_escapes_bars_and_line_breaks_in_cells():
    text = to_markdown(Table(["name"], [["a|b\nc"]], [False]))
    assert text.splitlines()[2] == r"| a\|b c |"


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.one_of(st.floats(), st.text("x,\"' |\n;")), min_size=1), min_size=1))
def test_csv_reads_back_exactly(rows):
    read = list(csv.DictReader(to_csv(rows).splitlines(keepends=True)))
    assert len(read) == len(rows)
    for row, line in zip(rows, read, strict=True):
        for name, cell in line.items():
            value = row.get(name, "")
            np.testing.assert_equal(float(cell) if isinstance(value, float) else cell, value)


def test_array_in_a_row_raises_an_error():
    with pytest.raises(ValueError, match=r"loss holds an array of shape \(3,\)"):
        to_csv([{"loss": np.ones(3)}])


def test_format_for_a_missing_column_raises_an_error():
    with pytest.raises(ValueError, match=r"formats names \['acuracy'\]"):
        to_table(ROWS, {"acuracy": ".1%"})


WIDE = [{"rung": rung, "size": size, "seeds": 5} for rung in ("dense", "conv") for size in (64, 256)]


def wide(columns):
    """Make the table of a summary with many quantities."""
    return to_table([row | {f"quantity_{i}": f"{i + 100 * j}" for i in range(columns)} for j, row in enumerate(WIDE)])


@given(st.integers(1, 30), st.integers(45, 200))
def test_wide_table_is_split_into_tables_that_fit_and_keep_every_cell(columns, width):
    table = wide(columns)
    parts, shared = fit_width(table, width)
    shown = {(name, cell) for part in parts for line in part.cells for name, cell in zip(part.header, line, strict=True)}
    assert shown | {*shared.items()} == {
        (name, cell) for line in table.cells for name, cell in zip(table.header, line, strict=True)
    }
    if len(parts) > 1:
        assert shared == {"seeds": "5"}
        assert all(part.header[:2] == ["rung", "size"] for part in parts)


def test_blank_columns_of_a_wide_table_are_not_printed():
    row = {"rung": "conv", "blank": None, "also_blank": None} | {f"quantity_{i}": i for i in range(20)}
    for rows in ([row], [row, row | {"rung": "dense"}]):
        parts, _ = fit_width(to_table(rows), 60)
        assert not any("blank" in name for part in parts for name in part.header)
        assert all(part.cells for part in parts)


def test_printed_lines_are_not_longer_than_the_width(capsys):
    for width in (45, 60, 80):
        print_table("wide", wide(17), width=width)
        printed = capsys.readouterr().out.splitlines()
        assert max(map(len, printed)) <= width
        assert printed[-1] == "in every line: seeds 5"


def test_quantities_of_different_lines_are_printed_as_different_tables():
    rows = [
        {"question": name, f"{name}_result_of_the_question": 1.5 + seed, "seed": seed} for name in "ab" for seed in range(2)
    ]
    parts, _ = fit_width(to_table(rows), 40)
    assert [len(part.cells) for part in parts] == [2, 2]
    assert all(all(cell for cell in line) for part in parts for line in part.cells)


# The folder of a report


def test_rows_are_saved_before_the_table_and_figure_are_drawn(tmp_path, capsys):
    folder = save_rows("ladder", ROWS, Config(), seconds=2.5, root=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "provenance.json", "table.csv"]
    summary = summarise(ROWS, ["rung", "size"], "accuracy")
    draw_report(folder, summary, figure=picture(summary), formats={"accuracy": ".1%"}, columns=["rung", "accuracy"])
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert json.loads((folder / "provenance.json").read_text())["seconds"] == 2.5
    printed = capsys.readouterr().out
    assert "81.0 [78.5, 83.5]" in printed
    assert "size" not in printed
    assert "size" in (folder / "table.md").read_text()
    draw_report(folder, summary)
    assert not (folder / "figure.png").exists()
    save_rows("ladder", ROWS, Config(), root=tmp_path)
    assert not (folder / "table.md").exists()  # it belonged to other rows


def commits(monkeypatch, *records):
    """Set the commits, and whether files were changed, of the next reports."""
    found = iter(records)

    def record(seconds=None):
        return dict(zip(("git_commit", "git_dirty"), next(found), strict=True))

    monkeypatch.setattr("convlab.report.folder.provenance", record)


@pytest.mark.parametrize(
    "first, second, config, kept",
    [
        (("a", False), ("a", False), Config(), False),
        (("a", False), ("a", False), Config(steps=7), True),
        (("a", False), ("b", False), Config(), True),
        (("a", True), ("a", True), Config(), True),
        ((None, None), (None, None), Config(), True),
    ],
)
def test_previous_report_is_kept_unless_it_is_of_the_same_settings_and_commit(
    tmp_path, monkeypatch, capsys, first, second, config, kept
):
    commits(monkeypatch, first, second, second)
    folder = save_rows("ladder", ROWS, Config(), root=tmp_path)
    (folder / "notes.txt").touch()
    assert save_rows("ladder", ROWS[:1], config, root=tmp_path, keep_previous=True) == folder
    assert len((folder / "table.csv").read_text().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir() if path != folder] == ["ladder.1"] * kept
    if kept:
        assert len((tmp_path / "ladder.1" / "table.csv").read_text().splitlines()) == 1 + len(ROWS)
        assert (tmp_path / "ladder.1" / "notes.txt").exists()
        assert f"kept in {tmp_path / 'ladder.1'}" in capsys.readouterr().out


def test_folder_is_checked_without_changing_it(tmp_path):
    assert report_folder("ladder", tmp_path / "new" / "runs") == tmp_path / "new" / "runs" / "ladder"
    assert list((tmp_path / "new" / "runs").iterdir()) == []
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ValueError, match="root must be a folder that can be written, got .*file"):
            report_folder("ladder", root)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_saved_figure_shows_every_point_although_its_limits_did_not(tmp_path, log, inverted):
    figure, [axis, other] = new_figure(2)
    x, y = [1.0, 3.0, math.nan, 90.0], [0.02, 5.0, 0.5, math.inf]
    axis.plot(x, y, "o")
    axis.plot([1e-3, 1e3], [1e-3, 1e3], "-")  # no points
    axis.axhline(400.0, marker="")
    axis.set(xscale="log" if log else "linear", xlim=(2.0, 30.0), ylim=(3.0, 0.5) if inverted else (0.5, 3.0))
    other.plot([1, 2], [0.3, 0.4], "o")
    other.set_ylim(0, 1)
    save_figure(figure, tmp_path / "figure.png")
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert left < 1 < 90 < right < 400
    assert min(bottom, top) < 0.02 < 5 < max(bottom, top) < 10
    assert (bottom > top) == inverted
    assert other.get_ylim() == (0, 1)


def test_report_consists_of_five_files(tmp_path):
    folder = save_report("ladder", ROWS, Config(), figure=picture(), seconds=1.5, root=tmp_path)
    assert folder == tmp_path / "ladder"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert list(tmp_path.iterdir()) == [folder]
    assert json.loads((folder / "config.json").read_text()) == {"steps": 100, "rungs": ["dense", "conv"]}
    assert json.loads((folder / "provenance.json").read_text())["seconds"] == 1.5
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure.png").stat().st_size < 300_000


def test_printed_table_is_the_summary_and_csv_holds_every_run(tmp_path, capsys):
    summary = summarise(ROWS, ["rung", "size"], "accuracy")
    folder = save_report("ladder", ROWS, {}, summary=summary, formats={"accuracy": ".1%"}, root=tmp_path)
    printed, written = capsys.readouterr().out, (folder / "table.md").read_text()
    assert "ladder" in printed
    for text in (printed, written):
        assert "81.0 [78.5, 83.5]" in text
    assert len((folder / "table.csv").read_text().splitlines()) == 1 + len(ROWS)


def test_printed_report_fits_80_columns_without_a_terminal(tmp_path, capsys):
    save_report("wide", [{f"quantity_{i}": "[bold]" * 4 for i in range(12)}], {}, root=tmp_path)
    *printed, _ = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert "[bold]" * 4 in "".join(printed)


def test_failure_while_drawing_leaves_the_previous_report_intact(tmp_path, monkeypatch):
    folder = save_report("ladder", ROWS, Config(), figure=picture(), root=tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    figure = picture()
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_report("ladder", ROWS[:1], Config(steps=7), figure=figure, root=tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_report_without_a_figure_removes_the_previous_figure_and_keeps_other_files(tmp_path):
    folder = save_report("ladder", ROWS, Config(), figure=picture(), root=tmp_path)
    (folder / "weights.npz").touch()
    save_report("ladder", ROWS, Config(), root=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted({*FILES, "weights.npz"} - {"figure.png"})


def test_configuration_may_hold_values_that_json_does_not_support(tmp_path):
    config = {"root": pathlib.Path("runs/here"), "scale": np.float32(0.5), "sizes": jnp.arange(3), "loss": math.sqrt}
    written = (save_report("x", ROWS, config | {"inner": Config()}, root=tmp_path) / "config.json").read_text()
    inner = {"steps": 100, "rungs": ["dense", "conv"]}
    expected = {"root": "runs/here", "scale": 0.5, "sizes": [0, 1, 2], "loss": "sqrt", "inner": inner}
    assert json.loads(written) == expected


def test_report_requires_rows_and_a_configuration(tmp_path):
    with pytest.raises(ValueError, match="rows is empty"):
        save_report("ladder", [], Config(), root=tmp_path)
    with pytest.raises(ValueError, match="rows is empty"):
        save_report("ladder", [], Config(), summary=ROWS, root=tmp_path)
    with pytest.raises(TypeError, match="config is a int"):
        save_report("ladder", ROWS, 3, root=tmp_path)
    for name in ("", "..", "../ladder", "a/b"):
        with pytest.raises(ValueError, match="experiment must name one folder inside root"):
            save_report(name, ROWS, Config(), root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_package_raises_an_error_with_the_extra_that_installs_it(monkeypatch, tmp_path):
    figure = picture()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ways = r"matplotlib is needed here but missing .*'\.\[experiments\]' in a checkout.*'convlab-jax\[experiments\]' from PyPI"
    with pytest.raises(ImportError, match=ways):
        save_report("ladder", ROWS, Config(), figure=figure, root=tmp_path)


# Provenance


def test_git_provenance_is_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    record = provenance(seconds=3.0)
    assert record["git_commit"] is record["git_dirty"] is None
    assert (record["numpy"], record["convlab-jax"]) == (np.__version__, convlab.__version__)
    assert record["seconds"] == 3.0


def test_git_provenance_is_none_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["git_commit"] is None


def test_provenance_records_the_commit_and_uncommitted_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init"], [*name, "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *arguments], check=True, capture_output=True)
    clean = provenance()
    (tmp_path / "new.py").touch()
    assert re.fullmatch("[0-9a-f]{40}", str(clean["git_commit"]))
    assert (clean["git_dirty"], provenance()["git_dirty"]) == (False, True)


def test_recorded_command_can_be_repeated_and_omits_local_folders(tmp_path):
    (tmp_path / "trial.py").write_text("from convlab.report import provenance; print(provenance()['command'])")
    arguments = ["--root", str(tmp_path / "runs"), "--data=/home/someone/data", "--name", "two words"]
    command = [sys.executable, "-m", "trial", *arguments]
    environment = {"PYTHONPATH": f"{pathlib.Path(__file__).parents[1]}", "JAX_PLATFORMS": "cpu", "PATH": ""}
    printed = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "python -m trial --root runs --data=data --name 'two words'"


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("runs/ladder", "runs/ladder"),
        ("./runs", "./runs"),
        ("3/4", "3/4"),
        ("--rate=1e-3", "--rate=1e-3"),
        (r"\d+", r"\d+"),
        ("/", ""),
        ("/home/someone/my data", "my data"),
        ("../../someone/data", "data"),
        ("~/data", "data"),
        ("~someone/data", "data"),
        ("-o/home/someone/data", "-odata"),
        ("['/home/a/x','/home/b/y']", "['x','y']"),
        (r"C:\Users\someone\data", "data"),
        (f"{pathlib.Path.cwd()}/runs/x", "runs/x"),
    ],
)
def test_recorded_arguments_omit_local_folders(argument, shown):
    assert _without_folders(argument) == shown


# Pictures


def test_every_rung_has_its_own_colour_marker_and_label():
    for parts in list(zip(*RUNG_STYLE.values(), strict=True))[:3]:
        assert len({*parts}) == len(RUNG_STYLE)


def test_rung_keeps_its_style_when_other_groups_are_drawn():
    figure = picture([{"rung": "conv", "size": 3, "accuracy": 0.5}, {"rung": "other", "size": 5, "accuracy": 0.5}])
    conv, other = figure.axes[0].get_lines()[0], figure.axes[0].get_lines()[-1]
    assert (conv.get_color(), conv.get_marker()) == (RUNG_STYLE["conv"].colour, RUNG_STYLE["conv"].marker)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["convolution", "other"]
    assert other.get_color() != conv.get_color()


@pytest.mark.parametrize("band", [False, True])
def test_lines_pass_through_the_means_from_left_to_right(band):
    summary = [{"rung": "conv", "size": x, "loss": y, "loss_low": None} for x, y in ((9, 0.1), (2, 0.5), (4, None))]
    _, [axis] = new_figure()
    curves(axis, summary, "size", "loss", x_label="a", y_label="b", band=band)
    np.testing.assert_equal(axis.get_lines()[0].get_xydata(), [[2, 0.5], [9, 0.1]])


def test_legend_is_no_wider_than_its_figure():
    figure, axes = new_figure(2)
    for number in range(5):
        axes[number % 2].plot([0, 1], label=f"a line of some forty characters, number {number}")
    draw_legend(axes[0])
    [legend] = figure.legends
    assert len(legend.get_texts()) == 5
    assert legend.get_window_extent().width <= figure.bbox.width


def test_several_panels_share_one_legend():
    figure, axes = new_figure(2)
    for axis, rung in zip(axes, ("dense", "conv"), strict=True):
        rows = [{"rung": rung, "size": 3, "loss": 0.5}]
        curves(axis, rows, "size", "loss", x_label="a", y_label="b", baselines={"chance": 0.1})
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["dense", "chance", "convolution"]


def test_axis_ticks_are_sizes_if_they_fit_and_powers_of_ten_otherwise():
    for panels, marked in ((1, True), (5, False)):
        _, axes = new_figure(panels)
        rows = [{"rung": "conv", "size": 1000 * 4**i, "loss": 0.5} for i in range(5)]
        curves(axes[0], rows, "size", "loss", x_label="a", y_label="b", log_x=True)
        assert ([text.get_text() for text in axes[0].get_xticklabels()][:2] == ["1,000", "4,000"]) is marked


def test_text_is_large_enough_for_a_slide(tmp_path):
    figure, axes = new_figure(2)
    for axis in axes:
        rows = [{"rung": "conv", "size": x, "loss": 0.5} for x in (1, 2)]
        curves(axis, rows, "size", "loss", x_label="a", y_label="b", title="c")
    save_figure(figure, tmp_path / "figure.png")
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert len(texts) > 10
    assert min(float(text.get_fontsize()) for text in texts) >= 12


def test_drawing_leaves_the_settings_of_matplotlib_unchanged():
    before = dict(matplotlib.rcParams)
    picture()
    assert dict(matplotlib.rcParams) == before
    program = "import sys, convlab.report as r; r.new_figure(); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=pathlib.Path(__file__).parents[1])


def test_curves_and_figures_raise_errors_for_invalid_arguments():
    _, [axis] = new_figure()
    with pytest.raises(ValueError, match=r"no row has \['loss'\]"):
        curves(axis, ROWS, "size", "loss", x_label="a", y_label="b")


WORDS = {"x_label": "a", "y_label": "b"}


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda axis: new_figure(0), ValueError, "panels must be at least 1, got 0"),
        (lambda axis: new_figure(10**9), ValueError, "panels must be at most 1000"),
        (lambda axis: new_figure(size=(0, 3)), ValueError, r"size must be the width and the height in inches, .* got \(0, 3\)"),
        (
            lambda axis: curves(((1, 2), (3, 4)), ROWS, "size", "accuracy", **WORDS),
            TypeError,
            "axis must be axes of matplotlib",
        ),
        (
            lambda axis: curves(axis, ROWS, "size", "accuracy", **WORDS | {"y_label": 3}),
            TypeError,
            "y_label must be a string, got 3",
        ),
        (
            lambda axis: curves(axis, ROWS, "size", "rung", **WORDS),
            TypeError,
            "y must be a column of numbers, but rung holds 'dense'",
        ),
        (
            lambda axis: curves(axis, ROWS, "size", "accuracy", y_format="%", **WORDS, styles={"conv": "red"}),
            TypeError,
            "styles must",
        ),
        (
            lambda axis: curves(axis, ROWS, "size", "accuracy", y_format="q", **WORDS),
            ValueError,
            "y_format must be a format spec",
        ),
        (
            lambda axis: curves(axis, ROWS, "size", "accuracy", baselines=0.5, **WORDS),
            TypeError,
            "baselines must be a mapping of",
        ),
        (
            lambda axis: curves(axis, ROWS, "size", "accuracy", baseline_labels="up", **WORDS),
            ValueError,
            "baseline_labels 'up' is",
        ),
        (lambda axis: matrix_picture(axis, [[1, 2], [3]]), ValueError, "labels must be a matrix of integers, got"),
        (lambda axis: matrix_picture(axis, [[1, 2]], grid=(0, 1)), ValueError, "grid must be at least 1, got 0"),
        (lambda axis: filter_grid(axis, np.ones((2, 3, 4)), columns=10**9), MemoryError, "the picture of columns"),
        (lambda axis: feature_map_grid(axis, "abc"), TypeError, "maps must be numbers, got 'abc'"),
        (lambda axis: read_json_lines(0), TypeError, "path must be a path, got 0"),
        (
            lambda axis: append_json_lines("rows.jsonl", [{"a": object()}]),
            TypeError,
            "rows must be mappings that JSON can hold",
        ),
        (
            lambda axis: save_rows("trial", [{"a": 1}], {}, seconds=-1.0),
            ValueError,
            "seconds must be a number of seconds of at",
        ),
        (lambda axis: save_rows("trial", [{"a": 1}], {}, root=""), ValueError, "root must be a path, got an empty text"),
    ],
)
def test_wrong_arguments_of_figures_and_files_raise_errors(call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, [axis] = new_figure()
    with pytest.raises(error, match=message):
        call(axis)
    assert not any(tmp_path.iterdir())


def test_equal_weights_share_a_colour_and_missing_weights_are_white():
    _, [axis] = new_figure()
    labels = np.array([[1, 2, 0], [0, 1, 2]])
    matrix_picture(axis, labels, "convolution", grid=(1, 2))
    pixels = np.asarray(axis.get_images()[0].get_array())
    np.testing.assert_equal(pixels[labels == 0], 1)
    np.testing.assert_equal(pixels[0, :2], pixels[1, 1:])
    assert axis.get_title() == "convolution\n2 weights"


@pytest.mark.parametrize("count", [1, 9, 36, 5000])
def test_neighbouring_weights_differ_in_colour_and_none_is_white(count):
    colours = _colours(count)
    assert colours.shape == (count + 1, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert np.linalg.norm(colours[1:-1] - colours[2:], axis=1).min(initial=1) > 0.15
    assert np.linalg.norm(colours[0] - colours[1:], axis=1).min() > 0.25
    np.testing.assert_array_equal(colours[:10], _colours(9)[: count + 1])


def test_the_nine_weights_of_a_small_kernel_all_differ_in_colour():
    colours = _colours(9)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + np.eye(10)
    assert distance.min() > 0.2


@pytest.mark.parametrize("labels", [np.ones((2, 2)), np.ones(3, int), -np.ones((2, 2), int), np.ones((0, 2), int)])
def test_matrix_picture_requires_a_matrix_of_weight_numbers(labels):
    _, [axis] = new_figure()
    with pytest.raises(ValueError, match="needs a matrix of integers of at least 0"):
        matrix_picture(axis, labels)


def test_points_draw_groups_by_category_on_a_logarithmic_axis():
    figure, [axis] = new_figure()
    rows = [
        {"shape": shape, "line": line, "ms": ms} for shape, line, ms in (("a", "x", 1.0), ("b", "x", 100.0), ("a", "y", None))
    ]
    dot_plot(axis, rows, "shape", "ms", "line", x_label="shape", y_label="ms", baselines={"one": 1.0})
    assert axis.get_yscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]
    [drawn, empty, _] = axis.lines
    assert list(drawn.get_ydata()) == [1.0, 100.0]
    np.testing.assert_array_equal(np.round(drawn.get_xdata()), [0, 1])
    assert len(empty.get_ydata()) == 0
    with pytest.raises(ValueError, match=r"no row has \['height'\]"):
        dot_plot(axis, rows, "shape", "height", "line", x_label="shape", y_label="ms")


@pytest.mark.parametrize("bottom", [None, 0.01])
def test_points_below_a_logarithmic_axis_are_hollow_on_its_bottom_and_intervals_end_there(bottom, tmp_path):
    """A network that makes no error with any seed has the error 0 [0, 0]."""
    figure, [axis] = new_figure()
    means = (0.0, 0.004, 0.5)
    rows = [{"rung": "conv", "size": x, "error": y, "error_low": 0.0, "error_high": 1.2 * y} for x, y in enumerate(means, 1)]
    curves(axis, rows, "size", "error", x_label="", y_label="", log_y=True, bottom=bottom, baselines={"chance": 0.9})
    save_figure(figure, tmp_path / "figure.png")
    lowest = bottom or 0.002
    below = [mean < lowest for mean in means]
    assert axis.get_yscale() == "log"
    assert axis.get_ylim()[0] == pytest.approx(lowest)
    [hollow] = [line for line in axis.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert len(hollow.get_ydata()) == sum(below)
    assert {*hollow.get_ydata()} == {lowest}
    assert hollow.get_color() == RUNG_STYLE["conv"].colour
    [bars] = axis.collections
    assert min(bar[:, 1].min() for bar in bars.get_segments()) == pytest.approx(lowest)
    assert "below the axis" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_logarithmic_axis_without_points_below_it_has_no_hollow_markers():
    figure, [axis] = new_figure()
    rows = [{"rung": "conv", "size": x, "error": x / 10} for x in (1, 2)]
    curves(axis, rows, "size", "error", x_label="", y_label="", log_y=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["convolution"]


def test_category_without_height_is_hollow_on_the_bottom_of_its_axis():
    figure, [axis] = new_figure()
    dot_plot(
        axis,
        [{"rung": "conv", "shape": s, "mib": m} for s, m in (("a", 0), ("b", 4.0))],
        "shape",
        "mib",
        x_label="",
        y_label="",
    )
    filled, hollow, _ = axis.lines
    assert (list(filled.get_ydata()), list(hollow.get_ydata())) == ([4.0], [2.0])
    assert axis.get_ylim()[0] == 2.0


def test_comparison_draws_rows_from_the_top_with_intervals_references_and_baselines():
    figure, [axis] = new_figure()
    rows = [
        {"net": "a", "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "book": 0.85},
        {"net": "b", "accuracy": 0.7, "accuracy_low": math.nan, "accuracy_high": math.nan},
        {"net": "c", "accuracy": None, "book": 0.6, "thesis": None},
    ]
    options = {"label": "here", "x_label": "accuracy", "x_format": ".0%"}
    references, baselines = {"printed": "book", "blank": "thesis"}, {"chance": 0.5, "linear": Interval(0.62, 0.6, 0.65)}
    comparison(axis, rows, "net", "accuracy", **options, references=references, baselines=baselines)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert axis.yaxis_inverted()
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
    assert drawn["here"] == ([0.9, 0.7], [0, 1])
    assert drawn["printed"] == ([0.85, 0.6], [0, 2])
    assert (drawn["chance"][0], drawn["linear"][0]) == ([0.5, 0.5], [0.62, 0.62])
    [band] = axis.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((0.6, 0.05))
    assert ([0.8, 0.95], [0, 0]) in drawn.values()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["here", "printed", "chance", "linear"]
    with pytest.raises(ValueError, match=r"no row has \['paper'\]"):
        comparison(axis, rows, "net", "accuracy", **options, references={"printed": "paper"})


def test_comparison_draws_rows_in_the_colours_of_their_styles_and_references_with_intervals_below_them():
    figure, [axis] = new_figure()
    rows = [
        {"net": "convolution", "kept": 0.9, "new": 0.5, "new_low": 0.4, "new_high": 0.6},
        {"net": "dense", "kept": 0.8, "new": 0.3, "new_low": 0.1, "new_high": 0.4},
    ]
    styles = {RUNG_STYLE[rung].label: RUNG_STYLE[rung] for rung in ("conv", "dense")}
    comparison(axis, rows, "net", "kept", label="kept", x_label="", references={"new": "new"}, styles=styles)
    colours = {RUNG_STYLE["conv"].colour: 0, RUNG_STYLE["dense"].colour: 1}
    drawn = {(line.get_color(), tuple(line.get_xdata()), *line.get_ydata()) for line in axis.lines if len(line.get_xdata())}
    [below] = {y for colour, x, *heights in drawn for y in heights if len(x) == 2 and colour == RUNG_STYLE["conv"].colour}
    assert 0 < below < 0.3
    for (colour, height), row in zip(colours.items(), rows, strict=True):
        assert (colour, (row["kept"],), height) in drawn
        assert (colour, (row["new"],), height + below) in drawn
        assert (colour, (row["new_low"], row["new_high"]), height + below, height + below) in drawn
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kept", "new"]


def test_labels_of_baselines_stand_at_their_lines_instead_of_in_the_legend():
    rows = [{"rung": "conv", "size": size, "accuracy": 0.9} for size in (1, 2)]
    for end in ("left", "right"):
        figure, [axis] = new_figure()
        baselines = {"chance": 0.1, "linear": Interval(0.5, 0.4, 0.6)}
        curves(axis, rows, "size", "accuracy", x_label="", y_label="", baselines=baselines, baseline_labels=end)
        labels = {text.get_text(): text for text in axis.texts}
        assert [labels[name].xy[1] for name in ("chance", "linear")] == [0.1, 0.5]
        assert {text.get_ha() for text in axis.texts} == {end}
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["convolution"]


# Filters


def test_filters_are_drawn_side_by_side_each_on_its_own_scale():
    figure, [axis] = new_figure()
    images = np.arange(30.0).reshape(3, 5, 2) - 12
    filter_grid(axis, images, "units", columns=2, label="pixels")
    [sheet] = [image.get_array() for image in axis.get_images()]
    assert sheet.shape == (2 * 6 + 1, 2 * 3 + 1)
    slices = (slice(1, 6), slice(1, 3)), (slice(1, 6), slice(4, 6)), (slice(7, 12), slice(1, 3))
    for region, image in zip(slices, images, strict=True):
        np.testing.assert_allclose(sheet[region], image / np.abs(image).max())
    assert sheet.mask[6].all()
    assert sheet.mask[7:12, 4:6].all()
    white, blue, orange = (axis.get_images()[0].cmap(value)[:3] for value in (0.5, 1.0, 0.0))
    np.testing.assert_allclose(white, 1, atol=0.01)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]


def test_filters_draw_a_zero_unit_in_white_and_raise_an_error_for_invalid_shapes():
    figure, [axis] = new_figure()
    filter_grid(axis, np.zeros((1, 3, 5)))
    assert np.ma.count(axis.get_images()[0].get_array() == 0) == 15
    with pytest.raises(ValueError, match=r"images has shape \(3, 5\)"):
        filter_grid(axis, np.ones((3, 5)))


# Training


def history(rate=0.5, rows=3, **columns):
    row = lambda n: {"loss": rate / n, "test_loss": 2 * rate / n, "test_accuracy": 1 - rate / n} | columns  # noqa: E731
    return [{"step": 10 * n, "epoch": n / 4, "seconds": float(n)} | row(n) for n in range(1, rows + 1)]


def drawn(axis):
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def test_training_curves_show_loss_and_accuracy_on_every_split():
    figure, axes = new_figure(2)
    training_curves(axes, history(validation_loss=0.4), baselines={"largest class": 0.1})
    loss, accuracy = map(drawn, axes)
    assert [*loss] == ["training", "validation", "test"]
    assert [*accuracy] == ["test", "largest class"]
    np.testing.assert_allclose(loss["training"].get_xydata(), [[10, 0.5], [20, 0.25], [30, 0.5 / 3]])
    np.testing.assert_allclose(loss["validation"].get_ydata(), [0.4, 0.4, 0.4])
    np.testing.assert_allclose(loss["test"].get_ydata(), [1.0, 0.5, 1 / 3])
    np.testing.assert_allclose(accuracy["test"].get_xydata(), [[10, 0.5], [20, 0.75], [30, 1 - 0.5 / 3]])
    assert (axes[0].get_xlabel(), axes[0].get_ylabel(), axes[1].get_ylabel()) == ("step", "loss (nats)", "accuracy")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training", "validation", "test", "largest class"]


def test_seeds_are_drawn_as_a_line_at_the_mean_with_an_interval_band():
    _, axes = new_figure(2)
    rates = (0.3, 0.5, 0.9)
    training_curves(axes, [history(rate) for rate in rates], x="epoch", x_label="epochs")
    test = drawn(axes[1])["test"]
    mean, low, high = interval([1 - rate for rate in rates], bounds=(0, 1))
    np.testing.assert_allclose(test.get_xydata()[0], [0.25, mean])
    [band] = axes[1].collections
    assert isinstance(band, PolyCollection)
    heights = [y for x, y in band.get_paths()[0].vertices if x == 0.25]
    np.testing.assert_allclose([min(heights), max(heights)], [low, high])
    assert axes[1].get_ylabel() == "accuracy, 95 % interval"


def test_shorter_histories_count_up_to_their_last_step():
    _, axes = new_figure(2)
    training_curves(axes, [history(0.2, rows=3), history(0.4, rows=2)])
    np.testing.assert_allclose(drawn(axes[0])["training"].get_ydata(), [0.3, 0.15, 0.2 / 3])


def test_runs_are_coloured_by_rung_and_splits_differ_in_line_style():
    _, axes = new_figure(2)
    training_curves(axes, {"dense": history(), "mine": [history(), history(0.1)]})
    lines = drawn(axes[0])
    assert [*lines] == ["dense, training", "dense, test", "mine, training", "mine, test"]
    assert {lines[name].get_color() for name in lines if "dense" in name} == {RUNG_STYLE["dense"].colour}
    assert len({line.get_color() for line in lines.values()}) == 2
    assert [line.get_linestyle() for line in lines.values()] == ["--", "-", "--", "-"]


def test_only_short_histories_are_drawn_with_markers():
    for rows, marked in ((1, True), (300, False)):
        _, axes = new_figure(2)
        training_curves(axes, history(rows=rows), log_loss=True)
        assert (drawn(axes[1])["test"].get_marker() not in ("", "None")) is marked
        assert axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    "histories, message",
    [
        ([], "the history is empty"),
        ({"conv": [history(), []]}, "the history of 'conv' is empty"),
        ([{"loss": 1.0}], "needs 'step' and one of"),
        ([{"step": 1, "rate": 0.1}], r"columns \['step', 'rate'\]; needs 'step' and one of"),
    ],
)
def test_histories_without_drawable_columns_raise_errors(histories, message):
    _, axes = new_figure(2)
    with pytest.raises(ValueError, match=message):
        training_curves(axes, histories)


def test_training_curves_require_two_panels():
    _, axes = new_figure(1)
    with pytest.raises(ValueError, match="axes holds 1 panel"):
        training_curves(axes, history())


# Pairs


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=7, unique=True))
def test_paired_test_matches_scipy(differences):
    np.testing.assert_allclose(p_value(differences), scipy.stats.ttest_1samp(differences, 0.0).pvalue, atol=1e-12)
    assert p_value([0.0, 0.0]) == 1.0


def test_paired_test_requires_two_differences():
    with pytest.raises(ValueError, match="at least two differences, got 1"):
        p_value([0.1])


def test_corrected_tests_have_a_family_wise_error_rate_of_one_in_twenty():
    uniform = np.random.default_rng(0).uniform(size=(4000, 5))
    error_rate = np.mean([min(holm(tests)) < 0.05 for tests in uniform])
    assert 0.04 < error_rate < 0.06
    assert np.mean(uniform.min(1) < 0.05) > 0.2
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_nan_p_values_stay_nan_and_count_as_tests():
    np.testing.assert_allclose(holm([math.nan, 0.01, 0.2]), [math.nan, 0.03, 0.4])


def runs_of(seeds=5, sizes=(64, 256), rungs=("dense", "tiled", "conv")):
    draw = np.random.default_rng(0)
    shape = len(rungs), len(sizes), seeds
    scores, seconds = draw.normal(0.8, 0.05, shape), np.exp(draw.normal(0, 0.3, shape))
    indices = [(rung, size, seed) for rung in range(shape[0]) for size in range(shape[1]) for seed in range(seeds)]
    named = {index: {"rung": rungs[index[0]], "size": sizes[index[1]], "seed": index[2]} for index in indices}
    return [named[index] | {"accuracy": scores[index], "seconds": seconds[index]} for index in indices]


def column(rows, value, **chosen):
    return np.array([row[value] for row in rows if all(row[name] == wanted for name, wanted in chosen.items())])


def lines_of(lines):
    return {(line["rung"], line["size"]): {name: line[name] for name in line if name not in ("rung", "size")} for line in lines}


def test_paired_difference_has_the_interval_and_test_of_differences_by_seed():
    rows = runs_of()
    lines = paired_differences(rows, ["rung", "size"], {"rung": "conv"}, "accuracy")
    assert [(line["rung"], line["size"]) for line in lines] == [("dense", 64), ("dense", 256), ("tiled", 64), ("tiled", 256)]
    for line in lines:
        x, y = (column(rows, "accuracy", rung=rung, size=line["size"]) for rung in (line["rung"], "conv"))
        ends = tuple(line[f"accuracy_difference{end}"] for end in ("", "_low", "_high"))
        np.testing.assert_allclose(ends, interval(x - y))
        np.testing.assert_allclose(line["accuracy_p"], scipy.stats.ttest_rel(x, y).pvalue)
        assert line["pairs"] == 5


def test_paired_ratio_is_the_exponential_of_the_difference_of_logarithms():
    rows = runs_of()
    logs = [row | {"seconds": math.log(row["seconds"])} for row in rows]
    ratios, differences = (
        paired_differences(runs, ["rung", "size"], {"rung": "conv"}, "seconds", ratio=runs is rows, level=0.9)
        for runs in (rows, logs)
    )
    for ratio, difference in zip(ratios, differences, strict=True):
        assert ratio["seconds_p_holm"] == pytest.approx(difference["seconds_p_holm"])
        for end in ("", "_low", "_high"):
            assert ratio[f"seconds_ratio{end}"] == pytest.approx(math.exp(difference[f"seconds_difference{end}"]))


@pytest.mark.parametrize("ratio", [False, True])
def test_common_effects_of_a_seed_cancel_and_row_order_does_not_matter(ratio):
    rows = runs_of()
    change = {seed: 0.1 + 0.7 * seed for seed in range(5)}
    changed = [
        row | {"accuracy": row["accuracy"] * change[row["seed"]] if ratio else row["accuracy"] + change[row["seed"]]}
        for row in np.random.default_rng(1).permutation(np.array(rows))
    ]
    one, two = (
        lines_of(paired_differences(runs, ["rung", "size"], {"rung": "conv"}, "accuracy", ratio=ratio))
        for runs in (rows, changed)
    )
    assert len(one) == 4
    for key, line in one.items():
        assert line == pytest.approx(two[key])


def test_exchanging_a_group_and_its_reference_negates_the_difference():
    rows = runs_of(rungs=("dense", "conv"), sizes=(64,))
    [one], [two] = (paired_differences(rows, "rung", {"rung": rung}, "accuracy") for rung in ("conv", "dense"))
    names = [f"accuracy_difference{end}" for end in ("", "_low", "_high")]
    assert [one[name] for name in names] == pytest.approx([-two[name] for name in (names[0], *names[:0:-1])])
    assert one["accuracy_p"] == pytest.approx(two["accuracy_p"])


def test_p_values_are_corrected_for_all_groups_and_values_of_a_call():
    lines = paired_differences(runs_of(), ["rung", "size"], {"rung": "conv"}, ["accuracy", "seconds"])
    tests = [(line[f"{name}_p"], line[f"{name}_p_holm"]) for line in lines for name in ("accuracy", "seconds")]
    assert [corrected for _, corrected in tests] == holm([alone for alone, _ in tests])
    assert sum(corrected > alone for alone, corrected in tests) > 4


def test_single_pair_has_only_a_difference_and_missing_values_are_none():
    rows = [{"rung": rung, "seed": 3, "accuracy": score, "rank": None} for rung, score in (("conv", 0.9), ("dense", 0.7))]
    [line] = paired_differences(rows, "rung", {"rung": "conv"}, ["accuracy", "rank"])
    assert line["accuracy_difference"] == pytest.approx(-0.2)
    assert all(math.isnan(line[f"accuracy_{name}"]) for name in ("difference_low", "difference_high", "p", "p_holm"))
    assert line["rank_difference"] is line["rank_p"] is line["rank_p_holm"] is None


def test_difference_with_a_diverged_run_is_nan():
    rows = [row | {"accuracy": math.nan if row["rung"] == "tiled" and row["seed"] == 1 else 0.5} for row in runs_of()]
    for ratio in (False, True):
        lines = paired_differences(rows, ["rung", "size"], {"rung": "conv"}, "accuracy", ratio=ratio)
        assert [math.isnan(line["accuracy_p_holm"]) for line in lines] == [False, False, True, True]


def test_incomplete_or_invalid_pairs_raise_errors():
    rows, call = runs_of(), {"by": ["rung", "size"], "reference": {"rung": "conv"}, "values": "accuracy"}
    with pytest.raises(
        ValueError, match=r"\('dense', 64\) and \('conv', 64\) are not paired; .* \['seed'\] \[\(3,\), \(4,\)\]"
    ):
        paired_differences([row for row in rows if (row["rung"], row["size"]) != ("conv", 64) or row["seed"] < 3], **call)
    with pytest.raises(ValueError, match=r"no run is of \('conv', 256\), the reference of \('dense', 256\)"):
        paired_differences([row for row in rows if (row["rung"], row["size"]) != ("conv", 256)], **call)
    with pytest.raises(ValueError, match=r"two runs of \('dense', 64\) have \['seed'\] \(0,\)"):
        paired_differences([*rows, rows[0]], **call)
    with pytest.raises(ValueError, match=r"accuracy is present in 4 of the 5 pairs of \('dense', 64\)"):
        paired_differences([rows[0] | {"accuracy": None}, *rows[1:]], **call)
    with pytest.raises(ValueError, match=r"no row has \['loss'\]"):
        paired_differences(rows, **call | {"values": "loss"})
    with pytest.raises(ValueError, match=r"reference has the names \['rank'\] but needs some of \['rung', 'size'\]"):
        paired_differences(rows, **call | {"reference": {"rank": 1}})
    with pytest.raises(ValueError, match=r"accuracy of \('dense', 64\) is 0 in a pair; a ratio needs values above 0"):
        paired_differences([rows[0] | {"accuracy": 0.0}, rows[1] | {"accuracy": math.nan}, *rows[2:]], **call, ratio=True)


# Maps


def test_heat_map_requires_a_gray_or_colour_image_from_0_to_1():
    _, [axis] = new_figure()
    values = np.eye(3)
    with pytest.raises(ValueError, match="image has 4 channels; needs 1 or 3"):
        heatmap(axis, np.ones((6, 9, 4)), values, label="")
    for wrong in (np.full((6, 9), 255), np.full((6, 9), -0.1)):
        with pytest.raises(ValueError, match=r"image has pixels from .*; needs 0 to 1"):
            heatmap(axis, wrong, values, label="")
    heatmap(axis, np.full((6, 9), 1 + 1e-7), values, label="")
