"""Intervals of the difference between two evaluations: by hand, by simulation, and what they reject."""

from itertools import product

import pytest
import torch

from vreid_ext import metrics


def per_query(ap, first_hit=None):
    ap = torch.as_tensor(ap, dtype=torch.float64)
    hits = torch.ones(len(ap), dtype=torch.int64) if first_hit is None else torch.tensor(first_hit)
    return {"ap": ap, "first_hit": hits}


def seeded(number):
    return torch.Generator().manual_seed(number)


def test_three_persons_by_hand():
    """All 27 draws of three persons with two, one and one queries, and a query that is skipped."""
    pids = [7, 7, 3, 5, 9]
    a = per_query([0.5, 0.25, 1.0, 0.5, torch.nan], [1, 3, 1, 6, 0])
    b = per_query([1.0, 0.5, 0.75, 0.5, torch.nan], [1, 2, 1, 2, 0])
    result = metrics.compare(a, b, pids, ranks=(1, 5), resamples=200_000)
    assert (result.queries, result.persons, result.runs) == (4, 3, (1, 1))
    assert result.a["mAP"].value == pytest.approx(2.25 / 4)
    assert result.b["mAP"].value == pytest.approx(2.75 / 4)
    assert [result.a[k].value for k in ("rank1", "rank5")] == [0.5, 0.75]
    assert [result.b[k].value for k in ("rank1", "rank5")] == [0.5, 1.0]

    sizes, sums = [2, 1, 1], [0.75, -0.25, 0.0]
    draws = sorted(
        sum(sums[p] for p in drawn) / sum(sizes[p] for p in drawn) for drawn in product(range(3), repeat=3)
    )
    # Each draw has probability 1/27, more than 2.5 %: the interval goes from the smallest to the largest.
    assert result.difference["mAP"] == pytest.approx((0.125, draws[0], draws[-1]))
    inner = metrics.compare(a, b, pids, ranks=(1, 5), resamples=200_000, confidence=1 - 2 * 4.5 / 27)
    assert inner.difference["mAP"][1:] == pytest.approx((draws[4], draws[-5]))
    assert inner.confidence == pytest.approx(2 / 3)


def test_figures_are_those_of_evaluate():
    features = torch.randn(60, 8, generator=seeded(0))
    pids, camids = torch.arange(60) % 12, torch.arange(60) // 12 % 2
    one, other = (
        metrics.evaluate(part[:24], part[24:], pids[:24], pids[24:], camids[:24], camids[24:])
        for part in (features, features[:, :4])
    )
    result = metrics.compare(one, other, pids[:24])
    for side, evaluation in ((result.a, one), (result.b, other)):
        assert side["mAP"].value == pytest.approx(evaluation.mAP, abs=1e-12)
        for k in (1, 5, 10, 20):
            assert side[f"rank{k}"].value == pytest.approx(evaluation.rank(k), abs=1e-12)
        assert all(interval.low <= interval.value <= interval.high for interval in side.values())
    assert result == metrics.compare(one, [other], pids[:24])  # the default generator has a fixed seed
    assert result != metrics.compare(one, other, pids[:24], generator=seeded(1))


