"""Plain text for a model without a chat template, limits and stops of a probe's own, and fingerprints that stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.ab.arms import build_arms
from lem.chat.generate import GenerationSettings
from lem.chat.load import load
from lem.data import Probe
from lem.errors import ResumeMismatch, UserError
from lem.records import Record, read_run
from lem.runs.conduct import conduct
from lem.runs.plan import RunPlan, render_plan
from small_plan import write_kernel
from tiny import CHATML, make_model

ASKED = Probe("p", "sums", "How much is 2 + 3?", benchmark="gsm8k", asks="Solve: 2 + 3", completes="Q: 2 + 3\nA:")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model twice: with a chat template and without."""
    folder = tmp_path_factory.mktemp("forms")
    made = {
        name: make_model(folder / name, "llama", template=text) for name, text in (("chat", CHATML), ("base", None))
    }
    assert (made["chat"] / "model.safetensors").read_bytes() == (made["base"] / "model.safetensors").read_bytes()
    return made


@pytest.fixture
def plan(models: dict[str, Path]) -> Callable[..., RunPlan]:
    def make(
        name: str = "base", *probes: Probe, kernels: tuple[str, ...] = (), settings: Any = None, **options: Any
    ) -> RunPlan:  # fmt: skip
        return RunPlan(
            build_arms(str(models[name]), kernels=kernels), probes or (ASKED,), "",  # type: ignore[arg-type]
            settings or GenerationSettings(max_tokens=24, temperature=0.0), group_size=4, form="auto", **options,
        )  # fmt: skip

    return make


def text_of(plan: RunPlan, arm: int = -1) -> str:
    rendered = render_plan(plan)[arm]
    [request] = rendered.requests.values()
    tokenizer = load(rendered.arm.model, weights=False, need_template=False).tokenizer
    return str(tokenizer.decode(list(request.tokens)))


def test_the_form_follows_the_template_unless_one_is_asked_for(plan: Callable[..., RunPlan]) -> None:
    assert text_of(plan("base")) == "Q: 2 + 3\nA:"
    assert text_of(plan("chat")) == "<|turn|>user\nSolve: 2 + 3<|end|>\n<|turn|>assistant\n"
    assert text_of(replace(plan("chat"), form="completion")) == "Q: 2 + 3\nA:"
    for name, form, said in (
        ("base", "auto", "completion"),
        ("chat", "auto", None),
        ("chat", "completion", "completion"),
    ):
        [rendered] = render_plan(replace(plan(name), form=form))  # type: ignore[arg-type]
        assert rendered.facts.get("form") == said


def test_what_a_probe_does_not_have_is_its_prompt(plan: Callable[..., RunPlan]) -> None:
    plain = Probe("p", "d", "Only a prompt")
    assert text_of(plan("base", plain)) == "Only a prompt"
    assert text_of(plan("chat", plain)) == "<|turn|>user\nOnly a prompt<|end|>\n<|turn|>assistant\n"
    assert text_of(plan("base", replace(plain, asks="Asked"))) == "Asked"


def test_a_chat_run_refuses_a_model_without_a_template(plan: Callable[..., RunPlan]) -> None:
    with pytest.raises(UserError, match="template"):
        render_plan(replace(plan("base"), form="chat"))


def test_a_kernel_stands_before_plain_text_and_has_no_system_turn(plan: Callable[..., RunPlan], tmp_path: Path) -> None:
    kernels = (f"k={write_kernel(tmp_path / 'axioms.txt', 'Be kind.')}",)
    assert text_of(plan("base", kernels=kernels)) == "Be kind.\n\nQ: 2 + 3\nA:"
    sandwich = plan("base", kernels=kernels, inject="sandwich", signature="Remember.")
    assert text_of(sandwich) == "Be kind.\n\nQ: 2 + 3\nA:\n\nRemember."
    with pytest.raises(UserError, match="no system turn; use --inject user"):
        render_plan(plan("base", kernels=kernels, inject="system"))
    [_, rendered] = render_plan(plan("base", kernels=kernels))
    assert rendered.facts["inject"] == "user"


def answer(plan: RunPlan, run: Path) -> Record:
    conduct(plan, run, "eval")
    [record] = read_run(run)[1]
    assert record.error is None
    assert record.response is not None
    return record


