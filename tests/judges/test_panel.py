"""Panels: standardised means, majorities, what hangs on one judge, and what missing judges leave open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_pairs import BASELINE, TREATMENT, compared, made_pairs

from lem.judges.pairwise.outcomes import outcomes_of
from lem.judges.pairwise.panel import panel_outcomes, panel_win_rate
from lem.judges.pairwise.win_rates import win_rate
from lem.judges.panel import PANEL, judge_dependent, panel_contrast, panel_judgements, panel_judges
from lem.records import Judgement, Key, RunContents, metrics_of, text_sha
from lem.stats import Estimate, headline

Column = Sequence[float | None]


def rated(run: RunContents, judge: str, values: Mapping[str, Column], low: float | None = 1.0) -> RunContents:
    """The run with one more judge's ratings 1-10 of "kindness", by arm and probe; None is unscored."""
    answers = {record.key: record.response or "" for record in run.records}
    rows = []
    for arm, column in values.items():
        for probe, value in zip(run.info.probes, column, strict=True):
            key = Key(arm, probe["id"], 0)
            rows.append(
                Judgement(
                    *key, judge, "kindness", value, low=low, high=None if low is None else 10.0, version="v1",
                    unscored=None if value is not None else "blocked", record_sha=text_sha(answers[key]),
                )
            )  # fmt: skip
    return replace(run, judgements=[*run.judgements, *rows])


def ratings(shift: float, spread: float, n: int = 12) -> dict[str, list[float | None]]:
    """Ratings of two arms, the treatment's higher by about `shift`; equal arguments give equal ratings."""
    rng = np.random.default_rng([round(10 * shift), round(10 * spread)])
    base = rng.normal(5, spread, n)
    treated = base + shift + rng.normal(0, spread / 2, n)
    return {BASELINE: base.round(1).tolist(), TREATMENT: treated.round(1).tolist()}


def longhand(columns: Sequence[Mapping[str, Column]]) -> np.ndarray:
    """Paired differences of the mean z-scores over the cells where no judge has None."""
    table = np.array([[*c[BASELINE], *c[TREATMENT]] for c in columns], dtype=np.float64)
    whole = ~np.isnan(table).any(axis=0)
    mean = table[:, whole].mean(axis=1, keepdims=True)
    z = ((table - mean) / table[:, whole].std(axis=1, ddof=1, keepdims=True)).mean(axis=0)
    z[~whole] = np.nan
    base, treated = np.split(z, 2)
    return (treated - base)[~np.isnan(treated - base)]


def test_the_difference_is_of_mean_standardised_scores() -> None:
    columns = [ratings(0.8, 1.0), ratings(0.2, 2.5), ratings(0.5, 0.4)]
    columns[1][TREATMENT][3] = None
    columns[2][BASELINE][7] = None
    run = made_pairs(12)
    for judge, column in zip("xyz", columns, strict=True):
        run = rated(run, judge, column)
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    expected = headline(longhand(columns).tolist())
    assert found.judges == ("x", "y", "z")
    assert (found.difference.n, found.n_partial) == (10, 2)
    assert found.difference.value == pytest.approx(expected.value)
    assert found.difference.low == pytest.approx(expected.low)


def test_leaving_a_judge_out_keeps_the_cells_and_the_standards() -> None:
    columns = [ratings(0.8, 1.0), ratings(0.2, 2.5), ratings(0.5, 0.4)]
    run = made_pairs(12)
    for judge, column in zip("xyz", columns, strict=True):
        run = rated(run, judge, column)
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    for i, judge in enumerate("xyz"):
        rest = columns[:i] + columns[i + 1 :]
        assert found.without[judge].value == pytest.approx(longhand(rest).mean())


def test_a_severe_judge_or_one_with_a_wide_scale_weighs_no_more() -> None:
    column = ratings(0.8, 1.0)
    stretched = {
        arm: [3 * value - 6 if value is not None else None for value in values] for arm, values in column.items()
    }
    run = rated(rated(made_pairs(12), "x", column), "y", stretched)
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    assert found.without["x"].value == pytest.approx(found.without["y"].value)
    assert found.difference.value == pytest.approx(found.without["x"].value)


def test_a_sign_that_hangs_on_one_judge_is_said_so() -> None:
    likes = {BASELINE: [5.0, 5.0, 5.0, 6.0], TREATMENT: [9.0, 9.0, 9.0, 9.0]}
    dislikes = {BASELINE: [5.0, 6.0, 5.0, 6.0], TREATMENT: [5.0, 5.0, 5.0, 5.5]}
    run = rated(rated(rated(made_pairs(4), "fan", likes), "y", dislikes), "z", dislikes)
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    assert found.without["fan"].value < 0
    pair = panel_contrast(run, "kindness", TREATMENT, BASELINE, judges=("fan", "y"))
    assert (pair.difference.value > 0, pair.dependent) == (True, ("fan",))
    agreed = panel_contrast(run, "kindness", TREATMENT, BASELINE, judges=("y", "z"))
    assert (agreed.dependent, agreed.judge_dependent) == ((), False)


