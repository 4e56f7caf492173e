"""The recipe: wrong values are refused in one sentence, layers override each other, alpha is scale times rank."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import UserError
from lem.training.settings import TrainingSettings, as_json, make_settings, read_preset

NAN, INFINITE = float("nan"), float("inf")
WRONG: dict[str, list[Any]] = {
    "method": ["sgd", "LoRA", "", None, 1],
    "schedule": ["wavy", None],
    "format": ["chat", None],
    "too_long": ["cut", True],
    "learning_rate": [0, -1e-5, 2, NAN, INFINITE, "fast", None, True],
    "warmup": [-0.1, 1.1, NAN, "a", None, True],
    "weight_decay": [-1, 2, NAN, None],
    "grad_clip": [0, -1, INFINITE, NAN, None],
    "scale": [0, -2, INFINITE, NAN, None],
    "dropout": [1, -0.1, 1.5, NAN, None],
    "num_layers": [0, -2, 1.5, "all", None, True, -1.0],
    "epochs": [0, -1, 1.5, True, "2"],
    "targets": [None, 3, "q_proj", ["q_proj"], (1,), ("",)],
    **{
        name: [-1, 1.5, True, "2", None, NAN]
        for name in (
            "iters", "batch_size", "accumulation", "rank", "max_seq_length", "save_every", "report_every",
            "validate_every", "eval_every", "patience", "seed",
        )
    },
    **{name: [0, 1, "yes", None] for name in ("bias_correction", "mask_prompt", "pack", "grad_checkpoint")},
}  # fmt: skip
EDGES: dict[str, list[Any]] = {
    "learning_rate": [1e-12, 1, 1.0], "warmup": [0, 0.5, 1.0], "weight_decay": [0, 1], "grad_clip": [1e-6, 1e6],
    "scale": [0.5, 10000], "dropout": [0, 0.999], "num_layers": [-1, 1, 999], "epochs": [None, 1], "iters": [1],
    "eval_every": [0], "patience": [0], "seed": [0, 2**40], "targets": [(), ("q_proj",)],
}  # fmt: skip


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and not re.search(r"[.!?] [A-Z]", text) and "\n" not in text


def test_every_setting_has_a_wrong_value_here() -> None:
    assert set(WRONG) == {field.name for field in fields(TrainingSettings)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_sentence_that_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^{name} must be ") as caught:
        TrainingSettings(**{name: value})
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize("name", ["iters", "batch_size", "accumulation", "rank", "max_seq_length", "save_every"])
def test_counts_begin_at_one(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name} must be a whole number of at least 1 \(got 0\)\.$"):
        TrainingSettings(**{name: 0})
    assert getattr(TrainingSettings(**{name: 1}), name) == 1


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in EDGES.items() for value in values])
def test_the_edges_are_allowed(name: str, value: Any) -> None:
    assert getattr(TrainingSettings(**{name: value}), name) == value


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^the file: unknown setting 'learning-rate'; known ones are ") as caught:
        make_settings({"learning-rate": 1e-4}, where="the file")
    for field in fields(TrainingSettings):
        assert field.name in str(caught.value)
    assert str(caught.value).endswith(", alpha.")


def test_a_wrong_value_in_a_layer_names_the_file() -> None:
    for layer in ({"rank": 0}, {"alpha": -1}, {"learning_rate": "fast"}, {"targets": "q_proj"}):
        with pytest.raises(UserError, match=rf"^the file: {next(iter(layer))} must be ") as caught:
            make_settings(layer, where="the file")
        assert is_one_sentence(str(caught.value))


def test_later_layers_win() -> None:
    settings = make_settings({"rank": 4, "iters": 10}, {"rank": 16, "dropout": 0.1}, {"dropout": 0.2})
    assert (settings.rank, settings.iters, settings.dropout) == (16, 10, 0.2)
    assert make_settings() == TrainingSettings()


@pytest.mark.parametrize(
    ("layers", "scale"),
    [
        ([{"alpha": 128, "rank": 64}], 2.0),
        ([{"alpha": 16}], 2.0),  # by the default rank, 8
        ([{"alpha": 128, "rank": 64}, {"rank": 32}], 4.0),
        ([{"scale": 20.0}, {"alpha": 4}], 0.5),
        ([{"alpha": 4}, {"scale": 20.0}], 20.0),
        ([{"alpha": 4}, {"scale": 20.0}, {"alpha": 8}], 1.0),
        ([{"alpha": "1e1", "rank": 5}], 2.0),
    ],
)
def test_alpha_becomes_scale_by_the_final_rank(layers: list[dict[str, Any]], scale: float) -> None:
    assert make_settings(*layers).scale == scale


def test_alpha_and_scale_together_are_refused() -> None:
    with pytest.raises(UserError, match=r"^give alpha or scale, not both \(scale = alpha / rank\)\.$"):
        make_settings({"alpha": 4, "scale": 2})


@pytest.mark.parametrize("alpha", [0, -1, NAN, None, True, "many"])
def test_a_wrong_alpha_is_named_as_such(alpha: Any) -> None:
    with pytest.raises(UserError, match="alpha must be a number above 0"):
        make_settings({"alpha": alpha})


@pytest.mark.parametrize("rank", [0, None, "8", 2.0])
def test_a_wrong_rank_is_named_also_with_alpha(rank: Any) -> None:
    with pytest.raises(UserError, match="rank must be a whole number of at least 1"):
        make_settings({"alpha": 4, "rank": rank})


def test_iterations_of_a_later_layer_replace_the_epochs_of_an_earlier_one() -> None:
    assert make_settings({"epochs": 3}, {"iters": 5}).epochs is None
    assert make_settings({"iters": 5}, {"epochs": 3}).epochs == 3
    assert make_settings({"epochs": 3, "iters": 5}).epochs == 3


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    settings = make_settings({"learning_rate": "1e-5", "scale": "2e0"})
    assert (settings.learning_rate, settings.scale) == (1e-5, 2.0)
    with pytest.raises(UserError, match=r"iters must be a whole number of at least 1 \(got '1e3'\)"):
        make_settings({"iters": "1e3"})


def test_the_identity_is_everything_but_the_intervals_of_what_is_written() -> None:
    settings = TrainingSettings(dropout=0.1)
    assert set(as_json(settings)) - set(settings.identity) == {"save_every", "report_every", "eval_every"}
    assert replace(settings, save_every=7, report_every=3, eval_every=9).identity == settings.identity
    for name, value in (("iters", 201), ("seed", 1), ("rank", 9), ("patience", 1), ("warmup", 0.1), ("pack", True)):
        assert replace(settings, **{name: value}).identity != settings.identity
    several = TrainingSettings(targets=("q_proj", "v_proj"))
    assert json.loads(json.dumps(several.identity)) == several.identity


def preset(folder: Path, text: str, name: str = "mine") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)
    return folder


GOOD = "description: d\nsource: s\ndeviations: []\n"


def test_a_preset_is_read_by_name_or_by_path(tmp_path: Path) -> None:
    folder = preset(tmp_path / "p", GOOD + "settings: {rank: 4, alpha: 8}\n")
    for name in ("mine", str(folder / "mine.yaml")):
        found = read_preset(name, folder)
        assert (found.name, found.description, found.source, found.deviations) == ("mine", "d", "s", ())
        assert make_settings(found.settings).scale == 2.0


def test_a_missing_preset_lists_those_there_are(tmp_path: Path) -> None:
    preset(preset(tmp_path / "p", GOOD, "a"), GOOD, "b")
    with pytest.raises(UserError, match=r"^c: no such preset; .* has a, b\.$"):
        read_preset("c", tmp_path / "p")
    with pytest.raises(UserError, match=r"has none\.$"):
        read_preset("c", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "not valid YAML"),
        ("just text", "a preset has the keys"),
        (GOOD, "a preset has the keys"),
        (GOOD + "settings: [rank]\n", "with settings as a mapping"),
        (GOOD + "settings: {}\nextra: 1\n", "a preset has the keys"),
        (GOOD + "settings: {rang: 4}\n", "unknown setting 'rang'"),
        (GOOD + "settings: {rank: 0}\n", "mine.yaml: rank must be a whole number"),
        (GOOD + "settings: {targets: q_proj}\n", "targets must be a list"),
        ("description: d\nsource: s\ndeviations: one\nsettings: {}\n", "deviations must be a list of sentences"),
    ],
)
def test_a_malformed_preset_is_one_sentence_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    folder = preset(tmp_path / "p", text)
    with pytest.raises(UserError, match=message) as caught:
        read_preset("mine", folder)
    assert str(folder / "mine.yaml") in str(caught.value)
    assert is_one_sentence(str(caught.value).replace(str(folder), ""))


def test_a_preset_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00rank")
    with pytest.raises(UserError, match="not valid YAML"):
        read_preset("mine", tmp_path)


def test_checkpointed_gradients_are_no_other_training_unless_there_is_dropout() -> None:
    plain, dropping = TrainingSettings(), TrainingSettings(dropout=0.1)
    assert replace(plain, grad_checkpoint=True).identity == plain.identity
    assert replace(dropping, grad_checkpoint=True).identity != dropping.identity
