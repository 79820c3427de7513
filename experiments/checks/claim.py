"""A claim, what decides it and what came out, as `claims.toml` has it."""

import inspect
import pathlib
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.checks import Finding, composition, counts, keeping, layers, networks, pooling, training

PATH = pathlib.Path(__file__).parents[1] / "claims.toml"
CHECKS: dict[str, Callable[..., Finding]] = {
    f"{module.__name__.rpartition('.')[2]}.{name}": function
    for module in (composition, counts, keeping, layers, networks, pooling, training)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and function.__annotations__.get("return") is Finding
}


class Claim(NamedTuple):
    """What is claimed, where, what decides it, and what came out.

    Attributes:
      quote: The claim, in the words of its source or in substance.
      source: Text and section.
      check: The name of the function in `CHECKS` that decides it.
      verdict: That the check comes to: "true", "false" or "true if ...".
      number: That it turns on.
      unit: What the number is.
      arguments: The situation that the claim is about, where it is not the check's usual one.
      counter: A situation in which the same check comes out the other way, in words, and the arguments that make it. Of
        what is true in some cases only, the check itself tries others.
    """

    quote: str
    source: str
    check: str
    verdict: str
    number: float
    unit: str
    arguments: Mapping[str, Any] = {}
    counter: Mapping[str, Mapping[str, Any]] = {}

    def decide(self) -> Finding:
        """Run the check."""
        return CHECKS[self.check](**self.arguments)

    def countered(self) -> dict[str, Finding]:
        """Run the check in the counter-case."""
        return {case: CHECKS[self.check](**{**self.arguments, **changed}) for case, changed in self.counter.items()}


class Open(NamedTuple):
    """A claim that networks have to be trained for, by an experiment."""

    quote: str
    source: str
    experiment: str


KINDS: dict[str, type[Claim] | type[Open]] = {"claim": Claim, "question": Claim, "open": Open}


def read(path: pathlib.Path = PATH) -> dict[str, list[Any]]:
    """Read and check all claims of a file, by their kind.

    Raises:
      ValueError: A kind, a field, a check or one of its arguments is unknown, or a field is missing.
    """
    tables = tomllib.loads(path.read_text("utf-8"))
    if unknown := [kind for kind in tables if kind not in KINDS]:
        raise ValueError(f"{path.name} has entries {unknown}; needs some of {', '.join(KINDS)}")
    return {kind: [_checked(kind, entry) for entry in tables.get(kind, [])] for kind in KINDS}


def _checked(kind: str, entry: dict[str, Any]) -> Claim | Open:
    """Make a claim of an entry."""
    made, what = KINDS[kind], f"the {kind} {entry.get('quote')!r}"
    if unknown := [field for field in entry if field not in made._fields]:
        raise ValueError(f"{what} has fields {unknown}; needs some of {', '.join(made._fields)}")
    if missing := [field for field in made._fields if field not in entry and field not in made._field_defaults]:
        raise ValueError(f"{what} has no {', '.join(missing)}; needs {'them' if missing[1:] else 'it'}")
    claim = made(**entry)
    if isinstance(claim, Claim):
        if claim.check not in CHECKS:
            raise ValueError(f"{what} has check {claim.check!r}; needs one of {', '.join(CHECKS)}")
        known = inspect.signature(CHECKS[claim.check]).parameters
        for name in (name for given in (claim.arguments, *claim.counter.values()) for name in given):
            if name not in known:
                raise ValueError(f"{what} gives {claim.check} an argument {name!r}; needs some of {', '.join(known)}")
    return claim
