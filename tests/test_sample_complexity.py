"""Test sample complexity on scores with known crossings, and fits of power laws."""

import json
import math

import numpy as np
import pytest

from convlab.tasks import examples_needed, fit_power_law, loop_over_runs, threshold_crossing


def crossing_at(*sizes):
    """Make a learner whose scores are linear in log size and cross 0 at one size per seed."""
    return loop_over_runs(lambda size, seed: math.log(size / sizes[seed]))


def test_examples_needed_equal_the_true_crossing_of_every_seed():
    sizes = (11.3, 97.0, 640.0, 8100.0)
    result = examples_needed(crossing_at(*sizes), 0.0, range(4), min_examples=10, max_examples=10_000)
    np.testing.assert_allclose(result.examples, sizes, rtol=1e-9)


def test_a_target_reached_at_the_smallest_size_or_never_gives_that_size_or_inf():
    result = examples_needed(crossing_at(3.0, 5000.0), 0.0, [0, 1], min_examples=10, max_examples=1000)
    assert result.examples == (10.0, math.inf)


def test_search_tries_few_sizes_and_all_seeds_in_one_call():
    calls = []

    def learn(sizes, seeds):
        calls.append(sizes.tolist())
        return np.log(sizes / np.array([30.0, 3000.0]))

    result = examples_needed(learn, 0.0, [0, 1], min_examples=10, max_examples=10_000, factor=2**0.25)
    assert {len(sizes) for sizes in calls} == {2}
    assert len(calls) <= 2 * math.log2(40) + 1  # of 40 sizes on the grid
    # Steps double, so the search overshoots by at most the factor from the smallest size to the crossing.
    assert max(size for seed, size in result.scores if seed == 0) < 30 * (30 / 10) * 2**0.5
    assert len(result.scores) < sum(map(len, calls))


def test_scores_in_the_file_are_computed_again_only_if_their_line_is_damaged(tmp_path):
    path, calls = tmp_path / "folder" / "scores.jsonl", []

    def learn(size, seed):
        calls.append((size, seed))
        return math.log(size / (50.0, 400.0)[seed])

    def needed(seeds=(0, 1)):
        return examples_needed(loop_over_runs(learn), 0.0, seeds, min_examples=10, max_examples=1000, path=path).examples

    first = needed()
    calls_before = len(calls)
    assert needed() == first
    assert len(calls) == calls_before
    path.write_bytes(path.read_bytes()[:-5])
    assert needed() == first
    assert calls_before < len(calls) <= calls_before + 2
    assert needed() == first
    assert all(json.loads(line) for line in path.read_text().splitlines()[:-1] if line.endswith("}"))


def test_scores_of_other_learners_and_damaged_lines_are_ignored(tmp_path):
    path = tmp_path / "scores.jsonl"

    def needed(size, name):
        return examples_needed(
            crossing_at(size), 0.0, [0], min_examples=10, max_examples=1000, path=path, learner_name=name
        ).examples[0]

    assert needed(50.0, "one") == pytest.approx(50)
    assert needed(500.0, "other") == pytest.approx(500)
    undamaged = path.read_bytes()
    for bad in (
        b"\xff\xfe",
        b"null",
        b"[1]",
        b"12",
        b'{"learner": "one"}',
        b'{"learner": "one", "seed": 0, "size": 10, "score": NaN}',
    ):
        path.write_bytes(bad + b"\n" + undamaged)
        # A learner whose crossing is at -1 would raise an error, so these scores come from the file.
        assert (needed(-1.0, "one"), needed(-1.0, "other")) == (pytest.approx(50), pytest.approx(500))


def test_valid_scores_are_kept_when_another_score_is_nan(tmp_path):
    calls = []

    def needed(score_of_seed_3):
        def learn(size, seed):
            calls.append((size, seed))
            return score_of_seed_3 if seed == 3 and score_of_seed_3 else math.log(size / 300)

        return examples_needed(
            loop_over_runs(learn), 0.0, [3, 4], min_examples=200, max_examples=1000, path=tmp_path / "scores.jsonl"
        ).examples

    with pytest.raises(ValueError, match=r"\(seed, size\) \[\(3, 200\)\] are nan"):
        needed(math.nan)
    assert needed(None) == (pytest.approx(300), pytest.approx(300))
    assert calls.count((200, 3)) == 2
    assert calls.count((200, 4)) == 1


def test_infinite_scores_cross_at_the_size_that_reaches_the_target():
    for low, high in ((-math.inf, 1.0), (0.0, math.inf)):
        learn = loop_over_runs(lambda size, seed, low=low, high=high: low if size < 50 else high)
        (needed,) = examples_needed(learn, 0.5, [0], min_examples=10, max_examples=1000).examples
        assert 50 <= needed < 50 * 2**0.5


