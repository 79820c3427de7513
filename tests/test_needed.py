"""How many examples it takes, against scores whose crossing is known; and the exponent of a power law."""

import json
import math

import numpy as np
import pytest

from convlab.measure import examples_needed, one_by_one, slope


def crossing_at(*places):
    """Scores that reach 0 at a size of the seed's own, straight in its logarithm."""
    return one_by_one(lambda size, seed: math.log(size / places[seed]))


def test_the_crossing_is_found_seed_by_seed_wherever_it_is():
    places = (11.3, 97.0, 640.0, 8100.0)
    found = examples_needed(crossing_at(*places), 0.0, range(4), least=10, most=10_000)
    np.testing.assert_allclose(found.examples, places, rtol=1e-9)


def test_a_target_that_is_met_at_once_or_never_says_so():
    found = examples_needed(crossing_at(3.0, 5000.0), 0.0, [0, 1], least=10, most=1000)
    assert found.examples == (10.0, math.inf)


def test_few_sizes_are_tried_and_all_seeds_in_one_call():
    calls = []

    def learn(sizes, seeds):
        calls.append(sizes.tolist())
        return np.log(sizes / np.array([30.0, 3000.0]))

    found = examples_needed(learn, 0.0, [0, 1], least=10, most=10_000, factor=2**0.25)
    assert {len(sizes) for sizes in calls} == {2}
    assert len(calls) <= 2 * math.log2(40) + 1  # of 40 sizes on the grid
    assert max(size for seed, size in found.scores if seed == 0) < 30 * (30 / 10) * 2**0.5  # steps double: at most as far again
    assert len(found.scores) < sum(map(len, calls))


def test_what_was_found_is_not_asked_again_and_a_line_that_was_cut_off_is(tmp_path):
    path, asked = tmp_path / "folder" / "scores.jsonl", []

    def learn(size, seed):
        asked.append((size, seed))
        return math.log(size / (50.0, 400.0)[seed])

    def needed(seeds=(0, 1)):
        return examples_needed(one_by_one(learn), 0.0, seeds, least=10, most=1000, path=path).examples

    first = needed()
    many = len(asked)
    assert needed() == first
    assert len(asked) == many
    path.write_bytes(path.read_bytes()[:-5])
    assert needed() == first
    assert many < len(asked) <= many + 2
    assert needed() == first
    assert all(json.loads(line) for line in path.read_text().splitlines()[:-1] if line.endswith("}"))


def test_new_scores_are_told():
    told = []
    examples_needed(crossing_at(50.0), 0.0, [0], least=10, most=100, show=lambda *row: told.append(row))
    assert all(score == pytest.approx(math.log(size / 50)) for size, _, score in told)


def test_a_power_law_is_found_with_an_interval_that_covers_it():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        needed = {k: 7 * k**1.5 * np.exp(0.3 * rng.standard_normal(6)) for k in (2.0, 4.0, 8.0, 16.0)}
        exponent = slope(needed, draws=400).exponent
        covered += exponent.low <= 1.5 <= exponent.high
    assert 45 <= covered <= 60  # of 60; the bootstrap of six seeds is a little narrow


def test_seeds_count_alike_where_there_are_unequally_many():
    needed = {1.0: [1.0], 2.0: [4.0, 4.0, 4.0], 4.0: [4.0]}
    k, n = np.log([1, 2, 2, 2, 4]), np.log([1, 4, 4, 4, 4])
    exponent, at_one = np.polyfit(k, n, 1)
    law = slope(needed)
    np.testing.assert_allclose((law.exponent.mean, law.at_one), (exponent, np.exp(at_one)))


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: slope({2.0: [1.0]}), "needs at least two"),
        (lambda: slope({2.0: [1.0], 4.0: [math.inf, 2.0]}), r"not reached at \[4.0\]"),
        (lambda: examples_needed(crossing_at(1.0), 0.0, [], least=1, most=2), "seeds is empty"),
        (lambda: examples_needed(crossing_at(1.0), 0.0, [0], least=5, most=2), "sizes that grow"),
        (lambda: examples_needed(one_by_one(lambda *_: math.nan), 0.0, [0], least=1, most=2), "is nan"),
    ],
)
def test_what_cannot_be_bracketed_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
