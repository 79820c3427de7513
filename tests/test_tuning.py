"""Test the search for the thresholds of the rule, and the reading and writing of its files."""

import importlib.util
import itertools
import math
import pathlib
import shutil

import jax
import numpy as np
import pytest
from assertions import close

import convlab as cl
from convlab import report
from convlab.kernels import table, thresholds
from convlab.kernels.thresholds import CPU
from experiments import tuning
from experiments.parts import choices
from experiments.parts.drawn_layers import Layer, contenders, derivative, draw_layers
from experiments.shared.redrawing import read_rows
from experiments.shared.stopwatch import interleave

LOCAL = [Layer("local", n, 9, 3, 1, 3, 1) for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)]
CONV = [Layer("conv", 9, 9, 3, 1, c, d) for c, d in itertools.product((1, 2, 4, 8, 16), (2, 8, 16, 32, 64))]
DEPTHWISE = [Layer("conv", 9, 9, 3, 1, 1, d, 8) for d in (1, 2, 4, 5, 8)]
TRUTH = CPU._replace(local_min_images=16, image_min_channels=2, kernel_min_features=16, depthwise_max_multiplier=2)


def made(machine, truth, factor=3.0, layers=(*LOCAL, *CONV, *DEPTHWISE), wrts="hxv"):
    """Make rows in which the implementation that the rule takes with the thresholds `truth` is `factor` times as fast."""
    rows = []
    for layer, wrt in itertools.product(layers, wrts):
        best = table.choose(layer.form, wrt, layer.size, "cpu", truth)
        names = ["blocks", "windows"] if layer.family == "local" else ["canonical", "windows", *["depthwise"] * (layer.c == 1)]
        for name in names:
            ms = 2.0 if name == best else 2.0 * factor
            cell = {"machine": machine, "platform": "cpu", "wrt": wrt, **layer._asdict()}
            rows.append(cell | {"implementation": name, "ms": ms, "ms_low": ms, "ms_high": ms, "temp_mib": 0.1})
    return rows


def found(*rows, start=CPU):
    return choices.search(choices.cells_of([row for part in rows for row in part]), start)


def test_rule_is_the_same_with_the_thresholds_of_the_cpu_given():
    layers = [*LOCAL, *CONV, *DEPTHWISE, *draw_layers("local", 20, 0), *draw_layers("conv", 20, 0)]
    differ = set()
    for layer, wrt, platform in itertools.product(layers, "hxv", ("cpu", "gpu")):
        default = table.choose(layer.form, wrt, layer.size, platform)
        assert table.choose(layer.form, wrt, layer.size, platform, thresholds=CPU) == default
        if table.choose(layer.form, wrt, layer.size, platform, thresholds=TRUTH) != default:
            differ.add((layer.family, wrt, platform))
    assert {("local", "h", "cpu"), ("conv", "x", "cpu"), ("conv", "v", "cpu")} <= differ
    assert not {"gpu"} & {platform for *_, platform in differ}  # the thresholds are those of the CPU alone


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, value in TRUTH._asdict().items() if value != CPU._asdict()[name]]
)
def test_search_finds_the_threshold_with_which_times_were_made(name, value):
    assert found(made("a", CPU._replace(**{name: value}))) == CPU._replace(**{name: value})


def test_times_on_an_accelerator_move_no_threshold():
    accelerator = [row | {"platform": "gpu"} for row in made("b", CPU, 9.0)]
    lax = [row | {"implementation": "lax", "ms": 1.0} for row in accelerator if row["implementation"] == "canonical"]
    rows, together = choices.judged(made("a", TRUTH) + accelerator + lax)
    assert together == TRUTH
    chosen = {(row["family"], row["chosen"], row["loss"]) for row in rows if row.get("platform") == "gpu"}
    assert {(name, loss) for family, name, loss in chosen if family == "conv"} == {("lax", 1.0)}
    assert {name for family, name, _ in chosen if family == "local"} == {"windows"}
    assert "lax" in {line.get("single") for line in tuning.table(rows, tuning.Config())}
    assert tuning.draw(rows, tuning.Config()) is not None


