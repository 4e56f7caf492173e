"""Published tables on the standard benchmarks: which commands, judges as steps of their own, what the page says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from small_curriculum import write_pairs

from lem.ab.compare import compare
from lem.ab.comparison_file import to_json, write_comparison
from lem.config import Config, load_config
from lem.data.published_figures import PublishedFigure, read_published
from lem.errors import UserError
from lem.paths import repository_root
from lem.records import Judgement, RunContents
from lem.studies.reproduce import Subject, specification
from lem.studies.reproduce_options import Extras, Options
from lem.studies.reproduce_run import StepFailed
from lem.studies.reproduce_standard import standard_steps
from lem.studies.reproduce_standard_report import findings
from lem.studies.reproduce_study import reproduce
from made_runs import made_run, save

ROOT = repository_root()
NANO = str(ROOT / "models" / "lem-nano")
NOTHING = Extras()
JUDGED = {"truthfulness", "safety", "nuance", "kindness"}


@pytest.fixture
def config() -> Config:
    return load_config()


@pytest.fixture
def figures() -> list[PublishedFigure]:
    return read_published(ROOT / "benchmarks" / "published")


def words_of(config: Config, table: str, published: str | None, extras: Extras = NOTHING) -> dict[str, list[str]]:
    subject = Subject(published or "mine", "some/model", published)
    made = standard_steps(config, table, subject, Path("out"), extras, quick=True)
    return {step.name: list(step.words) for step in made}


def options_of(words: list[str], option: str) -> list[str]:
    return [after for before, after in pairwise(words) if before == option]


def lem(words: Any) -> int:
    """Run `lem WORDS` in this process; its exit code."""
    from lem.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_every_published_arm_and_metric_of_the_tables_is_made_or_can_be_given(
    config: Config, figures: list[PublishedFigure]
) -> None:
    wanted = specification()["standard"]
    metrics = {*wanted["by_rule"].values(), *wanted["judged"]}
    for table, spec in specification()["standard_tables"].items():
        published = [figure for figure in figures if figure.table == spec["published"]]
        words = words_of(config, table, "Gemma 3 1B")["eval"]
        made = {"base", *(text.partition("=")[0] for text in options_of(words, "--adapter"))}
        assert {figure.arm for figure in published} - made <= {"abliterated"}
        assert {figure.metric for figure in published} <= metrics
        assert {figure.benchmark for figure in published} <= set(words)


def test_composure_goes_on_from_the_adapter_before_it_and_so_does_its_placebo(config: Config) -> None:
    words = words_of(config, "variants", "Gemma 3 1B")
    for arm in ("trained", "trained-placebo"):
        first, second = words[f"train {arm}"], words[f"train {arm.replace('trained', 'trained+composure')}"]
        assert options_of(first, "--preset") + options_of(second, "--preset") == ["lem-1b", "composure"]
        assert options_of(second, "--from-adapter") == options_of(first, "--adapter-path")
        assert options_of(second, "--adapter-path") != options_of(first, "--adapter-path")
    assert options_of(words["train trained-placebo"], "--data")[0].endswith("placebo")
    assert not any("composure" in name for name in words_of(config, "multi-scale", "Gemma 3 1B"))
    layers = options_of(words_of(config, "variants", None)["train trained+composure"], "--num-layers")
    assert layers == [str(config.training.num_layers)]  # those of the adapter that it goes on from


def test_a_judge_adds_its_step_and_changes_no_other(config: Config) -> None:
    bare = words_of(config, "multi-scale", "Gemma 3 4B")
    extras = Extras(("mlx:a/one", "other=gemini:m"), allow_self_judge=True)
    judged = words_of(config, "multi-scale", "Gemma 3 4B", extras)
    assert list(judged) == [*list(bare)[:-1], "judge one", "judge other", "compare"]
    assert {name: judged[name] for name in bare} == bare
    assert judged["judge other"] == ["judge", "grade", "out/run", "--judge", "other=gemini:m", "--allow-self-judge"]


@pytest.mark.parametrize("table", ["variants", "multi-scale"])
def test_every_command_is_one_that_lem_takes(table: str, config: Config) -> None:
    from lem.cli.main import cli

    extras = Extras(
        ("mlx:a/one",), True, ("toxigen=hub", "some/folder"), ("abliterated=another/model",), 2.5, "prices.yaml"
    )
    for words in words_of(config, table, None, extras).values():
        command, rest = cli.get_command(None, words[0]), words[1:]  # type: ignore[arg-type]
        if words[0] == "judge":
            command, rest = command.commands[rest[0]], rest[1:]  # type: ignore[union-attr]
        assert command is not None
        command.make_context(words[0], list(rest))  # parses every option; click raises for one it does not know


@pytest.mark.parametrize(
    ("options", "part"),
    [(Options("p20", ("m",), extras=Extras(judges=("gemini",))), "belong to the tables variants, multi-scale"),
     (Options("variants", answers=ROOT, extras=Extras(judges=("gemini",))), "leave out"),
     (Options("variants", ("m",), extras=Extras(judges=("mlx:a", "mlx:b/a"))), "two judges are named 'a'"),
     (Options("variants", ("m",), extras=Extras(judges=("oracle",))), "no judge of this form"),
     (Options("variants", ("m",), extras=Extras(judges=("mlx:nowhere/at-all",))), "nowhere/at-all"),
     (Options("variants", ("m",), extras=Extras(judges=("openai:m@http://127.0.0.1:9",), max_cost=1.0)),
      "needs the judge's price"),
     (Options("variants", ("m",), extras=Extras(variants=("folder",))), "write NAME=MODEL"),
     (Options("variants", ("m",), extras=Extras(variants=("trained=folder",))), "an arm 'trained' already"),
     (Options("variants", ("m", "k"), extras=Extras(variants=("x=folder",))), "--models names several")],
)  # fmt: skip
def test_what_cannot_be_run_is_one_sentence(options: Options, part: str, config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=part) as refused:
        reproduce(config, replace(options, output=tmp_path), lambda words: pytest.fail("it ran"), lambda line: None)
    assert refused.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_judge_of_the_models_lineage_is_refused_before_anything_is_trained(config: Config, tmp_path: Path) -> None:
    options = Options("multi-scale", (f"x={NANO}",), output=tmp_path, quick=True, extras=Extras((f"mlx:{NANO}",)))
    with pytest.raises(UserError, match="one lineage with arm 'base'"):
        reproduce(config, options, lambda words: pytest.fail("it ran"), lambda line: None)
    allowed = replace(options, extras=replace(options.extras, allow_self_judge=True))
    with pytest.raises(StepFailed, match="'train trained' ended with exit code 7"):
        reproduce(config, allowed, lambda words: 7, lambda line: None)


def read_rows(page: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(page.with_suffix(".json").read_text())["rows"]
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def change(rows: list[dict[str, Any]], value: str, **fields: str) -> float:
    """The mean over items of trained minus base, longhand."""
    kept = [row for row in rows if all(row[name] == wanted for name, wanted in fields.items())]
    ours, base = ({row["probe_id"]: row[value] for row in kept if row["arm"] == arm} for arm in ("trained", "base"))
    differences = [ours[item] - base[item] for item in base]
    return sum(differences) / len(differences)


def test_answers_are_made_once_and_a_judge_that_comes_later_rates_them(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, figures: list[PublishedFigure]
) -> None:
    monkeypatch.setitem(specification()["standard"], "quick", {"limit": 2, "max_tokens": 8})
    monkeypatch.setitem(specification()["quick"], "iters", 2)
    monkeypatch.setitem(specification(), "recipes", {})
    for name in ("train", "valid", "test", "placebo/train", "placebo/valid"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        write_pairs(tmp_path / "data" / f"{name}.jsonl")
    config = config.model_copy(update={"training_dir": str(tmp_path / "data")})
    ran: list[str] = []

    def run(words: Any) -> int:
        ran.append(words[0])
        return lem([*words, "--together", "--no-rationale"] if words[0] == "judge" else words)

    options = Options("multi-scale", (f"Gemma 3 4B={NANO}",), output=tmp_path / "out", quick=True)
    page = reproduce(config, options, run, lambda line: None)
    assert page is not None
    assert ran == ["train", "train", "eval", "compare"]
    rows = read_rows(page)
    assert {row["metric"] for row in rows if row["absent"] == "not judged"} == JUDGED - {"truthfulness"}
    scores = read_lines(page.parent / "Gemma-3-4B" / "run" / "scores" / "gsm8k_flexible.jsonl")
    assert (rows[0]["metric"], rows[0]["arm"], rows[0]["published"]) == ("gsm8k", "trained", "-4%")
    assert rows[0]["value"] == pytest.approx(change(scores, "value"))
    assert "| +0.04 (n 50) | not judged | - |" in page.read_text()

    ran.clear()
    judged = replace(options, extras=Extras((f"mlx:{NANO}",), allow_self_judge=True))
    page = reproduce(config, judged, run, lambda line: None)
    assert page is not None
    assert ran == ["judge", "compare"]
    ratings = read_lines(page.parent / "Gemma-3-4B" / "run" / "judgements" / "lem-nano.jsonl")
    found = {(row["metric"], row["arm"], row["baseline"]): row for row in read_rows(page)}
    for figure in figures:
        if (figure.table, figure.model) == ("multi_scale", "Gemma 3 4B") and figure.metric in JUDGED:
            row = found[figure.metric, "trained", "base"]
            assert (row["published"], row["judge"], row["mark"]) == (figure.shown, "lem-nano", "SELF-JUDGED")
            assert row["value"] == pytest.approx(change(ratings, "value", dimension=figure.metric))
            assert row["low"] <= row["value"] <= row["high"]
    assert found["truthfulness", "trained", "base"]["published"] == ""
    text = page.read_text()
    assert "**SELF-JUDGED: the judge lem-nano is of one lineage with arms base" in text
    assert "toy model" in text
    ran.clear()
    assert reproduce(config, judged, run, lambda line: None) == page
    assert ran == []


@pytest.fixture
def rated(tmp_path: Path) -> Callable[..., Path]:
    """A made-up run of base and trained over five items with ratings by judge and dimension, and its comparison."""

    def make(ratings: dict[tuple[str, str], dict[str, list[float | None]]]) -> Path:
        shares: dict[str, list[Any]] = {"base": [0, 1, 0, 1, 1], "trained": [1, 1, 0, 1, 1]}
        run = made_run(shares, scorer="gsm8k_flexible")
        run = replace(run, info=replace(run.info, kind="eval"))
        rows = [
            Judgement(arm, f"P{i:03d}", 0, judge, dimension, value, low=1.0, high=10.0,
                      unscored=None if value is not None else "blocked")
            for (judge, dimension), columns in ratings.items() for arm, column in columns.items()
            for i, value in enumerate(column)
        ]  # fmt: skip
        whole = RunContents(run.info, run.records, run.scores, rows)
        path = save(whole, tmp_path / "run")
        write_comparison(to_json(compare(whole), [], ["lem"]), path / "comparison.json")
        return path

    return make


def test_each_judge_has_rows_and_the_panel_has_none(rated: Callable[..., Path], figures: list[PublishedFigure]) -> None:
    low: list[float | None] = [2.0, 3.0, 4.0, 2.0, 3.0]
    high: list[float | None] = [4.0, 3.0, 8.0, 9.0, 6.0]
    columns = {"base": low, "trained": high}
    run = rated({("a", "safety"): columns, ("b", "safety"): columns, ("panel", "safety"): columns})
    ours = [figure for figure in figures if figure.table == "variants_1b"]
    found = findings("Gemma 3 1B", ours, run)
    assert found.judges == ("a", "b")
    rows = {(row.judge, row.arm): row for row in found.rows if row.metric == "safety" and row.quantity == "mean"}
    assert {judge for judge, _ in rows} == {"a", "b"}
    assert (rows["b", "base"].value, rows["b", "trained"].value) == pytest.approx((2.8, 6.0))
    assert (rows["a", "base"].published, rows["a", "trained"].published) == ("8.74", "8.58")
    assert (rows["a", "abliterated"].value, rows["a", "abliterated"].absent) == (None, "")
    shares = {row.arm: row for row in found.rows if row.metric == "gsm8k" and row.quantity == "mean"}
    assert (shares["base"].value, shares["trained"].value, shares["base"].percent) == (0.6, 0.8, True)


def test_ratings_that_failed_are_counted_and_never_a_value(
    rated: Callable[..., Path], figures: list[PublishedFigure]
) -> None:
    some: list[float | None] = [None, 5.0, 6.0, 7.0, None]
    none: list[float | None] = [None] * 5
    columns = {"base": [4.0, 5.0, 6.0, 7.0, 8.0], "trained": some}
    run = rated({("a", "safety"): columns, ("a", "nuance"): {"base": none, "trained": none}})
    ours = [figure for figure in figures if (figure.table, figure.model) == ("multi_scale", "Gemma 3 1B")]
    found = findings("Gemma 3 1B", ours, run)
    rows = {row.metric: row for row in found.rows}
    assert (rows["safety"].value, rows["safety"].n) == (0.0, 3)
    assert (rows["nuance"].value, rows["nuance"].absent) == (None, "withheld")
    assert "unscored by a, safety: base 0, trained 2." in found.objections
    assert "unscored by a, nuance: base 5, trained 5." in found.objections


def test_a_model_without_published_figures_says_what_was_not_judged(rated: Callable[..., Path]) -> None:
    found = findings("mine", [], rated({}))
    unjudged = {(row.arm, row.metric) for row in found.rows if row.absent == "not judged"}
    assert unjudged == {(arm, metric) for arm in ("base", "trained") for metric in JUDGED}
    assert all(row.value is None for row in found.rows if row.absent)
    [share] = [row for row in found.rows if (row.metric, row.arm, row.quantity) == ("gsm8k", "trained", "mean")]
    assert (share.value, share.percent) == (0.8, True)
