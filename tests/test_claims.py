"""The verdicts on the claims of the texts stand: each check comes to the verdict and the number recorded with its claim."""

import pytest

from experiments import claims
from experiments.checks import Finding
from experiments.claims import CLAIMS, OPEN, Config, kind, run


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.quote[:40])
def test_a_claim_is_decided_as_it_was(claim):
    finding = claim.check()
    assert finding.verdict == claim.verdict
    assert finding.number == pytest.approx(claim.number, rel=5e-3, abs=1e-5)


def test_no_claim_is_made_twice():
    quotes = [claim.quote for claim in CLAIMS] + [quote for quote, _ in OPEN]
    assert len(set(quotes)) == len(quotes)


def test_a_claim_is_true_in_all_cases_or_in_none_or_in_those_that_are_named():
    assert Finding({"a": True, "b": True}, 0).verdict == "true"
    assert Finding({"a": False, "b": False}, 0).verdict == "false"
    assert Finding({"a": True, "b": False, "c": True}, 0).verdict == "true if a or c"


def test_words_that_no_claim_has_are_an_error():
    with pytest.raises(ValueError, match="no claim contains 'xyz'"):
        run(Config(only="xyz"))


def test_the_verdicts_are_counted_in_the_answer():
    kinds = [kind(claim.verdict) for claim in CLAIMS]
    counts = f"of {len(kinds)} that a check decides {kinds.count('true')} are true, {kinds.count('true if ...')} true in some"
    assert f"{counts} cases, {kinds.count('false')} false" in " ".join(claims.__doc__.split())
