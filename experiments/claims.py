"""What do the texts claim about convolutions, and is it so?

Each claim is a quotation, with ours in brackets, or what a discussion holds in substance. A check tries it in cases. What
holds in some cases only is "true if ...". The same check, tried where the claim is known not to hold, comes out the other way.
Questions are answered beside, and what only trained networks decide is left to the experiment that trains them. The claims,
with their checks and verdicts, stand in `claims.toml`, and the checks in `experiments.checks`.

Answer: of 49 that a check decides 24 are true, 19 true in some cases, 6 false; seven are left to experiments.

    python -m experiments.claims                                        (2 minutes on 2 cores)

References: Zhang, Lipton, Li and Smola, Dive into Deep Learning, edition 1.0.3 where none is named. Stevens, Antiga and
Viehmann 2020, Deep Learning with PyTorch. Kayhan and van Gemert 2020. Threads "Help me understand Lesson 10 (Part 2)" and
"Kernel size: why would you ever make it larger?" on forums.fast.ai, and "Convolutions - Deep Learning with PyTorch" on
discuss.pytorch.org.
"""

import dataclasses
import textwrap
from typing import Any

from convlab import report
from convlab.report.drawing import slide_style
from experiments.checks.claim import Claim, Open, read
from experiments.shared.command import Rows, main

TABLES = read()
CLAIMS, QUESTIONS, OPEN = TABLES["claim"], TABLES["question"], TABLES["open"]
COLOURS = {"true": "#0072B2", "true if ...": "#E69F00", "false": "#D55E00", "open": "#767676"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      only: Claims whose words contain this; absent, all.
      root: Folder that the results go to.
    """

    only: str = ""
    root: str = "runs"


SMOKE = Config(only="parameters")


def run(config: Config) -> Rows:
    """Check the claims, then the questions; one row each.

    Raises:
      ValueError: No claim contains `config.only`.
    """
    rows = [_row(claim) for claim in (*CLAIMS, *QUESTIONS, *OPEN) if config.only in claim.quote]
    if not rows:
        raise ValueError(f"no claim contains {config.only!r}; needs words of one, as they stand in claims.toml")
    return rows


def _row(claim: Claim | Open) -> dict[str, Any]:
    """What the check of a claim, or of the answer to a question, finds; and what it finds in the counter-case."""
    row: dict[str, Any] = {"claim": claim.quote, "source": claim.source}
    if isinstance(claim, Open):
        return row | {"verdict": "open", "unit": f"see experiments.{claim.experiment}"}
    finding = claim.decide()
    verdict = answer(finding.verdict) if claim in QUESTIONS else finding.verdict
    counters = [f"{case}: {other.verdict}, {_in_digits(other.number)}" for case, other in claim.countered().items()]
    found = {"verdict": verdict, "number": finding.number, "unit": claim.unit, "counter-case": "; ".join(counters)}
    return row | found


def answer(verdict: str) -> str:
    """Put the verdict on a tried answer as that on its question: yes, no, or yes in some cases."""
    return "no" if verdict == "false" else verdict.replace("true", "yes")


def kind(verdict: str) -> str:
    """Sort a verdict: true, true in some cases, false, open."""
    return "true if ..." if verdict.startswith("true if") else verdict


def draw(rows: Rows, config: Config) -> Any:
    """How many claims of each text hold, and what is wrong with those that do not; the rest is in the table."""
    figure, (counted, wrong) = report.new_figure(2, size=(16.0, 8.5))
    claims = [row for row in rows if kind(row["verdict"]) in COLOURS]
    texts = list(dict.fromkeys(_text(row) for row in claims))
    with slide_style():
        left = [0] * len(texts)
        for verdict, colour in COLOURS.items():
            many = [sum(_text(row) == text and kind(row["verdict"]) == verdict for row in claims) for text in texts]
            bars = counted.barh(range(len(texts)), many, left=left, color=colour, label=verdict)
            counted.bar_label(bars, [str(n) if n else "" for n in many], label_type="center", color="white", weight="bold")
            left = [a + b for a, b in zip(left, many, strict=True)]
        counted.set_yticks(range(len(texts)), [textwrap.fill(text, 14) for text in texts])
        counted.invert_yaxis()
        counted.set(xlabel="claims", title=f"{len(claims)} claims about convolutions")
        counted.legend(ncols=len(COLOURS), loc="upper center", bbox_to_anchor=(0.4, -0.1), frameon=False)
        false = [row for row in claims if row["verdict"] == "false"]
        for line, row in enumerate(false):
            quote = textwrap.fill(textwrap.shorten(row["claim"], 100, placeholder=" ..."), 54)
            wrong.text(0.0, line - 0.15, quote, va="center", size=16)
            found = textwrap.shorten(f"{_in_digits(row['number'])} {row['unit']}", 60, placeholder=" ...")
            wrong.text(0.03, line + 0.3, found, va="center", size=16, color=COLOURS["false"])
        wrong.set(xlim=(0, 1), ylim=(max(len(false), 1) - 0.5, -0.5), title="false in every case tried, and what it is")
        wrong.axis("off")
    return figure


def _in_digits(number: float) -> str:
    """A count in full, any other number in three digits."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.3g}"


def _text(row: dict[str, Any]) -> str:
    """The text that a claim is from, without the place in it."""
    return row["source"].split(",")[0].removesuffix(" 2020")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
