"""Sheets of units: the penalty between neighbours against loops, and maps whose orientations are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from strategies import gaussian

import convlab as cl
from convlab import measure, optim, report

pytestmark = pytest.mark.usefixtures("float64")
GRID = (3, 2)  # the rows and columns of six channels, which are not the default ones


def layer(kind=cl.LocallyConnected, channels=6, size=(3, 2), **options):
    where = {"space": (4, 3), "param_dtype": jnp.float64, "use_bias": False} | options
    return nnx.eval_shape(lambda: kind(2, channels, size, **where, rngs=nnx.Rngs(0)))


@functools.cache
def penalty(distance="cosine", circular=True, padding="SAME"):
    return jax.jit(jax.value_and_grad(optim.neighbour_penalty(layer(padding=padding), distance, GRID, circular=circular)))


def pairs_of(i, j, circular):
    """Return the indices (i, j, d) of all pairs of neighbouring units, by loops over the sheet."""
    rows, columns, pairs = i * GRID[0], j * GRID[1], []
    for row, column in np.ndindex(rows, columns):
        for down, right in ((1, 0), (0, 1)):
            if circular or (row + down < rows and column + right < columns):
                units = (row, column), ((row + down) % rows, (column + right) % columns)
                pairs.append([(r // GRID[0], c // GRID[1], r % GRID[0] * GRID[1] + c % GRID[1]) for r, c in units])
    return np.moveaxis(np.array(pairs), -1, 0)


def mean_over_pairs(v, live, distance, circular):
    """Return the penalty from its equation."""
    i, j, d = pairs_of(*v.shape[:2], circular)
    both = jnp.prod(live[i, j], 1, keepdims=True)[..., None]
    one, other = jnp.moveaxis(both * jnp.moveaxis(v, -1, 2)[i, j, d], 1, 0)
    dot = lambda x, y: jnp.sum(x * y, (1, 2, 3))  # noqa: E731
    if distance == "squared":
        return jnp.mean(dot(one - other, one - other))
    return jnp.mean(1 - dot(one, other) / jnp.sqrt(dot(one, one) * dot(other, other)))


@pytest.mark.parametrize("distance, circular", [("cosine", True), ("squared", False)])
def test_the_penalty_and_its_gradient_are_those_of_loops_over_neighbours(distance, circular):
    (v,) = gaussian((4, 3, 3, 2, 2, 6))
    live = np.asarray(cl.Window((3, 2)).live((4, 3)), float)
    value, gradient = penalty(distance, circular)({"kernel": v})
    expected, slope = jax.jit(jax.value_and_grad(lambda v: mean_over_pairs(v, live, distance, circular)))(v)
    close(value, expected)
    close(gradient["kernel"], slope)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_equal_kernels_cost_nothing_whatever_they_hold_in_dead_taps(distance):
    (v, noise) = gaussian((3, 2, 2, 1), (4, 3, 3, 2, 2, 6))
    live = np.asarray(cl.Window((3, 2)).live((4, 3)))[..., None, None]
    value, gradient = penalty(distance)({"kernel": np.where(live, v, noise)})
    assert float(value) < 1e-30
    assert float(jnp.abs(gradient["kernel"]).max()) < 1e-15
    value, gradient = penalty(distance)({"kernel": np.where(live, noise, noise)})
    assert float(value) > 0.5
    assert not np.asarray(gradient["kernel"])[~np.broadcast_to(live, noise.shape)].any()


def test_the_cosine_ignores_the_length_of_every_kernel_and_is_finite_at_zero():
    v, scales = gaussian((4, 3, 3, 2, 2, 6), (4, 3, 1, 1, 1, 6))
    close(penalty()({"kernel": v * np.exp(scales)})[0], penalty()({"kernel": v})[0])
    close(penalty()({"kernel": -v})[0], penalty()({"kernel": v})[0])
    close(penalty("squared")({"kernel": 3 * v})[0], 9 * penalty("squared")({"kernel": v})[0])
    value, gradient = penalty()({"kernel": 0 * v})
    assert float(value) == 1
    assert not np.asarray(gradient["kernel"]).any()


def test_a_circular_sheet_can_be_turned_and_another_cannot():
    (v,) = gaussian((4, 3, 3, 2, 2, 6))
    turned = np.roll(v, 1, 0)
    for circular in (True, False):
        one, other = (float(penalty("squared", circular, "CIRCULAR")({"kernel": kernels})[0]) for kernels in (v, turned))
        assert (abs(one - other) < 1e-12) is circular


def test_descent_on_the_penalty_makes_kernels_alike():
    (v,) = gaussian((4, 3, 3, 2, 2, 6))
    values = []
    for _ in range(4):
        value, gradient = penalty()({"kernel": v})
        v = v - 10 * np.asarray(gradient["kernel"])
        values.append(float(value))
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize(
    "kind, tile",
    [
        (cl.LowRank, (4, 3)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((cl.Conv, (1, 1)), (nnx.Conv, (1, 1)), (cl.Tiled, (2, 2)))),
    ],
)
def test_every_rung_with_kernels_in_windows_has_a_sheet(kind, tile):
    options = {cl.Tiled: {"period": 2}, cl.LowRank: {"rank": 2}}.get(kind, {}) | ({} if kind is nnx.Conv else {"space": (4, 3)})
    model = nnx.eval_shape(lambda: kind(2, 6, (3, 2), **options, rngs=nnx.Rngs(0)))
    names = ("basis", "weights") if kind is cl.LowRank else ("kernel",)
    tree = dict(zip(names, gaussian(*(getattr(model, name).shape for name in names)), strict=True))
    v = np.einsum("ijr,rabcd->ijabcd", tree["weights"], tree["basis"]) if kind is cl.LowRank else tree["kernel"]
    live = np.asarray(cl.Window((3, 2)).live((4, 3)), float) if kind is cl.LowRank else np.ones((*tile, 3, 2))
    got = jax.jit(optim.neighbour_penalty(model, "squared", GRID, circular=True))(tree)
    close(got, mean_over_pairs(jnp.asarray(v).reshape(*tile, 3, 2, 2, 6), live, "squared", circular=True))


def test_layers_are_chosen_by_path_and_others_are_named():
    build = lambda: nnx.Sequential(  # noqa: E731
        cl.LocallyConnected(1, 4, (3, 3), space=(5, 4), rngs=nnx.Rngs(0)),
        nnx.relu,
        cl.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0)),
        cl.Conv(6, 6, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0)),
        cl.Dense(6, 2, (3, 3), space=(5, 4), rngs=nnx.Rngs(0)),
        cl.ConvTranspose(2, 3, (3, 3), rngs=nnx.Rngs(0)),
        nnx.Linear(3, 2, rngs=nnx.Rngs(0)),
    )
    model = nnx.eval_shape(build)
    shapes = {0: (5, 4, 3, 3, 1, 4), 2: (3, 3, 4, 6), 3: (3, 3, 3, 6), 4: (5, 4, 5, 4, 6, 2), 5: (3, 3, 2, 3), 6: (3, 2)}
    arrays = gaussian(*shapes.values())
    tree = {"layers": {number: {"kernel": array} for number, array in zip(shapes, arrays, strict=True)}}

    def value(grids):
        return float(jax.jit(optim.neighbour_penalty(model, grids=grids))(tree))

    reasons = "layers/3, which has 2 groups.*layers/4, which is dense.*layers/5, which is transposed"
    with pytest.warns(UserWarning, match=f"neighbour_penalty leaves alone {reasons}"):
        everything = optim.neighbour_penalty(model)
    parts = [value({"layers/0": None}), value({"layers/2": (2, 3)})]
    close(float(jax.jit(everything)(tree)), sum(parts))
    for grids, words in (
        ({"layers/1": None}, "grids has no layer of the model: 'layers/1'; needs layers/0, layers/2"),
        ({"layers/3": None}, "model has no layer whose units lie on a sheet; left alone: layers/3, which has 2 groups"),
        ({"layers/0": (2, 3)}, r"grids must be the rows and columns of 4 channels, got \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=words):
            optim.neighbour_penalty(model, grids=grids)
    with pytest.raises(ValueError, match="distance 'angle' is unknown; needs one of cosine, squared"):
        optim.neighbour_penalty(model, "angle")
    with pytest.raises(ValueError, match="left alone: .*, which has a single unit"):
        optim.neighbour_penalty(nnx.eval_shape(lambda: cl.Conv(2, 1, (3, 3), rngs=nnx.Rngs(0))))


# --- maps ------------------------------------------------------------------------------------------------------------

roughness, pinwheels = compiled(measure.map_roughness), compiled(measure.pinwheels)


def gabors(angles, frequency=0.15, size=17):
    """Return Gabor kernels (a, b, 1, d) of given orientations, anticlockwise from horizontal bars, and random phases."""
    a, b = np.indices((size, size)) - size // 2
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, len(angles))
    waves = [np.cos(2 * np.pi * frequency * (a * np.cos(t) + b * np.sin(t)) + p) for t, p in zip(angles, phases, strict=True)]
    return np.moveaxis(np.stack(waves) * np.exp(-(a**2 + b**2) / 18), 0, -1)[:, :, None]


def apart(angles, others):
    """Return the angle between orientations."""
    return np.abs((np.asarray(angles) - others + np.pi / 2) % np.pi - np.pi / 2)


def test_the_orientation_of_gabors_is_recovered():
    angles = np.random.default_rng(1).uniform(0, np.pi, 24)
    angles[:3] = 0, np.pi / 4, np.pi / 2
    v = gabors(angles)
    tuning = measure.orientation_tuning(lambda x: jnp.einsum("nabc,abcd->nd", x, v) + 7.0, (17, 17, 1))
    assert np.degrees(apart(tuning.orientation, angles)).max() < 0.5
    assert (np.asarray(tuning.frequency) == 0.125).all()  # nearest to 0.15
    assert (np.asarray(tuning.selectivity) > 0.7).all()


def test_bars_that_rise_to_the_right_are_at_45_degrees_and_a_spot_prefers_none():
    v = np.stack([np.fliplr(np.eye(9)) - 1 / 9, np.eye(9) - 1 / 9, np.outer(*[np.hanning(9)] * 2), np.zeros((9, 9))], -1)
    tuning = measure.orientation_tuning(lambda x: jnp.einsum("nabc,abd->nd", x, v), (9, 9, 3), frequencies=[0.1])
    close(np.degrees(np.asarray(tuning.orientation[:2])), np.array([45.0, 135.0]), 1e-6)
    assert tuning.selectivity[2] < 0.02 < 0.2 < tuning.selectivity[0]
    assert np.isnan(np.asarray(tuning.orientation)[3])
    assert np.isnan(np.asarray(tuning.frequency)[3])
    assert tuning.selectivity[3] == 0


def test_the_response_of_a_linear_unit_is_its_fourier_transform():
    """With one frequency and three orientations, the tuning follows from three numbers."""
    (v,) = gaussian((5, 4))
    tuning = measure.orientation_tuning(
        lambda x: jnp.einsum("nabc,ab->n", x, v), (5, 4, 1), orientations=3, phases=3, frequencies=[0.2]
    )
    a, b = np.indices((5, 4))
    angles = np.pi * np.arange(3) / 3
    sizes = [abs(np.sum(v * np.exp(0.4j * np.pi * (a * np.cos(t) + b * np.sin(t))))) for t in angles]
    vector = np.dot(sizes, np.exp(2j * angles)) / np.sum(sizes)
    close(tuning.selectivity, abs(vector))
    close(tuning.orientation, np.angle(vector) / 2 % np.pi)


def pinwheel(sign=1, rows=6, columns=7, centre=(2.5, 3.5), start=0.3):
    """Return an orientation map that turns once around a point."""
    row, column = np.indices((rows, columns))
    return (sign * np.arctan2(centre[0] - row, column - centre[1]) / 2 + start) % np.pi


@pytest.mark.parametrize("sign", [1, -1])
def test_a_pinwheel_is_counted_once_with_its_sign_at_its_centre(sign):
    found = np.asarray(pinwheels(pinwheel(sign)))
    assert found.shape == (5, 6)
    assert found[2, 3] == sign
    assert np.abs(found).sum() == 1
    ring = pinwheels(pinwheel(2 * sign, centre=(2, 3)))  # a winding number of 1 around a unit
    assert int(ring.sum()) == 2 * sign


def test_pinwheels_of_a_torus_cancel_out_and_are_a_third_of_random_loops():
    (random,) = gaussian((41, 60))
    wild = np.random.default_rng(0).uniform(0, np.pi, (41, 60))
    for units in (random, wild, np.round(4 * wild / np.pi) * np.pi / 4):  # the last has turns of exactly 90 degrees
        found = np.asarray(pinwheels(units, circular=True))
        assert found.shape == (41, 60)
        assert found.sum() == 0
        assert set(np.unique(found)) == {-1, 0, 1}
        assert np.array_equal(found[:-1, :-1], pinwheels(units))
    assert abs(np.abs(np.asarray(pinwheels(wild, circular=True))).mean() - 1 / 3) < 0.03
    wild[3, 5] = np.nan
    found = np.asarray(pinwheels(wild))
    assert not found[2:4, 4:6].any()
    assert np.abs(found).sum() > 500


def test_roughness_is_zero_for_a_constant_map_and_45_degrees_for_a_random_one():
    wild = np.random.default_rng(0).uniform(0, np.pi, (41, 60))
    assert float(roughness(np.full((3, 4), 1.2))) == 0
    close(float(roughness(wild)), np.pi / 4, 0.02)
    edge = np.array([[0.0, np.pi - 0.1], [np.pi, 0.1]])  # orientations around 0, which is pi
    close(roughness(edge), 0.1)  # turns of 0, 0.2, 0.1 and 0.1 along the four sides


@pytest.mark.parametrize("kind", ["orientation", "class", "value"])
@pytest.mark.parametrize("circular", [False, True])
def test_roughness_is_the_mean_over_neighbours(kind, circular):
    units = np.random.default_rng(0).integers(-1, 3, (5, 7))
    if kind != "class":
        units = np.where(units < 0, np.nan, units + 0.1)
    values = []
    for row, column in np.ndindex(units.shape):
        for down, right in ((1, 0), (0, 1)):
            if circular or (row + down < 5 and column + right < 7):
                one, other = units[row, column], units[(row + down) % 5, (column + right) % 7]
                if one >= 0 and other >= 0:
                    values.append({"orientation": apart(one, other), "class": one != other, "value": abs(one - other)}[kind])
    close(roughness(units, kind, circular=circular), np.mean(values))


def test_a_smooth_map_is_below_the_null_of_shuffled_units():
    column = np.indices((9, 10))[1] * np.pi / 10
    null = measure.shuffled_null(functools.partial(measure.map_roughness, circular=True), column, jax.random.key(0), 100)
    assert null.value < 0.2 < null.low < null.mean < null.high
    close(null.mean, np.pi / 4, 0.1)


@pytest.mark.slow
def test_a_random_map_is_within_the_null_and_shuffling_loses_no_unit():
    wild = np.random.default_rng(0).uniform(0, np.pi, (9, 10))
    null = measure.shuffled_null(measure.map_roughness, wild, jax.random.key(0), 200)
    assert null.low < null.value < null.high
    total = measure.shuffled_null(jnp.sum, wild, jax.random.key(0), 20)
    assert total.high - total.low < 1e-12
    first = measure.shuffled_null(lambda kernels: kernels[0, 0, 0, 1], np.ones((9, 10, 3, 2)), jax.random.key(0), 3)
    assert first == (1, 1, 1, 1)


def test_every_unit_is_at_its_place_on_the_sheet():
    i, j, p, q = 2, 3, 2, 2
    units = np.arange(i * j * 5 * p * q).reshape(i, j, 5, p * q)
    sheet = measure.arrange_on_sheet(units)
    assert sheet.shape == (i * p, j * q, 5)
    for row, column in np.ndindex(i * p, j * q):
        assert np.array_equal(sheet[row, column], units[row // p, column // q, :, row % p * q + column % q])
    assert measure.arrange_on_sheet(units, (1, 4)).shape == (2, 12, 5)


def test_the_preferred_class_has_the_largest_d_prime():
    (h,) = gaussian((40, 3, 2))
    labels = np.random.default_rng(0).choice([1, 4, 6], 40)
    h = h + (labels == 4)[:, None, None] * np.array([[2.0, 0.0], [-2.0, 0.5], [1.0, 0.0]])
    h[:, 2, 1] = 3.0  # a dead unit
    preference = measure.class_preference(h, labels)
    best, prefers = np.full((3, 2), -np.inf), np.full((3, 2), -1)
    for y in (1, 4, 6):
        this, other = h[labels == y], h[labels != y]
        with np.errstate(invalid="ignore"):
            index = (this.mean(0) - other.mean(0)) / np.sqrt((this.var(0) + other.var(0)) / 2)
        best, prefers = np.fmax(best, index), np.where(index > best, y, prefers)
    best[2, 1] = 0
    assert np.array_equal(preference.preferred, prefers)
    assert prefers[0, 0] == 4 != prefers[1, 0]
    close(preference.selectivity, best)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_kernels_are_drawn_at_their_places_each_on_its_own_scale():
    v = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 1)) * np.array([1.0, 9.0, 1e-9])[:, None, None, None]
    _, axes = report.new_figure(2)
    report.sheet(axes[0], v, "units", label="kernels")
    report.sheet(axes[1], v[:1, :2] * np.ones(3), "colours")
    gray, colours = (axis.get_images()[0].get_array() for axis in axes)
    assert gray.shape == (2 * 5 + 1, 3 * 6 + 1)
    assert colours.shape == (1 * 5 + 1, 2 * 6 + 1, 3)
    for row, column in np.ndindex(2, 2):
        expected = (1 + v[row, column, ..., 0] / np.abs(v[row, column]).max()) / 2
        close(np.asarray(gray[5 * row + 1 : 5 * row + 5, 6 * column + 1 : 6 * column + 6]), expected)
    close(np.asarray(colours[1:5, 7:12, 2]), np.asarray(gray[1:5, 7:12]))
    assert (gray[1:5, 13:18] == 0.5).all()  # rounding errors are zero
    assert gray.mask[5].all()
    assert gray.mask[:, 6].all()


def test_orientations_have_hues_that_repeat_and_classes_have_names():
    _, axes = report.new_figure(3)
    report.sheet(axes[0], np.array([[0.0, np.pi / 2], [np.nan, np.pi]]), kind="orientation", label="orientation")
    report.sheet(axes[1], np.array([[0, 1, -1]]), kind="class", classes=["cat", "dog"])
    report.sheet(axes[2], np.array([[0.1, 0.2]]), kind="value", bar=False)
    [image] = axes[0].get_images()
    hues = image.to_rgba(image.get_array(), bytes=True)
    close(np.asarray(image.get_array()[:, 1]), np.array([90.0, 0.0]))
    assert np.array_equal(hues[0, 0], hues[1, 1])  # 0 and 180 degrees
    close(*(image.to_rgba(np.array([angle])) for angle in (0.0, 179.9)), 0.15)
    assert len({tuple(colour) for colour in hues.reshape(4, -1)}) == 3
    bars = axes[0].figure.axes[3:]
    assert [bar.get_ylabel() for bar in bars] == ["orientation", ""]
    assert [text.get_text() for text in bars[1].get_yticklabels()] == ["cat", "dog"]
    assert axes[1].get_images()[0].get_array().mask.tolist() == [[False, False, True]]


def draw(*arguments, **options):
    return report.sheet(report.new_figure()[1][0], *arguments, **options)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: measure.arrange_on_sheet(np.ones((2, 4))), r"values has shape \(2, 4\); needs positions"),
        (lambda: measure.arrange_on_sheet(np.ones((2, 2, 4)), (3, 2)), "grid must be the rows and columns of 4 channels"),
        (lambda: measure.orientation_tuning(jnp.sin, (5, 1)), r"image_shape is \(5, 1\); needs two spatial axes"),
        (lambda: measure.orientation_tuning(jnp.sum, (5, 5, 1)), r"apply returns shape \(\) for 513 images"),
        (lambda: measure.orientation_tuning(jnp.sin, (5, 5, 1), phases=2), "phases must be at least 3"),
        (lambda: measure.orientation_tuning(jnp.sin, (5, 5, 1), frequencies=[0.6]), "frequencies must be above 0 and at most"),
        (lambda: measure.class_preference(np.ones((3, 2)), np.ones(3, int)), r"labels holds the classes \[1\]; needs two"),
        (lambda: measure.class_preference(np.ones((3, 2)), np.ones(2, int)), r"labels has shape \(2,\) and responses"),
        (lambda: measure.map_roughness(np.ones((3, 2)), "angle"), "kind 'angle' is unknown; needs one of orientation"),
        (lambda: measure.map_roughness(np.ones(3)), r"units has shape \(3,\); needs a map"),
        (lambda: measure.pinwheels(np.ones((1, 3))), "needs two rows and two columns for a loop"),
        (lambda: draw(np.ones((3, 2)), kind="kernels"), r"units has shape \(3, 2\); needs kernels"),
        (lambda: draw(np.ones((3, 2, 5, 5, 2))), "units has kernels of 2 channels"),
        (lambda: draw(np.ones((3, 2, 5)), kind="class"), "needs a map"),
        (lambda: draw(np.full((3, 2), 0.5), kind="class"), r"units holds numbers up to 0.5; needs integers below"),
        (lambda: draw(np.full((3, 2), 2), kind="class", classes=["a", "b"]), "units holds numbers up to 2.0; needs integers"),
        (lambda: draw(np.ones((3, 2)), kind="hue"), "kind 'hue' is unknown"),
        (lambda: measure.shuffled_null(jnp.sum, np.ones(3), jax.random.key(0)), "units has shape .*rows and columns"),
    ],
)
def test_wrong_sheets_are_clear_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
