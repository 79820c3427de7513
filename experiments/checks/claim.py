"""The claims of `claims.toml`, with the checks that decide them."""

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
    """A claim, its source, the check that decides it, and the verdict.

    Attributes:
      quote: The claim, quoted or in substance.
      source: The text and the section.
      check: The name in `CHECKS` of the function that decides it.
      verdict: The verdict of the check: "true", "false" or "true if ...".
      number: The number that the verdict depends on.
      unit: The meaning of the number.
      arguments: The arguments of the check that describe the claim's situation, if they are not its defaults.
      counter: The counter-case: a situation, in words, and the changed arguments with which the check gives the opposite
        result. Claims that are "true if ..." have none, because their checks test several cases.
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
    """A claim that only an experiment with trained networks can decide."""

    quote: str
    source: str
    experiment: str


KINDS: dict[str, type[Claim] | type[Open]] = {"claim": Claim, "question": Claim, "open": Open}


def read(path: pathlib.Path = PATH) -> dict[str, list[Any]]:
    """Read and validate all claims of a file. Return them by kind.

    Raises:
      ValueError: A kind, a field, a check or one of its arguments is unknown, or a field is missing.
    """
    tables = tomllib.loads(path.read_text("utf-8"))
    if unknown := [kind for kind in tables if kind not in KINDS]:
        raise ValueError(f"{path.name} has entries of unknown kind {unknown}; choose from {', '.join(KINDS)}")
    return {kind: [_checked(kind, entry) for entry in tables.get(kind, [])] for kind in KINDS}


def _checked(kind: str, entry: dict[str, Any]) -> Claim | Open:
    """Validate an entry and make it a claim."""
    record, label = KINDS[kind], f"the {kind} {entry.get('quote')!r}"
    if unknown := [field for field in entry if field not in record._fields]:
        raise ValueError(f"{label} has unknown fields {unknown}; choose from {', '.join(record._fields)}")
    if missing := [field for field in record._fields if field not in entry and field not in record._field_defaults]:
        raise ValueError(f"{label} has no {', '.join(missing)}, which every {kind} needs")
    claim = record(**entry)
    if isinstance(claim, Claim):
        if claim.check not in CHECKS:
            raise ValueError(f"{label} has the unknown check {claim.check!r}; choose from {', '.join(CHECKS)}")
        known = inspect.signature(CHECKS[claim.check]).parameters
        for name in (name for arguments in (claim.arguments, *claim.counter.values()) for name in arguments):
            if name not in known:
                raise ValueError(f"{label} gives {claim.check} an unknown argument {name!r}; choose from {', '.join(known)}")
    return claim
