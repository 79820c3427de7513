"""The house stands: who imports whom, what importing costs, and that the prose runs."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import convlab

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = [  # a room imports from lower floors only; rooms of one floor stand alone but for what is named in NEIGHBOURS
    {"extras", "geometry", "data", "report", "check"},
    {"unfold"},
    {"kernels"},
    {"ops", "convert", "foreign", "rungs", "algebra"},
    {"layers", "linen", "norm"},
    {"calls", "optim"},
    {"models", "train", "measure", "relax", "tasks", "testing"},
]
NEIGHBOURS = {
    ("algebra", "ops"),
    ("check", "geometry"),
    ("data", "extras"),
    ("report", "extras"),
    ("foreign", "convert"),
    ("rungs", "convert"),
    ("rungs", "ops"),
    ("train", "data"),
}
LIBRARIES = {  # who may import what at all
    "flax": {"layers", "linen", "norm", "calls", "optim", "relax", "models", "train", "measure"},
    "optax": {"optim", "train", "relax", "measure"},
    "tensorflow_datasets": {"data"},
    "matplotlib": {"report"},
    "rich": {"data", "report", "train"},
    "grain": {"data"},
    "tyro": set(),
    "tensorboardX": {"train"},
}
LATE = {
    "tensorflow",
    "tensorflow_datasets",
    "matplotlib",
    "rich",
    "sklearn",
    "mnist1d",
    "tyro",
    "scipy.stats",
    "chex",
    "torch",
    "grain",
    "filelock",
    "PIL",
    "tensorboardX",
}


def rooms():
    for path in sorted((ROOT / "convlab").rglob("*.py")):
        parts = path.relative_to(ROOT / "convlab").with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "convlab" else [node.module]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("room, path", list(rooms()), ids=lambda value: getattr(value, "stem", value))
def test_imports_go_down_the_floors(room, path):
    floor = next(number for number, names in enumerate(FLOORS) if room in names)
    for name in imports(path):
        head, *rest = name.split(".")
        assert head != "experiments"
        assert room in LIBRARIES.get(head, {room}), f"{path} imports {name}"
        if head == "convlab" and rest[0] != room:
            below = any(rest[0] in names for names in FLOORS[:floor])
            assert below or (room, rest[0]) in NEIGHBOURS, f"{path} imports {name}"


def test_every_room_has_a_floor_and_no_room_is_named_for_nothing():
    names = {room for room, _ in rooms()}
    assert names == set.union(*FLOORS)
    assert not names & {"utils", "helpers", "common"}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPARED = {"torch", "tensorflow", "keras"}  # which experiments time where they happen to be installed


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", ["convlab", "experiments"])
def test_every_library_that_is_imported_is_declared(folder):
    requirements = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in requirements}
    distributions = importlib.metadata.packages_distributions()
    allowed = {"convlab", "experiments"} | (COMPARED if folder == "experiments" else set())
    for path in (ROOT / folder).rglob("*.py"):
        names = {name.split(".")[0] for name in imports(path)} | set(re.findall(r'\brequire\("(\w+)', path.read_text()))
        for name in names - sys.stdlib_module_names - allowed:
            assert {normal(each) for each in distributions.get(name, [name])} & declared, f"{path} imports {name}"


def test_the_version_is_the_same_wherever_it_stands():
    assert convlab.__version__ == importlib.metadata.version(PROJECT["name"])
    assert f"\nversion: {convlab.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == convlab.__version__


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "convlab" / "py.typed").exists()


def fresh(code):
    """Run code in a new process; return what it prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return run.stdout


def test_importing_convlab_loads_no_optional_library():
    late = fresh(f"import convlab, sys; print([name for name in {sorted(LATE)} if name in sys.modules])")
    baseline = fresh(f"import jax, flax.nnx, optax, sys; print([name for name in {sorted(LATE)} if name in sys.modules])")
    assert set(ast.literal_eval(late)) <= set(ast.literal_eval(baseline))


@pytest.mark.slow
def test_importing_convlab_costs_little_more_than_jax_flax_and_optax():
    clock = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    ratios = []
    for _ in range(3):
        base = float(fresh(clock.format("jax, flax.nnx, optax")))
        ratios.append(float(fresh(clock.format("convlab"))) / base)
    assert min(ratios) < 1.5


def readme(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_the_snippets_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    names = {}
    for snippet in readme("python"):
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["fitted"].history[-1]["test_accuracy"] > 0.5


def test_the_commands_of_the_readme_name_what_exists():
    run, test = readme("bash")
    assert run.startswith("pip install -e '.[experiments]' && python -m experiments.ladder")
    assert test.startswith("pip install -e '.[test]' && python -m pytest")


@pytest.mark.parametrize("document", ["README.md", "experiments/README.md"])
def test_links_and_pictures_lead_somewhere(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target
