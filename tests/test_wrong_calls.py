"""Wrong calls of all public functions: every outcome is a result or a clear error of this library."""

import contextlib
import inspect
import pathlib
import re
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import valid_calls
import valid_calls_of_networks
import valid_calls_of_training
from flax import nnx
from valid_calls import DENSE, KEY, LOCAL, SPACE, WINDOW, H, V, X, drop, sample

import convlab as cl
import convlab.linen
from convlab import algebra, data, foreign, layers, measure, models, optim, report, rungs, surgery, tasks, testing, train

PACKAGE = str(pathlib.Path(cl.__file__).parent)
SECONDS = 60  # the limit for one call, which includes compilation on a busy machine
FREE = 2**28  # the bytes of free memory that calls see
CALLS = valid_calls.CALLS | valid_calls_of_networks.CALLS | valid_calls_of_training.CALLS
PACKAGES = (cl, algebra, data, foreign, layers, convlab.linen, measure, models, optim)
PACKAGES += (report, rungs, surgery, tasks, testing, train)
ERRORS = (TypeError, ValueError, MemoryError, ImportError)
SYNONYMS = {  # words that name an argument: of a window its fields, of a task the arguments of its sampler
    **dict.fromkeys(("window", "window_first", "pool", "layers", "size", "padding"), {"window", "size", "strides", "padding"}),
    "space": {"space", "window"},
    "to": {"rung"},
    "kernel_dilation": {"dilation"},
    "strides": {"space"},
    "kernel_size": {"size", "window", "layer", "kernel"},
    "feature_group_count": {"groups"},
    "inputs": {"x"},
    **dict.fromkeys(("in_features", "out_features", "rank", "period"), {"x", "h", "layer", "kernel", "channels"}),
    "features": {"layer", "kernel", "channels", "Window"},
    **dict.fromkeys(("image_shape", "classes", "width", "widths"), {"features", "window", "layer", "images", "Window"}),
    "ndim": {"axes"},
    "op": {"x", "v"},
    **dict.fromkeys(("old", "new"), {"model"}),
}


def anything(*arguments, **options):
    return None


def objects():
    array = np.empty(2, object)
    array[:] = [None, {}]
    return array


BAD = {
    "None": None,
    "string": "abc",
    "empty string": "",
    "True": True,
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "10**9": 10**9,
    "10**12": 10**12,
    "10**30": 10**30,
    "nan": float("nan"),
    "inf": float("inf"),
    "empty array": jnp.zeros((0,)),
    "scalar array": jnp.ones(()),
    "vector": jnp.ones(3),
    "seven axes": jnp.ones((2, 1, 2, 1, 2, 1, 2)),
    "integers": jnp.arange(12).reshape(1, 3, 4, 1),
    "complex": jnp.ones((1, 3, 4, 1), complex),
    "objects": objects(),
    "Window(3)": cl.Window(3),
    "Window(10**9)": cl.Window(10**9),
    "wide window": cl.Window((2, 2), padding=((10**9, 10**9), (0, 1))),
    "far window": cl.Window((3, 2), dilation=10**9),
    "window of three axes": cl.Window((3, 2, 2)),
    "huge space": (10**9, 10**9),
    "empty tuple": (),
    "zeros": (0, 0),
    "five": (1, 2, 3, 4, 5),
    "nested": ((1, 2), (3, 4)),
    "list of None": [None],
    "dict": {},
    "function": anything,
    "object": object(),
}


class TimeoutExceeded(BaseException):
    """Raised by the alarm, and caught by nothing else."""


NETWORK = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
OPERATOR = measure.conv_operator(jnp.ones((3, 2, 3)), cl.Window((3,)), (5,))


@contextlib.contextmanager
def limited(seconds):
    def ring(number, frame):
        raise TimeoutExceeded

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again every second, as Python ignores errors in callbacks
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(name, arguments):
    """Call a function, and return the kind of the outcome with the error's text."""
    function, valid, use = CALLS[name]
    try:
        with limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(function(**arguments))
    except TimeoutExceeded:
        return "hang", ""
    except Exception as error:
        return kind_of(error, name, arguments), f"{type(error).__name__}: {error}"
    return "result", ""