def test_an_answer_ends_at_its_first_stop_string(plan: Callable[..., RunPlan], tmp_path: Path) -> None:
    """The stop strings are taken from what the model writes without any."""
    whole = answer(plan("base"), tmp_path / "whole").response
    assert whole is not None
    assert len(whole) >= 12
    late, early = whole[8:10], whole[4:7]
    for number, stops in enumerate([(early,), (late, early), (early, "\0never")]):
        record = answer(plan("base", replace(ASKED, stop_strings=stops)), tmp_path / str(number))
        first = min(whole.find(stop) for stop in stops if stop in whole)
        assert record.response == whole[:first].strip()
        assert record.finish_reason == "stop"
    unmet = answer(plan("base", replace(ASKED, stop_strings=("\0never",))), tmp_path / "unmet")
    assert (unmet.response, unmet.finish_reason) == (whole, "length")


def test_a_chat_answer_is_not_cut_at_the_stop_strings_of_plain_text(
    plan: Callable[..., RunPlan], tmp_path: Path
) -> None:
    whole = answer(plan("chat"), tmp_path / "whole")
    stops = ((whole.response or "")[3:5],)
    cut = answer(plan("chat", replace(ASKED, stop_strings=stops)), tmp_path / "cut")
    assert (cut.response, cut.fingerprint) == (whole.response, whole.fingerprint)


def test_each_probe_has_its_own_limit(plan: Callable[..., RunPlan], tmp_path: Path) -> None:
    limits = {"a": 3, "b": 9, "c": None}
    probes = [Probe(name, "d", f"prompt {name}", max_tokens=limit) for name, limit in limits.items()]
    conduct(plan("base", *probes), tmp_path / "run", "eval")
    records = {record.probe_id: record for record in read_run(tmp_path / "run")[1]}
    for name, limit in limits.items():
        if records[name].finish_reason == "length":
            assert records[name].n_tokens == (limit or 24)
        else:
            assert (records[name].n_tokens or 0) < (limit or 24)
    assert any(record.finish_reason == "length" for record in records.values())
    prints = {record.fingerprint for record in records.values()}
    assert len(prints) == 3


def longhand(prompt: str, settings: dict[str, Any], identity: dict[str, Any]) -> str:
    """The formula of a fingerprint as the first runs have it."""
    sha = hashlib.sha256(prompt.encode()).hexdigest()
    text = json.dumps({"prompt": sha, "settings": settings, "identity": identity}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


SAMPLED = GenerationSettings(max_tokens=24, temperature=0.7, top_p=0.9)
SETTINGS = {
    "max_tokens": 24, "temperature": 0.7, "top_p": 0.9, "stop": True,
}  # fmt: skip


@pytest.mark.parametrize("temperature", [0.7, 0.0])
def test_a_plain_probe_has_the_fingerprint_that_it_always_had(
    plan: Callable[..., RunPlan], models: dict[str, Path], temperature: float
) -> None:
    identity = load(str(models["chat"]), weights=False).identity
    made = plan("chat", Probe("p", "d", "Hello"), settings=replace(SAMPLED, temperature=temperature), seed=7)
    for form in ("auto", "chat"):
        [request] = render_plan(replace(made, form=form))[0].requests.values()  # type: ignore[arg-type]
        settings = {**SETTINGS, "temperature": temperature, "seed": 7 if temperature else None}
        prompt = "<|turn|>user\nHello<|end|>\n<|turn|>assistant\n"
        assert request.fingerprint == longhand(prompt, settings, identity)


def test_what_shapes_an_answer_is_in_its_fingerprint_and_what_does_not_is_not(plan: Callable[..., RunPlan]) -> None:
    def prints(probe: Probe, name: str = "base") -> str:
        return next(iter(render_plan(plan(name, probe))[0].requests.values())).fingerprint

    same = prints(ASKED)
    for changes in ({"max_tokens": 5}, {"stop_strings": ("\n",)}, {"completes": "Q"}, {"choices": (" a", " b")}):
        assert prints(replace(ASKED, **changes)) != same, changes  # type: ignore[arg-type]
    for changes in ({"id": "q"}, {"domain": "e"}, {"benchmark": "other"}, {"asks": "A"}, {"prompt": "P"}):
        assert prints(replace(ASKED, **changes)) == same, changes
    two = replace(ASKED, choices=(" a", " b"))
    assert prints(two) != prints(replace(two, choices=(" b", " a")))


def test_another_limit_of_a_known_probe_is_refused_and_changes_nothing(
    plan: Callable[..., RunPlan], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    conduct(plan("base", replace(ASKED, max_tokens=3)), run, "eval")
    before = (run / "run.json").read_bytes(), (run / "records.jsonl").read_bytes()
    with pytest.raises(ResumeMismatch, match="probe p"):
        conduct(plan("base", replace(ASKED, max_tokens=4)), run, "eval")
    assert ((run / "run.json").read_bytes(), (run / "records.jsonl").read_bytes()) == before