def test_search_finds_several_thresholds_and_keeps_the_others():
    assert found(made("a", TRUTH)) == TRUTH


def test_machines_that_disagree_get_the_threshold_that_loses_least_however_many_rows_they_have():
    low, high = CPU._replace(local_min_images=2), CPU._replace(local_min_images=16)
    slow, fast = made("a", high, 8.0, LOCAL), made("b", low, 1.5, LOCAL)
    assert found(slow, fast).local_min_images == 16
    assert found(made("a", high, 1.5, LOCAL), made("b", low, 8.0, LOCAL)).local_min_images == 2
    more = [row | {"side": side} for row in fast for side in range(9, 19)]
    assert found(slow, more).local_min_images == 16  # ten times as many rows weigh no more


def test_thresholds_that_change_nothing_or_gain_less_than_the_noise_keep_their_values():
    assert found(made("a", CPU)) == CPU
    odd = CPU._replace(local_min_images=5, depthwise_max_multiplier=3)  # no power of two
    assert found(made("a", odd, layers=[Layer("local", 9, 9, 3, 1, 3, 1)]), start=odd) == odd
    for factor, changes in ((math.exp(choices.NOISE / 2), False), (math.exp(20 * choices.NOISE), True)):
        assert (found(made("a", TRUTH, factor, LOCAL)) != CPU) == changes


def test_of_equal_values_the_nearest_is_taken():
    layers = [Layer("local", n, 9, 3, 1, 3, 1) for n in (5, 40)]  # any value from 8 to 32 separates them
    assert found(made("a", CPU._replace(local_min_images=32), layers=layers)).local_min_images == 8


def test_loss_is_one_for_the_fastest_and_that_of_the_slowest_for_what_was_not_timed():
    cell = choices.Cell("a", "cpu", "h", LOCAL[0], {"blocks": 0.3, "windows": 0.7})
    assert cell.loss("blocks") == 1
    assert cell.loss("windows") == cell.loss("depthwise") == pytest.approx(7 / 3)


def test_rows_and_table_show_the_losses_of_today_and_of_the_best_thresholds():
    rows, together = choices.judged(made("a", TRUTH, 3.0) + made("b", CPU, 2.0))
    timed = [row for row in rows if "implementation" in row]
    for row in timed:
        chosen = table.choose(Layer(*(row[name] for name in Layer._fields)).form, row["wrt"], sizes(row), "cpu")
        assert row["chosen"] == chosen
    assert {row["loss"] for row in timed if row["machine"] == "b"} == {row["alone_loss"] for row in timed} == {1.0}
    assert {row["loss"] for row in timed if row["machine"] == "a"} == {1.0, 3.0}
    assert {row["tuned_loss"] for row in timed if row["machine"] == "a"} == {
        1.0
    }  # which loses most, so its thresholds are taken
    assert together == TRUTH
    lines = tuning.table(rows, tuning.Config())
    local = next(line for line in lines if (line.get("machine"), line.get("family")) == ("a", "locally connected"))
    wrong = sum(CPU.local_min_images <= layer.n < 16 for layer in LOCAL)
    assert local["shapes"] == len(LOCAL)
    assert local["fastest"] == pytest.approx(1 - wrong / len(LOCAL))
    assert local["loss"] == pytest.approx(3 ** (wrong / len(LOCAL)))
    assert (local["worst"], local["tuned_loss"]) == (3, 1)
    blocks = sum(layer.n >= 16 for layer in LOCAL)
    assert local["single"] == "windows"
    assert local["single_loss"] == pytest.approx(3 ** (blocks / len(LOCAL)))
    values = {line["threshold"]: line for line in lines if "threshold" in line}
    assert values["local_min_images"] == {
        "threshold": "local_min_images",
        "today": CPU.local_min_images,
        "best": 16,
        "best, a": 16,
        "best, b": CPU.local_min_images,
    }


def sizes(row):
    return {"s": row["groups"], **{letter: row[letter] for letter in "ncd"}}


