"""Recording of the arguments of constructors, so that a saved network can be built again."""

import functools
import inspect
import sys
from collections.abc import Mapping
from typing import Any

FUNCTIONS = ("jax.nn", "jax.numpy")  # the modules whose functions are recorded by name
NOT_NEEDED = ("rngs", "kernel_init", "tied_noise")  # arguments that set initial arrays only, which are loaded
NETWORKS: dict[str, type] = {}  # the classes of `convlab.models` by name


class Construction:
    """The recorded arguments of a constructor.

    All records are equal, so that networks of one structure share their compiled programs however they were made.

    Attributes:
      arguments: The arguments by name.
    """

    def __init__(self, arguments: Mapping[str, Any]):
        self.arguments = dict(arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Construction)

    def __hash__(self) -> int:
        return hash(Construction)

    def __repr__(self) -> str:
        return f"Construction({', '.join(self.arguments)})"


def record_constructor(network: type) -> None:
    """Make a class keep the arguments of its constructor, as the attribute `_construction` of its instances."""
    if network.__module__.startswith("convlab.models"):
        NETWORKS[network.__name__] = network
    if "__init__" not in vars(network):
        return
    constructor: Any = network.__init__
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def recording(self: Any, *arguments: Any, **options: Any) -> None:
        constructor(self, *arguments, **options)
        if type(self).__init__ is recording:  # else a subclass has a constructor of its own
            bound = signature.bind(self, *arguments, **options).arguments
            _, *names = bound
            given = {name: bound[name] for name in names if signature.parameters[name].kind != inspect.Parameter.VAR_KEYWORD}
            extra = {name: value for name, value in options.items() if name not in signature.parameters}
            kept = {name: value for name, value in (given | extra).items() if name not in NOT_NEEDED}
            self._construction = Construction(kept)

    network.__init__ = recording


def describe_network(model: Any) -> dict[str, Any] | None:
    """Describe a network of `convlab.models` by its class and the arguments of its constructor, as JSON values.

    Returns:
      The description, or None if the network is of another class, or an argument has no JSON form.
    """
    construction = getattr(model, "_construction", None)
    if not isinstance(construction, Construction) or NETWORKS.get(type(model).__name__) is not type(model):
        return None
    try:
        return {
            "class": type(model).__name__,
            "arguments": {name: to_json(value) for name, value in construction.arguments.items()},
        }
    except TypeError:
        return None


def build_network(description: Mapping[str, Any], rngs: Any) -> Any:
    """Build the network of a description.

    Raises:
      ValueError: The class or a function is not known to this release.
    """
    if description["class"] not in NETWORKS:
        raise ValueError(f"convlab.models has no {description['class']} in this release")
    arguments = {name: from_json(value) for name, value in description["arguments"].items()}
    return NETWORKS[description["class"]](**arguments, rngs=rngs)


def to_json(value: Any) -> Any:
    """Convert the argument of a constructor to a JSON value. A function of JAX is written by its name.

    Raises:
      TypeError: It has no JSON form.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    if (name := function_name(value, FUNCTIONS)) is not None:
        return {"function": name}
    raise TypeError(f"{value!r} has no JSON form")


def from_json(value: Any) -> Any:
    """Convert a JSON value back to the argument of a constructor. Lists become tuples.

    Raises:
      ValueError: A function is of a module that is not allowed.
    """
    if isinstance(value, list):
        return tuple(map(from_json, value))
    return named_function(value["function"], FUNCTIONS) if isinstance(value, dict) else value


def function_name(value: Any, modules: tuple[str, ...]) -> str | None:
    """Return the dotted name of a public function of one of some modules, or None if it is none of them."""
    name = getattr(value, "__name__", None)
    for module in modules if isinstance(name, str) and callable(value) else ():
        if getattr(sys.modules.get(module), str(name), None) is value:
            return f"{module}.{name}"
    return None


def named_function(name: str, modules: tuple[str, ...]) -> Any:
    """Return the function of a name that `function_name` gave. No module is imported.

    Raises:
      ValueError: The name is none of a function of `modules`.
    """
    module, _, attribute = name.rpartition(".")
    function = getattr(sys.modules.get(module), attribute, None) if module in modules else None
    if function is None or not callable(function):
        raise ValueError(f"function {name!r} is none of {' or '.join(modules)}")
    return function
