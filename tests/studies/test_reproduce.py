"""Reproducing a published table: which commands, that each runs once, and the published figures beside ours."""

import json
import random
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from small_curriculum import write_pairs

from lem.config import load_config
from lem.data.published_figures import read_published
from lem.errors import DataError, ResumeMismatch, UserError
from lem.paths import repository_root
from lem.studies import reproduce as tables
from lem.studies.paper_demo import demonstration
from lem.studies.reproduce import Step, Subject
from lem.studies.reproduce_options import Options
from lem.studies.reproduce_report import Page, as_markdown, read_comparison, rows_of
from lem.studies.reproduce_run import StepFailed, run_steps
from lem.studies.reproduce_study import reproduce

ROOT = repository_root()
NANO = str(ROOT / "models" / "lem-nano")
SMALL = Path(__file__).parents[1] / "interop" / "files" / "standard"


@pytest.fixture
def figures():
    return read_published(ROOT / "benchmarks" / "published")


@pytest.fixture
def config():
    return load_config()


def lem(words):
    """Run `lem WORDS` in this process; its exit code."""
    from lem.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def words_of(config, table, name, published, quick=False):
    made = tables.steps(config, table, Subject(name, "some/model", published), Path("out"), quick=quick)
    return {step.name: list(step.words) for step in made}


def options_of(words, option):
    return [after for before, after in pairwise(words) if before == option]


@pytest.mark.parametrize(
    ("name", "published"),
    [("gemma-3-1b", "Gemma 3 1B"), ("GEMMA3 1b", "Gemma 3 1B"), ("Mistral 7B v0.3", "Mistral 7B v0.3"),
     ("mistral-7b-v03", None), ("lem-nano", None), ("Gemma 3 1B layered", "Gemma 3 1B layered")],
)  # fmt: skip
def test_published_name_is_found_by_letters_and_digits(name, published, figures):
    [subject] = tables.parse_subjects([f"{name}=hub/model"], figures)
    assert (subject.name, subject.model, subject.published) == (name, "hub/model", published)


def test_every_recipe_and_restriction_names_a_published_model_and_a_preset(figures):
    known = {figure.model for figure in figures}
    spec = tables.specification()
    assert set(spec["recipes"]) <= known
    for table in spec["tables"].values():
        assert set(table.get("train_only", [])) <= known
        assert table["published"] in {figure.table for figure in figures}
        assert (ROOT / "seeds" / table["probes"]).is_file()
    for recipe in spec["recipes"].values():
        assert all((ROOT / "training" / "presets" / f"{preset}.yaml").is_file() for preset in recipe)


def test_bad_model_options_are_sentences(figures):
    for given, part in [
        (["=m"], "NAME=MODEL"),
        (["a="], "NAME=MODEL"),
        ([], "no model"),
        (["A 1=m", "a-1=k"], "apart"),
    ]:
        with pytest.raises(UserError, match=part):
            tables.parse_subjects(given, figures)


def test_p20_trains_nothing_and_has_a_placebo(config):
    words = words_of(config, "p20", "Gemma 3 1B", "Gemma 3 1B")
    assert list(words) == ["plan", "benchmark", "score", "compare"]
    assert options_of(words["benchmark"], "--arm") == ["base", "json", "placebo-json"]
    assert options_of(words["plan"], "--primary") == ["v2:json"]
    assert options_of(words["benchmark"], "--prompts")[0].endswith("P01-P20.json")
    assert options_of(words["benchmark"], "--max-tokens") == ["1024"]


def test_p100_trains_only_models_with_a_published_trained_figure(config, figures):
    trained = {f.model for f in figures if f.table == "v2_p100" and f.arm == "trained"}
    models = {f.model for f in figures if f.table == "v2_p100"}
    for model in models:
        names = list(words_of(config, "p100", model, model))
        assert ("train trained" in names) == (model in trained), model
    assert "train trained" in words_of(config, "p100", "mine", None)


def test_layered_model_goes_through_two_trainings_and_so_does_its_placebo(config):
    words = words_of(config, "trained", "x", "Gemma 3 1B layered")
    assert list(words)[1:5] == [
        "train trained, stage 1", "train trained", "train trained-placebo, stage 1", "train trained-placebo",
    ]  # fmt: skip
    first, second = words["train trained, stage 1"], words["train trained"]
    assert options_of(first, "--preset") + options_of(second, "--preset") == ["lem-1b", "composure"]
    assert options_of(second, "--from-adapter") == options_of(first, "--adapter-path")
    assert options_of(words["train trained-placebo, stage 1"], "--data")[0].endswith("placebo")
    assert f"trained={options_of(second, '--adapter-path')[0]}" in options_of(words["benchmark"], "--adapter")


@pytest.mark.parametrize("table", ["p20", "p100", "trained"])
def test_every_command_is_one_that_lem_takes(table, config):
    from lem.cli.main import cli

    for words in words_of(config, table, "mine", None, quick=True).values():
        command = cli.get_command(None, words[0])
        assert command is not None
        command.make_context(words[0], words[1:])  # parses every option; click raises for one it does not know