@pytest.mark.parametrize(
    ("whole", "without", "null", "expected"),
    [
        (0.3, {"a": 0.1, "b": -0.1, "c": 0.0}, 0.0, ("b", "c")),
        (-0.3, {"a": -0.1, "b": 0.1}, 0.0, ("b",)),
        (0.6, {"a": 0.55, "b": 0.45}, 0.5, ("b",)),
        (0.0, {"a": 0.1, "b": -0.1}, 0.0, ()),
        (math.nan, {"a": 0.1}, 0.0, ()),
        (0.3, {"a": math.nan}, 0.0, ("a",)),
    ],
)
def test_judge_dependence(whole: float, without: dict[str, float], null: float, expected: tuple[str, ...]) -> None:
    def estimate(value: float) -> Estimate:
        return Estimate(value, 0.1, value - 0.2, value + 0.2, 0.95, 9, 0, None, "t")

    assert judge_dependent(estimate(whole), {j: estimate(v) for j, v in without.items()}, null) == expected


def test_a_judge_that_rates_all_alike_adds_nothing_and_is_named() -> None:
    column, flat = ratings(0.8, 1.0), {BASELINE: [7.0] * 12, TREATMENT: [7.0] * 12}
    run = rated(rated(made_pairs(12), "x", column), "y", flat)
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    assert found.flat == ("y",)
    assert found.difference.value == pytest.approx(found.without["y"].value / 2)
    assert found.dependent == ("x",)


def test_missing_ratings_are_bounded_by_the_ends_of_the_scale() -> None:
    columns = [ratings(0.8, 1.0), ratings(0.2, 2.5)]
    columns[1][TREATMENT][3] = None
    columns[0][BASELINE][7] = None
    run = made_pairs(12)
    for judge, column in zip("xy", columns, strict=True):
        run = rated(run, judge, column)
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    table = np.array([[*c[BASELINE], *c[TREATMENT]] for c in columns], dtype=np.float64)
    whole = ~np.isnan(table).any(axis=0)
    mean, sd = (getattr(table[:, whole], what)(axis=1, **k) for what, k in (("mean", {}), ("std", {"ddof": 1})))
    expected = []
    for treated, base in ((1.0, 10.0), (10.0, 1.0)):
        filled = table.copy()
        filled[1, 12 + 3], filled[0, 7] = treated, base
        z = ((filled - mean[:, None]) / sd[:, None]).mean(axis=0)
        expected.append((z[12:] - z[:12]).mean())
    assert found.bounds == pytest.approx(tuple(expected))
    assert found.bounds is not None
    assert found.bounds[0] < found.difference.value < found.bounds[1]


def test_without_a_scale_or_a_hole_there_are_no_bounds() -> None:
    columns = [ratings(0.8, 1.0), ratings(0.2, 2.5)]
    run = rated(rated(made_pairs(12), "x", columns[0]), "y", columns[1])
    assert panel_contrast(run, "kindness", TREATMENT, BASELINE).bounds is None
    columns[1][TREATMENT][3] = None
    run = rated(rated(made_pairs(12), "x", columns[0], low=None), "y", columns[1])
    found = panel_contrast(run, "kindness", TREATMENT, BASELINE)
    assert (found.bounds, found.n_partial) == (None, 1)


def test_a_panel_of_one_is_refused() -> None:
    run = rated(made_pairs(12), "x", ratings(0.8, 1.0))
    with pytest.raises(ValueError, match="two or more judges of 'kindness', not 1"):
        panel_contrast(run, "kindness", TREATMENT, BASELINE)
    assert panel_judgements(run) == []


def test_the_series_is_a_metric_like_any_other() -> None:
    columns = [ratings(0.8, 1.0), ratings(0.2, 2.5)]
    columns[1][TREATMENT][3] = None
    run = rated(rated(made_pairs(12), "x", columns[0]), "y", columns[1])
    series = panel_judgements(run)
    (metric,) = metrics_of(replace(run, judgements=series))
    assert (metric.source, metric.low, metric.high) == (PANEL, None, None)
    values = {cell.key: cell.value for cell in metric.cells}
    cell = Key(TREATMENT, "P003", 0)
    assert values[cell] is None
    assert [c.reason for c in metric.cells if c.key == cell] == ["no rating by y"]
    differences = [
        after - before
        for probe in run.info.probes
        if (after := values[Key(TREATMENT, probe["id"], 0)]) is not None
        and (before := values[Key(BASELINE, probe["id"], 0)]) is not None
    ]
    assert differences == pytest.approx(longhand(columns).tolist())
    assert float(np.mean([v for v in values.values() if v is not None])) == pytest.approx(0.0, abs=1e-12)
    again = replace(run, judgements=[*run.judgements, *series])
    assert panel_judges(again, "kindness") == ["x", "y"]
    assert panel_judgements(again) == series


