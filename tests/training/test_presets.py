"""The presets carry the published figures: compared with a table copied from the specifications, not from the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lem.chat.load import load
from lem.cli.main import cli
from lem.errors import UserError
from lem.paths import repository_root
from lem.training.schedule import learning_rate, make_optimizer
from lem.training.settings import TrainingSettings, make_settings, read_preset
from tiny import make_model

FOLDER = repository_root() / "training" / "presets"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

# 200 iterations, batch 2, 1e-5, 2048 tokens, save 50, prompt masked; rank 8, scale 20, 16 layers, Adam as mlx-lm's.
LEM = {
    "method": "lora", "iters": 200, "batch_size": 2, "accumulation": 1, "learning_rate": 1e-5, "schedule": "constant",
    "warmup": 0, "bias_correction": False, "weight_decay": 0, "num_layers": 16, "rank": 8, "scale": 20, "dropout": 0,
    "max_seq_length": 2048, "mask_prompt": True, "pack": False, "grad_checkpoint": False, "save_every": 50,
}  # fmt: skip
ALL_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NO_GATE = [name for name in ALL_SEVEN if name != "gate_proj"]
KE_8B = {
    "method": "qlora", "epochs": 3, "batch_size": 2, "accumulation": 8, "learning_rate": 2e-4, "schedule": "cosine",
    "warmup": 0.03, "bias_correction": True, "weight_decay": 0.01, "grad_clip": 0.3, "num_layers": -1, "rank": 64,
    "scale": 2.0, "dropout": 0.05, "targets": ALL_SEVEN, "max_seq_length": 4096, "mask_prompt": True, "pack": False,
    "grad_checkpoint": True, "save_every": 50, "report_every": 5,
}  # fmt: skip
EXPECTED: dict[str, dict[str, Any]] = {
    "lem-1b": LEM,
    "lem-4b": LEM,
    "lem-12b": {**LEM, "grad_checkpoint": True},
    "lem-27b": {**LEM, "grad_checkpoint": True, "batch_size": 1, "learning_rate": 5e-6},
    "lem-cross": LEM,
    "composure": {**LEM, "iters": 12, "learning_rate": 5e-6, "save_every": 6},
    "karma-electric": KE_8B,
    "karma-electric-r1-distill-qwen": KE_8B,
    "karma-electric-apertus-8b-stage1": {
        **KE_8B, "batch_size": 1, "accumulation": 16, "warmup": 0.05, "targets": NO_GATE,
    },
    "karma-electric-apertus-8b-stage2": {**KE_8B, "learning_rate": 1e-4, "targets": NO_GATE},
    "karma-electric-apertus-70b-rl-sft": {
        **KE_8B, "max_seq_length": 2048, "epochs": 1, "batch_size": 1, "accumulation": 16, "learning_rate": 1e-4,
        "targets": NO_GATE,
    },
    "karma-electric-70b-tools": {
        **KE_8B, "epochs": 2, "batch_size": 1, "accumulation": 8, "learning_rate": 5e-5, "warmup": 0.05,
        "targets": NO_GATE,
    },
    "karma-electric-equanimity-qwen3-4b": {
        **KE_8B, "epochs": 5, "rank": 16, "max_seq_length": 2048,
    },
}  # fmt: skip


def test_the_table_and_the_folder_name_the_same_presets() -> None:
    assert sorted(EXPECTED) == NAMES
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in readme for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_the_published_figures(name: str) -> None:
    settings = make_settings(read_preset(name, FOLDER).settings)
    for setting, value in EXPECTED[name].items():
        found = getattr(settings, setting)
        assert (list(found) if setting == "targets" else found) == value, setting
    if name.startswith("karma-electric"):
        assert settings.scale * settings.rank == {16: 32, 64: 128}[settings.rank]  # alpha


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_leaves_nothing_that_shapes_the_result_to_the_configuration(name: str) -> None:
    """A changed default or lem.config.json must not change what a preset trains."""
    given = set(read_preset(name, FOLDER).settings)
    free = {"iters", "epochs", "scale", "alpha", "seed", "format", "too_long", "targets", "patience", "eval_every"}
    intervals = {"save_every", "report_every", "validate_every"}
    assert set(TrainingSettings.__dataclass_fields__) - free - intervals <= given
    assert len(given & {"iters", "epochs"}) == 1
    assert len(given & {"scale", "alpha"}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_and_what_is_not_as_published(name: str) -> None:
    raw = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    sentences = [raw["description"], raw["source"], *raw["deviations"]]
    assert raw["deviations"]
    for sentence in sentences:
        assert isinstance(sentence, str), sentence  # a colon would have made it a mapping
        assert sentence.endswith("."), sentence


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("lem-")])
def test_the_published_recipe_takes_mlx_lms_first_step(name: str, tmp_path: Path) -> None:
    """m = 0.1 g and v = 0.001 g^2 without bias correction: a first step of 0.1 / sqrt(0.001) learning rates."""
    import mlx.core as mx

    settings = make_settings(read_preset(name, FOLDER).settings)
    weights = {"w": mx.array([0.0])}
    moved = make_optimizer(settings).apply_gradients({"w": mx.array([250.0])}, weights)["w"].item()
    assert moved == pytest.approx(-settings.learning_rate * 0.1 / 0.001**0.5, rel=1e-4)
    assert learning_rate(settings, 1, 200) == learning_rate(settings, 200, 200) == settings.learning_rate
    assert settings.grad_clip == 1e6  # the published loop clips nothing


def test_the_composure_preset_is_phase_1_of_the_curriculum_and_fits_behind_the_kernel_set() -> None:
    curriculum = yaml.safe_load((FOLDER.parent / "curriculum.yaml").read_text(encoding="utf-8"))
    zen = next(phase for phase in curriculum["phases"] if phase["number"] == 1)
    settings = make_settings(read_preset("composure", FOLDER).settings)
    ours = make_settings(curriculum["settings"], zen["settings"])
    assert (settings.iters, settings.learning_rate) == (ours.iters, ours.learning_rate)
    first = make_settings(read_preset("lem-1b", FOLDER).settings)
    for name in ("method", "num_layers", "rank", "scale", "targets"):
        assert getattr(settings, name) == getattr(first, name)


def test_an_option_overrides_a_preset_and_a_preset_the_defaults() -> None:
    published = read_preset("karma-electric", FOLDER).settings
    defaults = {"iters": 200, "scale": 20.0, "rank": 8, "learning_rate": 1e-5}
    assert make_settings(defaults, published).epochs == 3
    assert make_settings(defaults, published, {"iters": 7}).epochs is None
    assert make_settings(defaults, published, {"scale": 5.0}).scale == 5.0
    assert make_settings(defaults, published, {"rank": 32}).scale == 4.0  # alpha stays 128


def test_an_unknown_preset_and_a_broken_one_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope: no such preset; .* has composure, karma-electric, "):
        read_preset("nope", FOLDER)
    path = tmp_path / "mine.yaml"
    head = "description: d\nsource: s\ndeviations: []\n"
    for text, said in (
        (head + "settings: {rnak: 8}\n", "unknown setting 'rnak'; known ones are accumulation, "),
        (head, "has the keys description, deviations, settings, source"),
        (head + "settings: {schedule: wavy}\n", "schedule must be one of constant, linear, cosine"),
        (head + "settings: {rank: 8, alpha: 16, scale: 2}\n", "give alpha or scale, not both"),
        ("settings: [\n", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_preset(str(path), FOLDER)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_takes_every_preset(name: str, tmp_path: Path) -> None:
    """The tiny Llama has all seven projections, so the targets of every preset exist."""
    base = make_model(tmp_path / "tiny-llama", "llama", layers=2)
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Aye."}]}) + "\n"
    )
    words = ["train", "--preset", name, "--dry-run", "--model", str(base), "--data", str(data), "--json"]
    if EXPECTED[name]["method"] == "qlora":
        refused = CliRunner().invoke(cli, words)
        assert "--method qlora needs a quantised base" in str(refused.exception)
        words += ["--method", "lora"]
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 0, found.exception
    report = json.loads(found.stdout)
    assert report["settings"]["rank"] == EXPECTED[name]["rank"]
    n_blocks = 2  # both: every preset asks for more, or for all
    one_block = _lora_parameters(base, EXPECTED[name]["rank"], EXPECTED[name].get("targets"))
    assert report["trainable"] == n_blocks * one_block


def _lora_parameters(base: Path, rank: int, targets: list[str] | None) -> int:
    """rank x (inputs + outputs) of every adapted layer of one block."""
    block = load(str(base)).model.layers[0]
    shapes = {name.split(".")[-1]: m.weight.shape for name, m in block.named_modules() if name.endswith("_proj")}
    adapted = set(shapes) if targets is None else set(targets)
    return sum(rank * sum(shape) for name, shape in shapes.items() if name in adapted)
