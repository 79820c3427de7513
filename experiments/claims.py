"""Which claims of textbooks and forums about convolutions are true?

Each claim is a quotation, with our additions in brackets, or the substance of a discussion. A check tests the claim in
several cases. A claim that holds only in some of them is "true if ...". Where the claim is known to be false, the same check
gives the opposite result. Questions of the texts are answered in the same way. Claims that only trained networks can decide
are left to the experiments that train them. The claims, with their checks and verdicts, are in `claims.toml`, and the checks
in `experiments.checks`.

Answer: of 49 that a check decides 24 are true, 19 true in some cases, 6 false; seven are left to experiments.

    python -m experiments.claims                                        (2 minutes on 2 cores)

References: Zhang, Lipton, Li and Smola, Dive into Deep Learning, edition 1.0.3 where none is named. Stevens, Antiga and
Viehmann 2020, Deep Learning with PyTorch. Kayhan and van Gemert 2020. Two threads on forums.fast.ai, "Help me understand
Lesson 10 (Part 2)" and "Kernel size: why would you ever make it larger?". A thread on discuss.pytorch.org, "Convolutions -
Deep Learning with PyTorch".
"""

import dataclasses
import textwrap
from typing import Any

from convlab import report
from convlab.report.drawing import slide_style
from experiments.checks.claim import Claim, Open, read
from experiments.shared.command import Rows, main
from experiments.shared.progress import track

TABLES = read()
CLAIMS, QUESTIONS, OPEN = TABLES["claim"], TABLES["question"], TABLES["open"]
COLOURS = {"true": "#0072B2", "true if ...": "#E69F00", "false": "#D55E00", "open": "#767676"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      only: A text that the claims must contain. If empty, all claims are checked.
      root: The folder of the results.
    """

    only: str = ""
    root: str = "runs"


PRINTED = ("claim", "verdict", "number", "unit")
SMOKE = Config(only="parameters")


def run(config: Config) -> Rows:
    """Check the claims, then the questions, and return one row for each.

    Raises:
      ValueError: No claim contains `config.only`.
    """
    chosen = [claim for claim in (*CLAIMS, *QUESTIONS, *OPEN) if config.only in claim.quote]
    rows = [_row(claim) for claim in track(chosen, "claims")]
    if not rows:
        raise ValueError(f"only is {config.only!r}, but no claim contains that; use words of a claim in claims.toml")
    return rows


def _row(claim: Claim | Open) -> dict[str, Any]:
    """Return the result of a claim's check, or of a question's, and its result in the counter-case."""
    row: dict[str, Any] = {"claim": claim.quote, "source": claim.source}
    if isinstance(claim, Open):
        return row | {"verdict": "open", "unit": f"see experiments.{claim.experiment}"}
    finding = claim.decide()
    verdict = answer(finding.verdict) if claim in QUESTIONS else finding.verdict
    counters = [f"{case}: {other.verdict}, {_in_digits(other.number)}" for case, other in claim.countered().items()]
    result = {"verdict": verdict, "number": finding.number, "unit": claim.unit, "counter-case": "; ".join(counters)}
    return row | result


def answer(verdict: str) -> str:
    """Turn the verdict on a proposed answer into an answer to its question: "yes", "no" or "yes if ..."."""
    return "no" if verdict == "false" else verdict.replace("true", "yes")


def kind(verdict: str) -> str:
    """Return the kind of a verdict: "true", "true if ...", "false" or "open"."""
    return "true if ..." if verdict.startswith("true if") else verdict


def draw(rows: Rows, config: Config) -> Any:
    """Draw how many claims of each text hold, and list the false ones with the number measured."""
    figure, (counted, wrong) = report.new_figure(2, size=(16.0, 8.5))
    claims = [row for row in rows if kind(row["verdict"]) in COLOURS]
    texts = list(dict.fromkeys(_text(row) for row in claims))
    with slide_style():
        left = [0] * len(texts)
        for verdict, colour in COLOURS.items():
            counts = [sum(_text(row) == text and kind(row["verdict"]) == verdict for row in claims) for text in texts]
            bars = counted.barh(range(len(texts)), counts, left=left, color=colour, label=verdict)
            counted.bar_label(bars, [str(n) if n else "" for n in counts], label_type="center", color="white", weight="bold")
            left = [a + b for a, b in zip(left, counts, strict=True)]
        counted.set_yticks(range(len(texts)), [textwrap.fill(text, 14) for text in texts])
        counted.invert_yaxis()
        counted.set(xlabel="claims", title=f"{len(claims)} claims about convolutions")
        counted.legend(ncols=len(COLOURS), loc="upper center", bbox_to_anchor=(0.4, -0.1), frameon=False)
        false = [row for row in claims if row["verdict"] == "false"]
        for line, row in enumerate(false):
            quote = textwrap.fill(textwrap.shorten(row["claim"], 100, placeholder=" ..."), 54)
            wrong.text(0.0, line - 0.15, quote, va="center", size=16)
            measured = textwrap.shorten(f"{_in_digits(row['number'])} {row['unit']}", 60, placeholder=" ...")
            wrong.text(0.03, line + 0.3, measured, va="center", size=16, color=COLOURS["false"])
        wrong.set(xlim=(0, 1), ylim=(max(len(false), 1) - 0.5, -0.5), title="false in every case tried, and what it is")
        wrong.axis("off")
    return figure


def _in_digits(number: float) -> str:
    """Format a count in full, and any other number with three digits."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.3g}"


def _text(row: dict[str, Any]) -> str:
    """Return the name of the text that a claim is from."""
    return row["source"].split(",")[0].removesuffix(" 2020")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
