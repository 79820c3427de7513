"""Test that checks of claims reproduce the recorded verdicts and can fail in counter-cases."""

import functools
import pathlib

import pytest

from experiments import claims
from experiments.checks import Finding
from experiments.checks.claim import PATH, read
from experiments.claims import CLAIMS, OPEN, QUESTIONS, Config, answer, draw, kind, run

ROOT = pathlib.Path(__file__).parents[1]
OTHER = {"true": "false", "false": "true"}
CHECKED = {claim.quote: claim for claim in (*CLAIMS, *QUESTIONS)}
every_claim = pytest.mark.parametrize("quote", CHECKED, ids=lambda quote: quote[:40])


@functools.cache
def finding_of(quote):
    return CHECKED[quote].decide()


@pytest.mark.slow
@every_claim
def test_claim_verdict_matches_the_recorded_one(quote):
    assert finding_of(quote).verdict == CHECKED[quote].verdict
    assert finding_of(quote).number == pytest.approx(CHECKED[quote].number, rel=5e-3, abs=1e-5)


@pytest.mark.slow
@every_claim
def test_check_gives_the_opposite_verdict_in_counter_cases(quote):
    elsewhere = CHECKED[quote].countered().values()
    assert all(finding.verdict == OTHER[CHECKED[quote].verdict] for finding in elsewhere)
    assert {holds for finding in (finding_of(quote), *elsewhere) for holds in finding.holds.values()} == {True, False}


def test_no_claim_is_listed_twice():
    quotes = [claim.quote for claim in (*CLAIMS, *QUESTIONS)] + [quote for quote, _, _ in OPEN]
    assert len(set(quotes)) == len(quotes)


def test_verdict_is_true_false_or_true_in_named_cases():
    assert Finding({"a": True, "b": True}, 0).verdict == "true"
    assert Finding({"a": False, "b": False}, 0).verdict == "false"
    assert Finding({"a": True, "b": False, "c": True}, 0).verdict == "true if a or c"


def test_question_is_answered_with_yes_or_no():
    assert [answer(verdict) for verdict in ("true", "false", "true if a or b")] == ["yes", "no", "yes if a or b"]
    (row,) = run(Config(only="By what factor"))
    assert (row["verdict"], row["number"], row["counter-case"]) == ("yes", 4, "of one alone: false, 2")
    assert not draw([row], Config()).axes[0].patches


def test_filter_that_matches_no_claim_raises_an_error():
    with pytest.raises(ValueError, match="only is 'xyz', but no claim contains that"):
        run(Config(only="xyz"))


@pytest.mark.parametrize(
    "wanted, written, error",
    [
        ("[[claim]]\nquote", "[[clam]]\nquote", "unknown kind .'clam'.; choose from claim, question, open"),
        ('check = "counts.', 'check = "count.', "check 'count.dense_weights'; choose from .*counts.dense_weights"),
        ("unit =", "units =", "fields .'units'.; choose from .*unit"),
        ("source =", "# source =", "has no source, which every claim needs"),
        ("{ pixels =", "{ pixel =", "an unknown argument 'pixel'; choose from pixels, claimed"),
    ],
)
def test_invalid_claim_raises_an_error_that_names_the_problem(wanted, written, error, tmp_path):
    text = PATH.read_text("utf-8")
    assert wanted in text
    (tmp_path / "claims.toml").write_text(text.replace(wanted, written, 1), "utf-8")
    with pytest.raises(ValueError, match=error):
        read(tmp_path / "claims.toml")


@pytest.mark.parametrize("quote, source, experiment", OPEN)
def test_open_claims_refer_to_an_experiment_with_results(quote, source, experiment):
    assert (ROOT / "experiments" / f"{experiment}.py").exists()
    assert (ROOT / "experiments" / "results" / experiment / "table.csv").exists()
    (row,) = run(Config(only=quote))
    assert row == {"claim": quote, "source": source, "verdict": "open", "unit": f"see experiments.{experiment}"}


def test_module_docstring_states_the_verdict_counts():
    kinds = [kind(claim.verdict) for claim in CLAIMS]
    counts = f"of {len(kinds)} that a check decides {kinds.count('true')} are true, {kinds.count('true if ...')} true in some"
    assert f"{counts} cases, {kinds.count('false')} false" in " ".join(str(claims.__doc__).split())