def load(path):
    """Import a module from a file."""
    spec = importlib.util.spec_from_file_location("written_thresholds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_written_thresholds_replace_the_values_and_nothing_else(tmp_path):
    path = pathlib.Path(shutil.copy(thresholds.__file__, tmp_path))
    before = path.read_text()
    choices.write(CPU, path)
    assert path.read_text() == before
    values = TRUTH._replace(local_images_per_feature=0.0625, forward_max_entries=2**21, kernel_min_products=3000)
    choices.write(values, path)
    written = load(path).CPU
    assert written._asdict() == values._asdict()
    pairs = list(zip(before.splitlines(), path.read_text().splitlines(), strict=True))
    changed = {old.split("=")[0].strip(): new.split("=")[1] for old, new in pairs if old != new}
    assert changed == {
        name: {"forward_max_entries": "2**21,"}.get(name, f"{value},")
        for name, value in values._asdict().items()
        if value != CPU._asdict()[name]
    }
    path.write_text(before.replace(f"    depthwise_max_multiplier={CPU.depthwise_max_multiplier},\n", ""))
    with pytest.raises(ValueError, match="path must set depthwise_max_multiplier on one line, but .* has 0"):
        choices.write(CPU, path)


def saved(folder, rows):
    """Write rows as the report of an experiment."""
    return str(report.save_rows(folder.name, rows, {}, root=folder.parent))


def test_reports_of_other_machines_are_joined(tmp_path):
    rows, _ = choices.judged(made("b", TRUTH))
    config = tuning.Config(layers=0, others=(saved(tmp_path / "b", rows), saved(tmp_path / "c", made("c", CPU))))
    joined = tuning.run(config)
    assert {row["machine"] for row in joined} == {"all", "b", "c"}
    assert choices.cells_of([row for row in joined if "implementation" in row]) == choices.cells_of(
        made("b", TRUTH) + made("c", CPU)
    )


@pytest.mark.parametrize(
    "rows, machine, message",
    [
        (None, None, "others must be folders of reports, but .*b' has no table.csv with rows"),
        (lambda: [{"name": "conv", "ms": 1.0}], None, r"others must be reports of this experiment, but .* lacks .*'platform'"),
        (
            lambda: [{name: row[name] for name in row if name != "ms_low"} for row in made("b", CPU)],
            None,
            r"lacks the columns \['ms_low'\]",
        ),
        (lambda: made("b", CPU), "b", "others must be reports of different machines, but .* repeats 'b'"),
    ],
)
def test_wrong_reports_of_other_machines_raise_an_error(rows, machine, message, tmp_path):
    folder = tmp_path / "b"
    if rows:
        saved(folder, rows())
    with pytest.raises(ValueError, match=message):
        tuning.run(tuning.Config(layers=1, machine=machine, others=(str(folder),)))


def test_the_same_machine_twice_and_no_rows_at_all_raise_errors(tmp_path):
    folder = saved(tmp_path / "b", made("b", CPU))
    with pytest.raises(ValueError, match="different machines"):
        tuning.run(tuning.Config(layers=0, others=(folder, folder)))
    with pytest.raises(ValueError, match="layers must be above 0"):
        tuning.run(tuning.Config(layers=0))


def test_report_is_named_after_the_machine():
    assert tuning.Config().name == "tuning"
    assert tuning.Config(machine="2 cores, AVX-512").name == "tuning_2_cores_avx_512"
    assert tuning.Config(machine="2 cores, AVX-512").label == "2 cores, AVX-512"


def test_times_and_thresholds_are_read_back_from_the_report(tmp_path):
    rows, _ = choices.judged(made("a", TRUTH) + made("b", CPU))
    read = read_rows(saved(tmp_path / "a", rows))
    assert tuning.table(read, tuning.Config()) == tuning.table(rows, tuning.Config())


@pytest.mark.parametrize(
    "layer", [Layer("local", 5, 6, 3, 2, 2, 3), Layer("conv", 5, 6, 3, 2, 2, 3), Layer("conv", 5, 6, 3, 1, 1, 2, 4)]
)
def test_timed_derivatives_are_those_of_the_layer_and_use_the_implementation(layer):
    random = np.random.default_rng(0)
    x, v, g = (random.standard_normal(layer.shapes[name], np.float32) for name in "xvh")
    op = cl.locally_connected if layer.family == "local" else cl.conv
    h, pull = jax.vjp(lambda x, v: op(x, v, layer.window, layer.groups), x, v)
    by_x, by_v = pull(g)
    programs = {}
    for wrt, operands, wanted in (("h", (x, v), h), ("x", (v, g), by_x), ("v", (x, g), by_v)):
        for name in ("blocks", "windows") if layer.family == "local" else ("canonical", "windows"):
            function = derivative(layer, wrt, name)
            close(function(*operands), wanted, 1e-4)
            programs[wrt, name] = str(jax.make_jaxpr(jax.jit(function))(*operands))
            assert f"implementation='{name}'" in programs[wrt, name]


def test_contenders_leave_out_what_needs_too_much_memory_and_what_does_not_apply(monkeypatch):
    def names(layer, wrt, windows_mib):
        return {contender.labels["implementation"] for contender in contenders(layer, wrt, windows_mib)}

    layer = Layer("conv", 8, 16, 3, 1, 4, 2)
    mib = 4 * layer.gathered / 2**20
    assert mib == 4 * 8 * 256 * 9 * 4 / 2**20
    assert names(layer, "h", mib) == {"canonical", "windows"}
    assert names(layer, "h", 0.99 * mib) == names(layer, "x", 0.99 * mib) == {"canonical"}
    assert names(layer, "v", 0.01 * mib) == {"canonical", "windows"}
    assert names(Layer("conv", 2, 8, 3, 1, 1, 2, 4), "h", 1) == {"canonical", "windows", "depthwise"}
    assert names(Layer("local", 2, 8, 3, 1, 1, 2), "h", 1) == {"blocks", "windows"}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert names(layer, "h", mib) == {"canonical", "windows", "lax"}


def test_drawn_layers_fit_and_leave_the_rule_a_choice():
    for family, depthwise in (("local", False), ("conv", False), ("conv", True)):
        layers = list(draw_layers(family, 40, 3, depthwise))
        assert len(set(layers)) == 40
        for layer in layers:
            assert layer.kernel <= layer.side
            assert layer.gathered <= 2**25
            assert (layer.groups > 1) == depthwise
            assert layer.c == 1 or not depthwise
            assert table.choose(layer.form, "h", layer.size, "cpu") != "toeplitz"
        assert len({layer.groups for layer in layers}) > 10 * depthwise


def test_smoke_rows_have_times_of_several_implementations(monkeypatch):
    monkeypatch.setattr(tuning, "layers", lambda config: [Layer("conv", 2, 5, 3, 1, 1, 2, 2)])
    rows = [row for row in tuning.run(tuning.SMOKE) if "implementation" in row]
    assert {(row["wrt"], row["implementation"]) for row in rows} == {
        *itertools.product("hxv", ("canonical", "windows", "depthwise"))
    }
    for row in rows:
        same = [other for other in rows if other["wrt"] == row["wrt"]]
        chosen = next(other for other in same if other["implementation"] == row["chosen"])
        assert row["loss"] == chosen["ms"] / min(other["ms"] for other in same)
        assert row["ms_low"] <= row["ms"] <= row["ms_high"]
        assert row["machine"] == tuning.SMOKE.label


def test_thresholds_are_written_if_asked_and_not_otherwise(monkeypatch, tmp_path):
    folder, written = saved(tmp_path / "b", made("b", TRUTH)), []
    monkeypatch.setattr(choices, "write", written.append)
    tuning.run(tuning.Config(layers=0, others=(folder,)))
    assert written == []
    tuning.run(tuning.Config(layers=0, others=(folder,), write=True))
    assert written == [TRUTH]


def test_interleaved_contenders_have_the_columns_of_a_report():
    [row] = interleave(contenders(Layer("local", 2, 5, 3, 1, 1, 2), "h", 1)[:1], 0.0, 1)
    assert {*choices.COLUMNS} - {*choices.CELL} <= {*row}


def test_thresholds_are_not_written_from_a_few_calls(tmp_path):
    with pytest.raises(ValueError, match="least must be at least 5, got 1"):
        tuning.run(tuning.Config(layers=1, least=1, write=True))
