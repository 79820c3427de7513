"""The growth of relax, count and fit: slopes, known amounts of memory, networks and images."""

import jax
import numpy as np
import pytest
from flax import nnx

import convlab as cl
from experiments import scaling_networks as experiment
from experiments.parts import growing, growth

MIB = 2**20
ALLOCATED, FILE = 64, 48  # MiB
PAGE = 4096


def filled(mib):
    """An array of a size in MiB, all of whose pages are touched."""
    return np.ones(int(mib * MIB), np.uint8)


def make(case):
    """Contenders whose call allocates so many MiB, a quarter of which it returns, or reads all pages of a file that it maps."""

    def allocate():
        temporary = filled(3 * case / 4)
        return filled(case / 4), int(temporary[0])

    def read():
        array = np.load(case, mmap_mode="r")
        return array, int(array[::PAGE].sum(dtype=np.int64))

    return growth.keeping({"case": case}, read if isinstance(case, str) else allocate)


@pytest.fixture(scope="module")
def allocations(tmp_path_factory):
    """The rows of a call that allocates and of one that reads a file, each in a process of its own."""
    path = tmp_path_factory.mktemp("pages") / "pages.npy"
    np.save(path, filled(FILE))
    rows = growth.measure(make, [ALLOCATED, str(path)], 2)
    if rows[0]["peak_mib"] is None:
        pytest.skip("the memory of a process cannot be read here")
    return rows


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 2.3])
def test_slope_of_a_power_law_is_its_exponent(power):
    rows = [{"size": size, "ms": 7 * size**power} for size in (3, 7, 29, 101)]
    assert growth.slope(rows, "ms") == pytest.approx(power, abs=1e-12)
    assert growth.slope(rows[:1], "ms") is None


def test_values_below_the_least_do_not_change_a_slope():
    rows = [{"size": size, "mib": mib} for size, mib in ((2, 0.0), (4, 0.3), (8, 1.0))]
    assert growth.slope(rows, "mib", 1.0) == pytest.approx(0, abs=1e-12)
    assert growth.slope(rows, "mib", 0.1) > 1


def test_added_memory_is_that_of_the_arrays_that_a_call_holds_at_once(allocations):
    row, _ = allocations
    assert row["case"] == ALLOCATED
    assert row["peak_mib"] == pytest.approx(ALLOCATED, rel=0.25)
    assert row["first_peak_mib"] == pytest.approx(ALLOCATED, rel=0.25)
    assert row["mapped_mib"] < 1


def test_pages_of_a_file_count_as_mapped_in_every_call(allocations):
    _, row = allocations
    assert row["peak_mib"] == pytest.approx(FILE, rel=0.25)
    assert row["mapped_mib"] == pytest.approx(FILE, rel=0.25)


def test_the_earlier_result_is_dropped_before_memory_is_read():
    events = []

    class Result:
        def __del__(self):
            events.append("drop")

    class Process:
        def forget_peak(self):
            events.append("forget")

        def memory(self, name):
            events.append(name)
            return {growth.RESIDENT: 3.0, growth.PEAK: 10.0, growth.MAPPED: 5.0 + 6.0 * ("call" in events)}[name]

    def call():
        events.append("call")
        return Result()

    contenders = growth.keeping({}, call)
    contenders[0].call()
    assert events == ["call"]  # the result is kept
    events.clear()
    assert growth._call(Process(), *contenders)[1:] == (7, 6)
    assert events == ["drop", "forget", growth.RESIDENT, growth.MAPPED, "call", growth.PEAK, growth.MAPPED]


def test_the_first_call_is_apart_from_the_median_and_quartiles_of_later_ones():
    row = growth._summary((900.0, 90.0, 9.0), (3.0, 1.0, 0.0), (1.0, 5.0, 0.5), (2.0, 2.0, np.nan))
    assert (row["first_ms"], row["first_peak_mib"]) == (900, 90)
    assert (row["ms_low"], row["ms"], row["ms_high"], row["peak_mib"]) == (1.5, 2, 2.5, 2)
    assert row["mapped_mib"] is None


@pytest.mark.parametrize("varied", [growing.WEIGHTS, growing.LAYERS])
def test_size_and_bytes_of_relax_are_those_of_the_relaxed_parameters(varied):
    case = growing.Case(growing.RELAX, varied, 3, 13, "")
    model, shape = growing.network(growing.builder(case, "conv")), (13, 13, 3)
    relaxed = jax.tree.leaves(nnx.state(cl.relax(model, "locally_connected", shape), nnx.Param))
    labels = growing.make(case)[0].labels
    assert labels["result_mib"] * MIB == sum(array.nbytes for array in relaxed)
    counted = growing.network(growing.builder(case, growing.LOCAL))
    total = cl.count(counted, shape).total.weights
    assert sum(array.size for array in relaxed) == total
    layers = [module for _, module in nnx.iter_modules(model) if isinstance(module, (cl.Conv, nnx.Linear))]
    assert labels["size"] == (total if varied == growing.WEIGHTS else len(layers))
    assert growing.make(case._replace(what=growing.COUNT))[0].labels["size"] == labels["size"]


def test_images_on_disk_are_those_in_memory_and_leave_their_file_only_when_indexed(tmp_path):
    growing.write_images(str(tmp_path), 11)
    memory, disk = (growing.read_images(str(tmp_path), 11, on_disk) for on_disk in (False, True))
    assert isinstance(memory.train.images, np.ndarray)
    assert isinstance(disk.train.images, cl.data.StoredImages)
    assert isinstance(disk.test.images, cl.data.StoredImages)
    np.testing.assert_array_equal(np.asarray(disk.train.images), memory.train.images)
    np.testing.assert_array_equal(disk.train.labels, memory.train.labels)
    labels = growing.make(growing.Case(growing.DISK, growing.IMAGES, 11, 5, str(tmp_path)))[0].labels
    assert labels["images_mib"] * MIB == memory.train.images.nbytes
    assert labels["disk_mib"] * MIB == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_slope_of_memory_is_left_out_if_a_call_adds_less_than_a_mebibyte():
    row = {"what": growing.COUNT, "varied": growing.LAYERS, "ms": 1.0, "first_ms": 2.0}
    for largest, known in ((0.9, False), (4.0, True), (None, False)):
        rows = [row | {"size": size, "peak_mib": mib, "mapped_mib": mib} for size, mib in ((1, 1.0), (2, largest))]
        [line] = experiment.table(rows, experiment.SMOKE)
        assert line["memory_slope"] == (pytest.approx(2) if known else None)
        assert line["time_slope"] == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_smoke_run_measures_every_call_at_every_size():
    rows = experiment.run(experiment.SMOKE)
    measured = [(row["varied"], row["what"]) for row in rows]
    networks = [(varied, what) for varied in (growing.WEIGHTS, growing.LAYERS) for what in (growing.RELAX, growing.COUNT)]
    assert measured == networks + [(growing.IMAGES, what) for what in (growing.MEMORY, growing.DISK)]
    for row in rows:
        assert row["size"] > 0
        assert 0 < row["ms_low"] <= row["ms"] <= row["ms_high"]
        assert row["first_ms"] > row["ms"]  # it compiles
        assert row["peak_mib"] is None or row["peak_mib"] >= 0
        assert all(row[name] > 0 for name in experiment.BYTES if name in row)
    assert [sorted({*experiment.BYTES} & {*row}) for row in rows] == [
        *2 * [["result_mib"], []],
        ["images_mib"],
        ["disk_mib", "images_mib"],
    ]