def kind_of(error, name, arguments):
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    function, valid, use = CALLS[name]
    if isinstance(error, AssertionError) and name.startswith(("assert_", "check_")):
        return "result"
    if not isinstance(error, ERRORS):
        return type(error).__name__
    if set(arguments) != set(valid) and isinstance(error, TypeError) and re.search("missing|unexpected keyword", str(error)):
        return "signature"
    if not frames[-1].startswith(PACKAGE):
        return "raw"
    named = {*valid, *arguments}.union(*(SYNONYMS.get(argument, ()) for argument in valid), {"n"} if use is sample else ())
    words = set(re.findall(r"\w+", str(error)))
    return "ours" if words & named else "unnamed"


def wrong_calls(name, random, count):
    """Yield `count` calls with one or two wrong arguments, each with a description."""
    _, valid, _ = CALLS[name]
    for _ in range(count):
        arguments, words = dict(valid), []
        for _ in range(random.integers(1, 3)):
            wrong, kind = random.choice([*valid]), random.random()
            if kind < 0.9 or len(valid) < 2:
                bad = random.choice([*BAD])
                arguments[wrong] = BAD[bad]
                words.append(f"{wrong}={bad}")
            elif kind < 0.95:
                names = [*valid]
                index = random.integers(len(names) - 1)
                one, two = names[index], names[index + 1]
                if callable(valid[one]) and callable(valid[two]):
                    continue  # the error of a function with other arguments is its own
                arguments[one], arguments[two] = arguments.get(two), arguments.get(one)
                words.append(f"{one}<->{two}")
            elif kind < 0.975:
                arguments.pop(wrong, None)
                words.append(f"no {wrong}")
            else:
                arguments["unknown"] = 1
                words.append("unknown")
        yield arguments, ", ".join(words)


