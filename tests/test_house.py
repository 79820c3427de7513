"""Test import structure, declared dependencies, import time and the README."""

import ast
import importlib
import importlib.metadata
import inspect
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import convlab

ROOT = pathlib.Path(__file__).parents[1]
LEVELS = [  # packages import only from lower levels; exceptions are in SAME_LEVEL_IMPORTS
    {"choices", "constructors", "extras", "memory", "progress", "signatures"},
    {"display"},
    {"geometry"},
    {"check"},
    {"data"},
    {"unfold"},
    {"kernels"},
    {"ops", "convert", "rungs"},
    {"layers", "linen", "norm"},
    {"calls", "algebra"},
    {"optim"},
    {"report"},
    {"foreign", "models", "train", "measure", "surgery", "tasks", "testing"},
]
SAME_LEVEL_IMPORTS = {
    ("rungs", "convert"),
    ("rungs", "ops"),
    ("train", "data"),
}
LIBRARIES = {  # library -> packages that may import it
    "flax": {"algebra", "layers", "linen", "norm", "calls", "optim", "foreign", "surgery", "models", "train", "measure"},
    "optax": {"optim", "train", "surgery", "measure"},
    "tensorflow_datasets": {"data"},
    "matplotlib": {"report"},
    "rich": {"progress", "report"},
    "grain": {"data"},
    "tyro": set(),
    "tensorboardX": {"train"},
}
OPTIONAL = {  # libraries that importing convlab must not load
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


def packages():
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


@pytest.mark.parametrize("package, path", list(packages()), ids=lambda value: getattr(value, "stem", value))
def test_packages_import_only_from_lower_levels(package, path):
    level = next(number for number, names in enumerate(LEVELS) if package in names)
    for name in imports(path):
        head, *submodules = name.split(".")
        assert head != "experiments"
        assert package in LIBRARIES.get(head, {package}), f"{path} imports {name}"
        if head == "convlab" and submodules[0] != package:
            below = any(submodules[0] in names for names in LEVELS[:level])
            assert below or (package, submodules[0]) in SAME_LEVEL_IMPORTS, f"{path} imports {name}"


def test_every_package_has_a_level_and_a_specific_name():
    names = {package for package, _ in packages()}
    assert names == set.union(*LEVELS)
    assert not names & {"utils", "helpers", "common"}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPARED = {"torch", "tensorflow", "tf_keras"}  # timed by experiments if installed


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", ["convlab", "experiments"])
def test_every_imported_library_is_declared(folder):
    requirements = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    declared = {normalised(re.match(r"[\w.-]+", line)[0]) for line in requirements}
    distributions = importlib.metadata.packages_distributions()
    allowed = {"convlab", "experiments"} | (COMPARED if folder == "experiments" else set())
    for path in (ROOT / folder).rglob("*.py"):
        names = {name.split(".")[0] for name in imports(path)} | set(re.findall(r'\brequire\("(\w+)', path.read_text()))
        for name in names - sys.stdlib_module_names - allowed:
            providers = {normalised(distribution) for distribution in distributions.get(name, [name])}
            assert providers & declared, f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "convlab").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_listed_sorted_and_documented(path):
    source = ast.parse(path.read_text())
    lists_names = any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in source.body)
    imports_names = [node for node in source.body if isinstance(node, ast.ImportFrom)]
    exports = path.name == "__init__.py" and bool(imports_names)
    assert lists_names or not exports
    if not lists_names:
        return
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    assert module.__all__ == sorted(set(module.__all__))
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module.__name__}.{name} has no docstring"
    if exports:
        assert {alias.asname or alias.name for node in imports_names for alias in node.names} == set(module.__all__)


def test_dir_of_convlab_shows_the_public_names_alone():
    assert dir(convlab) == sorted([*convlab.__all__, "__version__"])
    namespace = {}
    exec("from convlab import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(convlab.__all__)


def test_no_function_of_convlab_hides_a_package():
    for name in convlab.__all__:
        if not inspect.ismodule(getattr(convlab, name)):
            assert not (ROOT / "convlab" / name).is_dir()
            assert name == "unfold" or not (ROOT / "convlab" / f"{name}.py").exists()


def test_version_is_the_same_in_all_files():
    assert convlab.__version__ == importlib.metadata.version(PROJECT["name"])
    assert f"\nversion: {convlab.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == convlab.__version__


def test_package_is_marked_as_typed():
    assert (ROOT / "convlab" / "py.typed").exists()


def fresh(code):
    """Run code in a new process and return its output."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return run.stdout


def test_importing_convlab_loads_no_optional_library():
    late = fresh(f"import convlab, sys; print([name for name in {sorted(OPTIONAL)} if name in sys.modules])")
    baseline = fresh(f"import jax, flax.nnx, optax, sys; print([name for name in {sorted(OPTIONAL)} if name in sys.modules])")
    assert set(ast.literal_eval(late)) <= set(ast.literal_eval(baseline))


@pytest.mark.slow
def test_importing_convlab_takes_little_longer_than_jax_flax_and_optax():
    clock = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    ratios = []
    for _ in range(3):
        base = float(fresh(clock.format("jax, flax.nnx, optax")))
        ratios.append(float(fresh(clock.format("convlab"))) / base)
    assert min(ratios) < 1.5


def readme(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_readme_snippets_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    names = {}
    for snippet in readme("python"):
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["fitted"].history[-1]["test_accuracy"] > 0.5


def test_readme_contains_the_run_and_test_commands():
    run, test = readme("bash")
    assert run.startswith("pip install -e '.[experiments]' && python -m experiments.ladder")
    assert test.startswith("pip install -e '.[test]' && python -m pytest")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "experiments/README.md"])
def test_links_and_pictures_exist(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target