def test_equal_runs_differ_by_exactly_zero():
    ap = torch.rand(501, generator=seeded(0), dtype=torch.float64)
    a, b = per_query(ap), per_query(ap.clone())
    difference = metrics.compare(a, b, torch.arange(501) // 3).difference
    assert all(interval == (0, 0, 0) and not interval.decided for interval in difference.values())


def test_noise_that_both_sides_share_cancels():
    generator = seeded(0)
    common = torch.rand(400, generator=generator, dtype=torch.float64) * 0.8
    own = 0.01 * torch.rand(400, generator=generator, dtype=torch.float64)
    result = metrics.compare(per_query(common), per_query(common + 0.02 + own), torch.arange(400) // 4)
    assert result.difference["mAP"].decided
    width, alone = (x["mAP"].high - x["mAP"].low for x in (result.difference, result.b))
    assert width < alone / 20


def test_queries_of_one_person_are_not_independent():
    """The same effect for all n queries of a person makes the interval sqrt(n) times as wide."""
    effect = torch.rand(100, generator=seeded(0), dtype=torch.float64).repeat_interleave(9) * 0.5
    a, b = per_query(torch.full((900,), 0.25)), per_query(effect)
    by_person = metrics.compare(a, b, torch.arange(900) // 9).difference["mAP"]
    by_query = metrics.compare(a, b, torch.arange(900)).difference["mAP"]
    assert by_person.value == pytest.approx(by_query.value)
    assert (by_person.high - by_person.low) / (by_query.high - by_query.low) == pytest.approx(3, rel=0.1)


def share_covered(sets, runs, *, between_runs, true=0.02):
    """Share of simulated sets of 60 persons with 1 to 7 queries whose interval contains the difference."""
    generator, persons, covered = seeded(0), 60, 0
    for number in range(sets):
        pids = torch.arange(persons).repeat_interleave(torch.randint(1, 8, (persons,), generator=generator))

        def noise(scale, *shape):
            return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

        difficulty, effect = noise(0.1, persons)[pids], true + noise(0.04, persons)[pids]
        sides = [
            [
                per_query(0.5 + difficulty + shift + noise(between_runs, 1) + noise(0.05, len(pids)))
                for _ in range(runs)
            ]
            for shift in (0, effect)
        ]
        for run in (*sides[0], *sides[1]):
            run["ap"].clamp_(0, 1)
        result = metrics.compare(*sides, pids, ranks=(), resamples=1000, generator=seeded(number))
        covered += result.difference["mAP"].low <= true <= result.difference["mAP"].high
    return covered / sets


@pytest.mark.parametrize(("runs", "between_runs"), [(1, 0.0), (5, 0.005)])
def test_intervals_cover_the_true_difference(runs, between_runs):
    assert 0.93 <= share_covered(1000, runs, between_runs=between_runs) <= 0.97


def test_runs_are_a_second_level():
    """Runs that differ for all queries alike: only the draws of runs see that."""
    generator = seeded(0)
    ap = 0.3 + 0.4 * torch.rand(300, generator=generator, dtype=torch.float64)
    pids = torch.arange(300) // 3
    one = metrics.compare(per_query(ap), per_query(ap + 0.05), pids)
    several = metrics.compare(
        [per_query(ap + d) for d in (-0.1, 0.0, 0.1)], [per_query(ap + 0.05 + d) for d in (-0.1, 0.1)], pids
    )
    assert several.runs == (3, 2)
    assert several.difference["mAP"].value == pytest.approx(one.difference["mAP"].value)
    assert one.difference["mAP"].high - one.difference["mAP"].low < 1e-12
    assert not several.difference["mAP"].decided
    # -0.1 and +0.1 of the runs of b, of a up to 0.1 in the other direction
    assert several.difference["mAP"].low == pytest.approx(0.05 - 0.1 - 0.2 / 3, abs=1e-9)


def test_paired_runs_cancel():
    """Runs that differ for all queries alike, each evaluated twice: no draw changes the difference."""
    ap = 0.3 + 0.4 * torch.rand(300, generator=seeded(0), dtype=torch.float64)
    pids = torch.arange(300) // 3
    a, b = ([per_query(ap + d + gain) for d in (-0.1, 0.0, 0.1)] for gain in (0.0, 0.05))
    paired, independent = (
        metrics.compare(a, b, pids, paired=each).difference["mAP"] for each in (True, False)
    )
    assert paired.value == pytest.approx(independent.value)
    assert (paired.low, paired.high) == (pytest.approx(0.05), pytest.approx(0.05))
    assert independent.low < 0 < independent.high


def test_draws_do_not_depend_on_the_other_side():
    pids = torch.arange(40) // 2
    first, *others = (per_query(torch.rand(40, generator=seeded(n), dtype=torch.float64)) for n in range(4))
    assert (
        metrics.compare([first, others[0]], others[1], pids).a
        == metrics.compare([first, others[0]], others[1:], pids).a
    )


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"a": 3}, TypeError, "a: expected a ReIDResult, its per_query or several, got int"),
        ({"b": []}, ValueError, "b: expected at least one run, got none"),
        ({"b": {"ap": [1.0]}}, TypeError, r"b\[0\]: expected a ReIDResult or its per_query with"),
        (
            {"b": per_query([[1.0], [1.0]])},
            ValueError,
            r"b\[0\]\['ap'\]: expected shape \(Q,\), got \(2, 1\)",
        ),
        ({"b": per_query([0.5] * 3)}, ValueError, r"b\[0\]: expected 4 queries as in a\[0\], got 3"),
        ({"b": per_query([0.5] * 3 + [1.5])}, ValueError, r"b\[0\]\['ap'\]: expected fractions .* got 1.5"),
        (
            {"b": per_query([0.5] * 4, [1, 1, 1, 0])},
            ValueError,
            r"b\[0\]: expected the valid queries of a\[0\]",
        ),
        (dict.fromkeys("ab", per_query([torch.nan] * 4, [0] * 4)), ValueError, "a: expected a query with a"),
        ({"q_pids": [1, 2]}, ValueError, r"q_pids: expected shape \(4,\), got \(2,\)"),
        ({"q_pids": [1.0] * 4}, TypeError, "q_pids: expected an integer dtype"),
        ({"q_pids": [5] * 4}, ValueError, "q_pids: expected valid queries of at least 2 persons, got 1"),
        ({"ranks": (0,)}, ValueError, r"ranks\[0\]: expected an int >= 1"),
        ({"confidence": 95}, ValueError, "confidence: expected a number between 0 and 1, exclusive, got 95"),
        ({"resamples": 0}, ValueError, "resamples: expected an int >= 1"),
        ({"paired": 1}, TypeError, "paired: expected"),
        ({"b": [per_query([0.5] * 4)] * 2, "paired": True}, ValueError, "b: expected 1 runs as in a"),
        ({"generator": 0}, TypeError, "generator: expected None or a torch.Generator of the CPU, got int"),
    ],
)
def test_bad_arguments(changes, error, says):
    arguments = {"a": per_query([0.5] * 4), "b": per_query([0.5] * 4), "q_pids": [1, 1, 2, 3], **changes}
    with pytest.raises(error, match=says):
        metrics.compare(**arguments)