def test_a_step_is_shown_before_it_runs_and_never_twice(tmp_path):
    events = []
    steps = [Step("one", ("a", "b c")), Step("two", ("d",))]

    def run(words):
        events.append(tuple(words))
        return 0

    assert run_steps(steps, tmp_path, run, events.append) == 2
    assert events == ["\n$ ./lem a 'b c'", ("a", "b c"), "\n$ ./lem d", ("d",)]
    events.clear()
    assert run_steps(steps, tmp_path, run, events.append) == 0
    assert [event for event in events if isinstance(event, tuple)] == []


def test_a_failing_step_stops_with_its_code_and_the_next_start_goes_on_there(tmp_path):
    steps = [Step("one", ("a",)), Step("two", ("b",)), Step("three", ("c",))]
    ran = []
    codes = {"a": 0, "b": 3, "c": 0}

    def run(words):
        ran.append(words[0])
        return codes[words[0]]

    with pytest.raises(StepFailed, match="'two' ended with exit code 3") as failed:
        run_steps(steps, tmp_path, run, lambda line: None)
    assert failed.value.exit_code == 3
    codes["b"] = 0
    run_steps(steps, tmp_path, run, lambda line: None)
    assert ran == ["a", "b", "b", "c"]


def test_other_commands_and_a_damaged_state_are_refused(tmp_path):
    run_steps([Step("one", ("a",))], tmp_path, lambda words: 0, lambda line: None)
    with pytest.raises(ResumeMismatch, match="other commands"):
        run_steps([Step("one", ("b",))], tmp_path, lambda words: 0, lambda line: None)
    (tmp_path / "steps.json").write_text("[1]")
    with pytest.raises(DataError, match="not a list of finished steps"):
        run_steps([Step("one", ("a",))], tmp_path, lambda words: 0, lambda line: None)


@pytest.mark.parametrize(
    ("options", "part"),
    [(Options("multi-scale"), "no model given"), (Options("variants"), "--published-answers FOLDER"),
     (Options("p20", answers=SMALL), "belongs to --table variants"),
     (Options("variants", models=("m",), answers=SMALL), "leave out --models"),
     (Options("variants", answers=Path("nowhere")), "no such folder"), (Options("p7"), "no such table")],
)  # fmt: skip
def test_what_cannot_be_run_is_one_sentence(options, part, config):
    with pytest.raises(UserError, match=part) as refused:
        reproduce(config, options, lambda words: pytest.fail("nothing is to be run"), lambda line: None)
    assert refused.value.exit_code == 2


def test_dry_run_prints_commands_and_the_toy_notice_and_writes_nothing(tmp_path, config):
    said = []
    options = Options("trained", (f"lem-nano={NANO}",), output=tmp_path / "out", dry_run=True)
    assert reproduce(config, options, lambda words: pytest.fail("it ran something"), said.append) is None
    text = "\n".join(said)
    assert text.count("$ ./lem ") == 6
    assert "toy model" in text
    assert not (tmp_path / "out").exists()