@pytest.fixture
def little_memory(monkeypatch, tmp_path):
    """Let every call see the same free memory and an empty folder, and JAX keep its frames in tracebacks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convlab.memory._free", lambda: FREE)
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


GOOD = {"result", "ours", "signature"}


def outcomes(random, count, names=tuple(CALLS)):
    """Return the kind, the call and the error of `count` wrong calls."""
    for number in range(count):
        name = names[number % len(names)]
        arguments, words = next(wrong_calls(name, random, 1))
        kind, text = outcome_of(name, arguments)
        yield kind, f"{name}({words}): {text}"
        if number % 2000 == 1999:
            jax.clear_caches()


QUICK = tuple(
    name for name, (_, valid, use) in valid_calls.CALLS.items() if use is drop and "model" not in valid and "old" not in valid
)
QUICK += tuple(name for name in valid_calls_of_training.CALLS if name not in valid_calls_of_training.LONG)


def test_every_public_class_and_function_is_called_wrongly_or_left_out_with_a_reason():
    called = {getattr(function, "__wrapped__", function) for function, _, _ in CALLS.values()}
    called |= {function for function, _, _ in CALLS.values()}
    public = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in PACKAGES
        for name in package.__all__
        if inspect.isroutine(getattr(package, name)) or inspect.isclass(getattr(package, name))
    }
    covered = {*called, *valid_calls_of_networks.NOT_CALLED, *valid_calls_of_training.NOT_CALLED}
    assert [name for name, value in public.items() if value not in covered] == []


def test_valid_calls_return_a_result(little_memory):
    failed = [(name, outcome_of(name, dict(valid))) for name, (_, valid, _) in CALLS.items() if name in QUICK[::12]]
    assert [name for name, (kind, _) in failed if kind != "result"] == []


def test_wrong_calls_are_clear_errors(little_memory):
    assert [call for kind, call in outcomes(np.random.default_rng(1), 400, QUICK) if kind not in GOOD] == []


@pytest.mark.slow
def test_ten_thousand_wrong_calls_are_clear_errors(little_memory):
    valid = [(name, outcome_of(name, dict(valid))) for name, (_, valid, _) in CALLS.items()]
    assert [outcome for outcome in valid if outcome[1][0] != "result"] == []
    assert [call for kind, call in outcomes(np.random.default_rng(0), 10_000) if kind not in GOOD] == []


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: cl.lift_conv_to_local(V, SPACE, WINDOW), r"window must be a convlab.Window such as Window\(3\), got \(5, 4\)"),
        (lambda: cl.lift_conv_to_local(V, WINDOW, WINDOW), "space must be an integer or a sequence of integers, got Window"),
        (lambda: cl.project_local_to_tiled(LOCAL, SPACE, WINDOW, 2), "window must be a convlab.Window"),
        (lambda: cl.lift_conv_to_local(WINDOW, V, SPACE), r"v must be an array of numbers, got Window"),
        (lambda: cl.conv(X, V, groups="2"), "groups must be an integer of at least 1, got '2'"),
        (lambda: cl.conv(X, V, precision="exact"), "precision 'exact' is unknown; needs one of default, high, highest"),
        (lambda: measure.shuffle_inputs(DENSE, 0), r"key must be one random key, such as jax.random.key\(0\), got 0"),
        (lambda: models.MLP((5, 1), 0, rngs=nnx.Rngs(0)), "classes must be at least 1, got 0"),
        (lambda: models.MLP((5, 1), 3, (0,), rngs=nnx.Rngs(0)), "features must be at least 1, got 0"),
        (lambda: cl.Conv(2, 3, (3,), rngs=None), r"rngs must be a flax.nnx.Rngs such as nnx.Rngs\(0\), got None"),
        (lambda: measure.count_weights(None), "model must be a Flax NNX module, got None"),
        (lambda: measure.memory(NETWORK, (5, 2), optimizer="adam"), "optimizer must be an Optax optimizer, got 'adam'"),
        (lambda: measure.matrix_rank(OPERATOR, tolerance=float("nan")), "tolerance must be at least 0, got nan"),
        (lambda: measure.null_space(OPERATOR, tolerance=-1.0), "tolerance must be at least 0, got -1.0"),
        (lambda: measure.activation_rank(H, tolerance=float("nan")), "tolerance must be at least 0, got nan"),
        (lambda: optim.prune({"kernel": jnp.full((2, 2), jnp.nan)}, 0.5), "parameters hold NaN"),
        (
            lambda: cl.transfer_optimizer_state(None, (), NETWORK, NETWORK, (5, 2)),
            "optimizer must be an Optax gradient transformation, got None",
        ),
        (lambda: cl.max_pool(X, "2"), "window must be an integer or a sequence of integers, got '2'"),
    ],
)
def test_arguments_of_the_wrong_type_or_order_are_named(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: cl.Window(3, dilation=10**12), "dilation must be at most 2147483647, got 1000000000000"),
        (lambda: cl.project_local_to_tiled(LOCAL, WINDOW, SPACE, 10**9), "period .* exceeds"),
        (lambda: cl.conv(X, V, cl.Window((3, 2), padding=10**9)), "GB for the output at all positions of window"),
        (lambda: cl.max_pool(X, cl.Window((10**9, 1))), "GB for the pixels that every tap of window reads"),
        (lambda: cl.lift_conv_to_local(V, WINDOW, (10**9, 10**9)), "GB for kernels at all positions of space"),
        (lambda: cl.conv_transpose(H, V, WINDOW, (10**9, 10**9)), "h has .* positions"),
        (lambda: data.random_crop(X, KEY, pad=10**9), "GB for padded images"),
        (lambda: data.random_crop(X, KEY, pad=10**12), "pad must be at most 2147483647"),
        (lambda: data.random_shift(X, KEY, max_shift=10**12), "max_shift must be at most 2147483647"),
        (lambda: cl.project_local_to_low_rank(LOCAL, 10**9), "rank 1000000000 exceeds"),
        (lambda: measure.sample_shifts((10**5, 10**5)), "GB for all shifts of space"),
        (lambda: cl.Tiled(2, 3, (3,), period=10**9, rngs=nnx.Rngs(0)), "GB for the tiled layer"),
        (lambda: tasks.energy_comparison(10**9).sample(KEY, 2), "GB for n images"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_made(little_memory, call, words):
    with limited(2), pytest.raises((ValueError, MemoryError), match=words):
        call()


def test_the_memory_check_can_be_turned_off(monkeypatch):
    monkeypatch.setattr("convlab.memory._free", lambda: 2**23)
    monkeypatch.setattr("convlab.memory.UNCHECKED", 2**10)
    space = (1100, 1000)
    with pytest.raises(MemoryError, match=r"convlab.allow_large_arrays\(\) turns the check off"):
        WINDOW.reads(space)
    with cl.allow_large_arrays():
        assert WINDOW.reads(space).shape == (*space, 3, 2)