def test_the_version_of_a_panel_is_that_of_its_judges() -> None:
    run = rated(rated(made_pairs(12), "x", ratings(0.8, 1.0)), "y", ratings(0.2, 2.5))
    changed = replace(
        run, judgements=[replace(one, version="v2") if one.judge == "x" else one for one in run.judgements]
    )
    versions = {one.version for one in panel_judgements(run)}
    assert len(versions) == 1
    assert versions.isdisjoint(one.version for one in panel_judgements(changed))


def test_a_rating_of_an_answer_made_anew_does_not_count() -> None:
    run = rated(rated(made_pairs(12), "x", ratings(0.8, 1.0)), "y", ratings(0.2, 2.5))
    records = [replace(r, response="another") if r.key == Key(TREATMENT, "P005", 0) else r for r in run.records]
    found = panel_contrast(replace(run, records=records), "kindness", TREATMENT, BASELINE)
    assert found.difference.n == 11


@pytest.mark.parametrize(
    ("votes", "value"),
    [
        (("AB", "AB", "BA"), 1.0),
        (("BA", "BA", "AB"), 0.0),
        (("AB", "BA", "tt"), 0.5),  # no half of three
        (("AB", "tt", "AA"), 0.5),
        (("AB", "BA"), 0.5),
        (("AB", "AB"), 1.0),
        (("AB", "AB", "BA", "BA"), 0.5),
        (("AB", "AB", "AB", "BA"), 1.0),
    ],
)
def test_the_majority_decides_a_pair(votes: tuple[str, ...], value: float) -> None:
    run = made_pairs(1)
    for judge, vote in enumerate(votes):
        run = compared(run, [vote], judge=str(judge))
    by_judge = {str(judge): outcomes_of(run, BASELINE, TREATMENT, str(judge)) for judge in range(len(votes))}
    assert [outcome.value for outcome in panel_outcomes(by_judge)] == [value]


def test_a_pair_that_one_judge_left_open_has_no_outcome() -> None:
    run = compared(compared(made_pairs(2), ["AB", "A-"], "x"), ["AB", "AB"], "y")
    found = panel_win_rate(run, BASELINE, TREATMENT, judges=["x", "y"])
    assert found.rate.unscored == {"no outcome by x": 1}
    assert found.rate.bounds == (0.5, 1.0)
    assert found.without["x"].n == found.rate.estimate.n == 1


def test_the_win_rate_of_a_panel_and_of_what_is_left_of_it() -> None:
    x, y, z = ["AB"] * 7 + ["BA"] * 3, ["AB"] * 6 + ["BA"] * 4, ["BA"] * 8 + ["AB"] * 2
    run = made_pairs(10)
    for judge, verdicts in zip("xyz", (x, y, z), strict=True):
        run = compared(run, verdicts, judge)
    found = panel_win_rate(run, BASELINE, TREATMENT, judges=["x", "y", "z"])
    assert (found.rate.judge, found.rate.estimate.value) == (PANEL, 0.6)
    assert found.without["z"].value == pytest.approx((6 + 0.5) / 10)
    assert found.without["x"].value == pytest.approx((6 * 0.5 + 2 * 0.0 + 2 * 0.5) / 10)
    assert (found.dependent, found.judge_dependent) == (("x", "y"), True)
    assert math.isnan(found.rate.consistency.value)
    assert found.rate.controlled is not None
    assert win_rate(run, BASELINE, TREATMENT, judge="z").estimate.value == pytest.approx(0.2)
    with pytest.raises(ValueError, match="two or more"):
        panel_win_rate(run, BASELINE, TREATMENT, judges=["x"])


def test_a_judge_that_never_gave_a_value_does_not_empty_the_panel() -> None:
    run = rated(rated(made_pairs(12), "one", ratings(1, 1)), "two", ratings(2, 1))
    whole = panel_judgements(run)
    silent = {arm: [None] * 12 for arm in (BASELINE, TREATMENT)}
    assert panel_judges(rated(run, "silent", silent), "kindness") == ["one", "two"]
    assert [one.value for one in panel_judgements(rated(run, "silent", silent))] == [one.value for one in whole]