def test_function_of_one_run_is_called_only_for_runs_without_a_score(tmp_path):
    calls = []

    def learn(size, seed):
        calls.append((size, seed))
        return math.log(size / (20, 700, 90)[seed])

    for seeds in ([0, 1], np.arange(3)):
        examples_needed(loop_over_runs(learn), 0.0, seeds, min_examples=10, max_examples=1000, path=tmp_path / "scores.jsonl")
    assert len(calls) == len(set(calls))


def test_search_tries_no_size_far_above_the_result():
    result = examples_needed(crossing_at(513.0), 0.0, [0], min_examples=4, max_examples=2**20)
    assert max(size for _, size in result.scores) < 8 * 513
    assert result.examples[0] == pytest.approx(513)


def test_progress_is_called_with_every_new_score():
    rows = []
    examples_needed(crossing_at(50.0), 0.0, [0], min_examples=10, max_examples=100, progress=lambda *row: rows.append(row))
    assert all(score == pytest.approx(math.log(size / 50)) for size, _, score in rows)


def test_interval_of_a_fitted_exponent_covers_the_true_exponent():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        needed = {k: 7 * k**1.5 * np.exp(0.3 * rng.standard_normal(6)) for k in (2.0, 4.0, 8.0, 16.0)}
        exponent = fit_power_law(needed, resamples=400).exponent
        covered += exponent.low <= 1.5 <= exponent.high
    assert 45 <= covered <= 60  # the bootstrap interval of six seeds is slightly narrow


def test_one_seed_gives_an_exponent_and_no_interval():
    exponent = fit_power_law({2.0: [12.0], 4.0: [48.0, 48.0]}).exponent
    assert exponent.mean == pytest.approx(2)
    assert math.isnan(exponent.low)
    assert math.isnan(exponent.high)


def test_all_seeds_have_equal_weight_when_sizes_have_different_numbers_of_seeds():
    needed = {1.0: [1.0], 2.0: [4.0, 4.0, 4.0], 4.0: [4.0]}
    k, n = np.log([1, 2, 2, 2, 4]), np.log([1, 4, 4, 4, 4])
    exponent, prefactor = np.polyfit(k, n, 1)
    law = fit_power_law(needed)
    np.testing.assert_allclose((law.exponent.mean, law.prefactor), (exponent, np.exp(prefactor)))


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: fit_power_law({2.0: [1.0]}), "needs at least two"),
        (lambda: fit_power_law({2.0: [1.0], 4.0: [math.inf, 2.0]}), r"at \[4.0\] are not finite and positive"),
        (lambda: fit_power_law({2.0: [1.0], 4.0: [0.0]}), r"at \[4.0\] are not finite and positive"),
        (lambda: fit_power_law({0.0: [1.0], 4.0: [2.0]}), "all positive"),
        (lambda: fit_power_law({1.0: [1.0], 4.0: [2.0]}, level=95), "level 95"),
        (lambda: examples_needed(crossing_at(1.0), math.nan, [0], min_examples=1, max_examples=2), "target is nan"),
        (lambda: examples_needed(lambda n, s: np.ones((1, 1)), 0.0, [0], min_examples=1, max_examples=2), r"shape \(1, 1\)"),
        (lambda: examples_needed(crossing_at(1.0), 0.0, [], min_examples=1, max_examples=2), "at least one seed"),
        (lambda: examples_needed(crossing_at(1.0), 0.0, [0], min_examples=5, max_examples=2), "sizes that grow"),
        (lambda: examples_needed(loop_over_runs(lambda *_: math.nan), 0.0, [0], min_examples=1, max_examples=2), "are nan"),
    ],
)
def test_invalid_arguments_raise_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_threshold_crossing_is_linear_in_the_logarithm_of_the_size_and_handles_both_ends():
    scores = {size: math.log(size / 97.0) for size in (640, 11, 40, 160)}
    assert threshold_crossing(scores, 0.0) == pytest.approx(97.0)
    assert threshold_crossing(scores, math.log(20 / 97)) == pytest.approx(20.0)
    assert threshold_crossing({10: -5.0, 40: 0.0, 160: 1.0}, 0.5) == pytest.approx(
        80.0
    )  # interpolated between neighbouring sizes
    assert threshold_crossing(scores, -10.0) == 11
    assert threshold_crossing(scores, 10.0) == math.inf
    assert threshold_crossing({10: 0.2, 20: 0.6, 40: 0.4, 80: 0.9}, 0.5) < 20  # the first crossing counts
    with pytest.raises(ValueError, match="needs numbers"):
        threshold_crossing({}, 0.5)
    with pytest.raises(ValueError, match="needs numbers"):
        threshold_crossing({10: math.nan}, 0.5)


def test_threshold_crossing_agrees_with_examples_needed():
    learn = crossing_at(97.0)
    result = examples_needed(learn, 0.0, [0], min_examples=10, max_examples=1000)
    assert threshold_crossing({size: score for (_, size), score in result.scores.items()}, 0.0) == result.examples[0]