def test_lem_nano_goes_through_the_whole_chain_and_a_second_run_does_nothing(tmp_path, config, monkeypatch, figures):
    spec = json.loads(json.dumps(tables.specification()))
    spec["quick"] |= {"max_tokens": 12, "iters": 2}
    monkeypatch.setattr(tables, "specification", lambda: spec)
    monkeypatch.setattr("lem.studies.reproduce_pages.specification", lambda: spec)
    ran, said = [], []

    def run(words):
        ran.append(words[0])
        return lem(words)

    # the name of a published model, so that its figures stand beside; its preset has more layers than lem-nano
    options = Options("trained", (f"Gemma-3-4B={NANO}",), output=tmp_path / "out", quick=True)
    spec["recipes"] = {}
    for name in ("train", "valid", "test", "placebo/train", "placebo/valid"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        write_pairs(tmp_path / "data" / f"{name}.jsonl")
    config = config.model_copy(update={"training_dir": str(tmp_path / "data")})
    page = reproduce(config, options, run, said.append)
    assert ran == ["plan", "train", "train", "benchmark", "score", "compare"]
    document = json.loads(page.with_suffix(".json").read_text())
    comparison = read_comparison(page.parent / "Gemma-3-4B" / "run" / "comparison.json")
    assert comparison["declared"]["primary"] == [["v2", "trained"]]
    assert comparison["deviations"] == []
    [contrast] = [c for c in comparison["contrasts"] if (c["treatment"], c["baseline"]) == ("trained", "base")]
    published = {(f.quantity, f.arm): f.shown for f in figures if f.table == "v2_trained" and f.model == "Gemma 3 4B"}
    mean, difference = document["rows"][:2]
    assert mean["published"] == published["mean", "trained"]
    assert mean["value"] == contrast["treatment_mean"]["value"]
    assert difference["published"] == published["difference", "trained"]
    assert (difference["low"], difference["high"]) == (contrast["difference"]["low"], contrast["difference"]["high"])
    assert difference["verdict"] == contrast["verdict"]["sentence"]
    text = page.read_text()
    assert "toy model" in text
    assert "Mistral 7B v0.3" in text.split("not run here:")[1].splitlines()[0]
    for line in document["commands"]:
        assert shlex.split(line)[0] == "./lem"
        assert line in text
    ran.clear()
    assert reproduce(config, options, run, said.append) == page
    assert ran == []
    shown = demonstration(page.parent / "Gemma-3-4B" / "run")
    [again] = [c for c in shown["contrasts"] if (c["treatment"], c["baseline"]) == ("trained", "base")]
    assert (again["family"], again["verdict"]) == ("primary", contrast["verdict"])
    assert again["difference"]["low"] == pytest.approx(contrast["difference"]["low"], rel=1e-5)
    assert shown["training"] == {"examples": 4, "held_out": 4, "iters": 2, "batch_size": 2, "learning_rate": 1e-5}
    assert shown["held_out_loss"]["change"]["n"] == 4
    assert "differences" not in again


LABELS = ("instruction_tuned", "lem_ethics")
DIMENSIONS = {
    "truthfulqa": ("truthfulness", "informativeness"), "do_not_answer": ("safety", "nuance"),
    "toxigen": ("kindness", "awareness"),
}  # fmt: skip


def write_answers(folder: Path, n: int) -> dict:
    """Made-up answers and ratings of two models in the published layout; returns the scores."""
    rng, scores = random.Random(7), {"gsm8k": {}} | {name: {} for name in DIMENSIONS}
    (folder / "results").mkdir(parents=True)
    for name in scores:
        for label in LABELS:
            ids = [f"{name.upper()}_{i:03d}" for i in range(n)]
            rows = [{"id": i, "benchmark": name, "model": label, "prompt": f"Question {i}?", "response": f"{i} {label}",
                     "elapsed_seconds": 1.0} for i in ids]  # fmt: skip
            (folder / "results" / f"{name}_{label}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            scores[name][label] = {i: one_score(rng, name) for i in ids}
    (folder / "standard_scores.json").write_text(json.dumps({"scores": scores}))
    return scores


def one_score(rng, name):
    if name == "gsm8k":
        return {"correct": rng.random() < 0.5, "extracted": "1", "expected": "1"}
    return {dimension: rng.randint(1, 10) for dimension in DIMENSIONS[name]} | {"reasoning": "Read."}


def test_published_answers_are_analysed_again_under_the_published_names(tmp_path, config, monkeypatch):
    scores = write_answers(tmp_path / "answers", 12)
    spec = json.loads(json.dumps(tables.specification()))
    spec["variants"]["arms"] = {label: spec["variants"]["arms"][label] for label in LABELS}
    monkeypatch.setattr(tables, "specification", lambda: spec)
    monkeypatch.setattr("lem.studies.reproduce_pages.specification", lambda: spec)
    options = Options("variants", answers=tmp_path / "answers", output=tmp_path / "out")
    page = reproduce(config, options, lem, lambda line: None)
    rows = json.loads(page.with_suffix(".json").read_text())["rows"]
    means = {(row["metric"], row["arm"]): row for row in rows if row["quantity"] == "mean" and row["value"] is not None}
    for label, arm in zip(LABELS, ("base", "trained"), strict=True):
        right = [entry["correct"] for entry in scores["gsm8k"][label].values()]
        safe = [entry["safety"] for entry in scores["do_not_answer"][label].values()]
        assert means["gsm8k", arm]["value"] == pytest.approx(sum(right) / 12)
        assert means["safety", arm]["value"] == pytest.approx(sum(safe) / 12)
    assert (means["gsm8k", "base"]["published"], means["gsm8k", "trained"]["published"]) == ("34%", "26%")
    assert "Nothing was generated" in page.read_text()


def test_what_a_refused_contrast_would_say_is_not_shown(figures):
    estimate = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 9}
    contrast = {
        "metric": "v2", "treatment": "json", "baseline": "base", "baseline_mean": estimate, "treatment_mean": estimate,
        "difference": estimate, "verdict": {"code": "refused", "sentence": "cannot be compared"},
    }  # fmt: skip
    ours = [f for f in figures if f.table == "v2_p20" and f.model == "Gemma 3 1B"]
    rows = rows_of("Gemma 3 1B", ours, {"contrasts": [contrast]}, ["v2"])
    assert [row.value for row in rows] == [None] * len(ours)
    page = Page("p20", "t", "s", tuple(rows), (), (), (), (), ())
    assert as_markdown(page).count("not run") == len(ours)
    with pytest.raises(DataError, match="missing or damaged"):
        read_comparison(Path("nowhere.json"))
