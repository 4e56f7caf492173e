"""The Inspect provider: tasks through Inspect itself, answers against our own engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from providers import NANO, ROOT, own_answers

from adapters import edit, write_adapter
from lem.chat.generate import GenerationSettings
from lem.chat.load import load
from lem.chat.render import conversation, render
from lem.chat.sampling import row_seed
from lem.errors import LemError, UserError
from lem.interop.batching import BatchingWorker, Question
from lem.interop.served import open_served
from tiny import NO_SYSTEM, make_model

pytest.importorskip("inspect_ai")
from inspect_ai import Task, eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message
from inspect_ai.tool import tool

import lem.interop.inspect_provider  # noqa: F401  # registers the provider, as the entry point does when installed

KERNEL = "Care is work. Before anything is done to a mind, it is asked. " * 3
INPUTS = {
    "B1": "Why repair a bridge?",
    "B2": "What is owed to a stranger who asks for help at night?",
    "B3": "Name a virtue.",
}
SAMPLES = [Sample(input=text, target="the", id=name) for name, text in INPUTS.items()]
THINKING = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n<think>{% endif %}"
)


@pytest.fixture(autouse=True)
def closed_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Logs stay in the test's folder, and no model of a test outlives it."""
    from inspect_ai.model import _model

    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    yield
    for name in [name for name in _model._models if name.startswith("lem/")]:
        _model._models.pop(name).api.close()


def run(model: str, *solvers: Any, samples: list[Sample] = SAMPLES, **options: Any) -> Any:
    task = Task(dataset=samples, solver=[*solvers, generate()], scorer=includes())
    (log,) = eval(task, model=f"lem/{model}", display="none", **options)
    return log


def answer(model: Model, *messages: Any, tools: Any = (), **config: Any) -> ModelOutput:
    return asyncio.run(model.generate(list(messages), tools=list(tools), config=GenerateConfig(**config)))


def texts(log: Any) -> dict[tuple[str, int], str]:
    return {(sample.id, sample.epoch): sample.output.completion for sample in log.samples}


# Through Inspect


def test_greedy_answers_usage_and_reasons_are_our_engines() -> None:
    log = run(NANO, temperature=0, max_tokens=24)
    assert log.status == "success"
    chat = load(NANO)
    prompts = [render(chat, conversation(text, None, "system")).tokens for text in INPUTS.values()]
    reasons = set()
    for sample, prompt, own in zip(
        log.samples, prompts, own_answers(chat, prompts, GenerationSettings(24, 0.0)), strict=True
    ):
        assert sample.output.completion == own.response
        usage = sample.output.usage
        assert (usage.input_tokens, usage.output_tokens) == (len(prompt), len(own.tokens))
        assert usage.total_tokens == len(prompt) + len(own.tokens)
        assert sample.output.stop_reason == {"stop": "stop", "length": "max_tokens"}[own.finish_reason or ""]
        assert sample.scores["includes"].value == ("C" if "the" in (own.response or "").lower() else "I")
        reasons.add(sample.output.stop_reason)
    assert reasons == {"stop", "max_tokens"}  # the limit lies between the lengths of the answers
    hits = sum(sample.scores["includes"].value == "C" for sample in log.samples)
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(hits / 3)
    assert log.stats.model_usage[f"lem/{NANO}"].output_tokens == sum(s.output.usage.output_tokens for s in log.samples)


def test_samples_of_all_epochs_are_decoded_together_with_the_streams_of_a_benchmark() -> None:
    log = run(NANO, epochs=3, max_tokens=16, temperature=0.9, top_p=0.9, seed=5)
    facts = {(sample.id, sample.epoch): sample.output.metadata["lem"] for sample in log.samples}
    assert {fact["rows_together"] for fact in facts.values()} == {9}
    chat = load(NANO)
    for (name, epoch), fact in facts.items():
        assert fact["seed"] == f"{row_seed(5, name, epoch - 1):016x}"
        prompt = render(chat, conversation(INPUTS[name], None, "system")).tokens
        settings = GenerationSettings(16, 0.9, 0.9)
        (own,) = own_answers(chat, [prompt], settings, [row_seed(5, name, epoch - 1)])
        assert texts(log)[name, epoch] == own.response
    assert len(set(texts(log).values())) == 9


@pytest.mark.slow
def test_the_command_line_finds_the_provider_by_its_entry_point(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    facts = tmp_path / "site" / "lem-0.dist-info"  # what installing the package leaves behind, no more
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: lem\nVersion: 0\n")
    ((name, target),) = project["entry-points"]["inspect_ai"].items()
    (facts / "entry_points.txt").write_text(f"[inspect_ai]\n{name} = {target}\n")
    (tmp_path / "bridges.py").write_text(
        "from inspect_ai import Task, task\nfrom inspect_ai.dataset import Sample\n"
        "from inspect_ai.scorer import match\nfrom inspect_ai.solver import generate\n\n"
        "@task\ndef bridges():\n"
        "    return Task(dataset=[Sample(input='Why?', target='x')], solver=generate(), scorer=match())\n"
    )
    (tmp_path / "kernel.txt").write_text(KERNEL)
    model = make_model(tmp_path / "model", "llama")
    adapter = write_adapter(model, tmp_path / "adapter")
    command = [sys.executable, "-m", "inspect_ai", "eval", "bridges.py", "--model", f"lem/{model}", "--display", "none"]
    command += ["-M", f"adapter={adapter}", "-M", "adapter_scale=0.5", "-M", "kernel=kernel.txt", "--max-tokens", "8"]
    command += ["--log-format", "json"]
    paths = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (tmp_path / "logs").glob("*.json")
    content = json.loads(log.read_text())
    assert content["status"] == "success"
    made_by = content["samples"][0]["output"]["metadata"]["lem"]
    assert (made_by["adapter"], made_by["adapter_scale"], made_by["kernel"]) == (str(adapter), 0.5, "kernel.txt")
    # The same command line without the package installed; a wrong argument is told in a sentence.
    command[2] = "lem.interop.inspect_provider"
    command[command.index("none")] = "plain"
    environment["PYTHONPATH"] = str(ROOT / "src")
    wrong = subprocess.run([*command, "-M", "adaptor=x"], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert wrong.returncode != 0
    assert "-M adaptor: unknown model argument; known ones are adapter, adapter_scale" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stdout + wrong.stderr


def test_a_row_that_breaks_is_an_error_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = get_model(f"lem/{make_model(tmp_path / 'm', 'llama')}")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(model.api._worker.served.chat.model), "__call__", broken)
    task = Task(dataset=SAMPLES, solver=[generate()], scorer=includes())
    (log,) = eval(task, model=model, display="none", fail_on_error=False)
    assert not any(sample.scores for sample in log.samples)
    assert all("the model could not answer: RuntimeError" in sample.error.message for sample in log.samples)


# Adapters, kernels, places


def test_an_adapter_changes_the_answers_and_at_scale_0_it_does_not(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = write_adapter(base, tmp_path / "adapter", size=0.5)
    greedy = {"temperature": 0, "max_tokens": 12}
    bare = texts(run(str(base), **greedy))
    whole = texts(run(str(base), model_args={"adapter": str(adapter)}, **greedy))
    none = texts(run(str(base), model_args={"adapter": str(adapter), "adapter_scale": 0}, **greedy))
    assert none == bare
    assert all(whole[key] != bare[key] for key in bare)
    chat = load(str(base), adapter)
    prompts = [render(chat, conversation(text, None, "system")).tokens for text in INPUTS.values()]
    assert list(whole.values()) == [own.response for own in own_answers(chat, prompts, GenerationSettings(12, 0.0))]


@pytest.mark.parametrize("inject", ["system", "user", "sandwich"])
def test_a_kernel_stands_where_a_run_puts_it(inject: Any, tmp_path: Path) -> None:
    (tmp_path / "kernel.txt").write_text(KERNEL)
    log = run(
        NANO, temperature=0, max_tokens=12, model_args={"kernel": str(tmp_path / "kernel.txt"), "inject": inject}
    )  # fmt: skip
    chat = load(NANO)
    signature = (ROOT / "kernel" / "lek-1-sig.txt").read_text().strip()
    prompts = [render(chat, conversation(t, KERNEL.strip(), inject, signature)).tokens for t in INPUTS.values()]
    own = own_answers(chat, prompts, GenerationSettings(12, 0.0))
    assert [sample.output.usage.input_tokens for sample in log.samples] == [len(prompt) for prompt in prompts]
    assert list(texts(log).values()) == [done.response for done in own]


def test_a_tasks_system_turn_follows_the_kernel_and_is_never_dropped(tmp_path: Path) -> None:
    (tmp_path / "kernel.txt").write_text("K.")
    turns = [{"role": "system", "content": "S."}, {"role": "user", "content": "U?"}]
    served = open_served(NANO, kernel=str(tmp_path / "kernel.txt"))
    assert served.conversation(turns) == [{"role": "system", "content": "K.\n\nS."}, turns[1]]
    deaf = str(make_model(tmp_path / "deaf", "llama", template=NO_SYSTEM))
    for options, text in (({"kernel": str(tmp_path / "kernel.txt")}, "K.\n\nS.\n\nU?"), ({}, "S.\n\nU?")):
        assert open_served(deaf, **options).conversation(turns) == [{"role": "user", "content": text}]
    log = run(NANO, system_message("Answer in one word."), temperature=0, max_tokens=8)
    chat = load(NANO)
    turns = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": INPUTS["B1"]}]
    assert log.samples[0].output.usage.input_tokens == len(render(chat, turns).tokens)


# What ends an answer


def test_stop_sequences_cut_text_and_usage() -> None:
    model = get_model(f"lem/{NANO}")
    question = ChatMessageUser(content=INPUTS["B2"])
    whole = answer(model, question, temperature=0, max_tokens=40)
    word = whole.completion.split()[3]
    cut = answer(model, question, temperature=0, max_tokens=40, stop_seqs=["qqqq", word])
    assert cut.completion == whole.completion.split(word)[0].strip()
    assert cut.stop_reason == "stop"
    chat, settings = load(NANO), GenerationSettings(40, 0.0)
    assert cut.usage is not None
    n_tokens = cut.usage.output_tokens
    (own,) = own_answers(chat, [render(chat, conversation(INPUTS["B2"], None, "system")).tokens], settings)
    assert word in chat.tokenizer.decode(list(own.tokens[:n_tokens]))
    assert word not in chat.tokenizer.decode(list(own.tokens[: n_tokens - 1]))
    assert n_tokens < len(own.tokens)


def test_the_end_of_the_models_length_is_told_apart(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", "llama")
    edit(folder / "config.json", max_position_embeddings=60)
    model = get_model(f"lem/{folder}")
    question = ChatMessageUser(content="Why?")
    n_prompt = len(render(load(str(folder), weights=False), [{"role": "user", "content": "Why?"}]).tokens)
    for limit, reason in ((5, "max_tokens"), (500, "model_length")):
        output = answer(model, question, temperature=0, max_tokens=limit)
        assert output.stop_reason == reason
        assert output.usage is not None
        assert output.usage.output_tokens == min(limit, 60 - n_prompt)
    with pytest.raises(UserError, match=r"a prompt takes [0-9]+ tokens but .* reads 60; shorten"):
        answer(model, ChatMessageUser(content="Why? " * 20))


def test_thinking_is_kept_apart_from_the_answer(tmp_path: Path) -> None:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    model = get_model(f"lem/{make_model(tmp_path / 'm', 'llama', template=THINKING)}")
    chat = model.api._worker.served.chat
    assert isinstance(chat.tokenizer, TokenizerWrapper)
    if not chat.tokenizer.has_thinking:  # the tiny vocabulary has no such tokens: spell them
        chat.tokenizer._think_start, chat.tokenizer._think_end = "<think>", "</think>"
        chat.tokenizer._think_start_tokens = tuple(chat.tokenizer.encode("<think>"))
        chat.tokenizer._think_end_tokens = tuple(chat.tokenizer.encode("</think>"))
    output = answer(model, ChatMessageUser(content="Why?"), temperature=0, max_tokens=9)
    (reasoning, text) = output.choices[0].message.content
    assert isinstance(reasoning, ContentReasoning)
    assert reasoning.reasoning
    assert (output.completion, text.text) == ("", "")
    assert output.usage is not None
    assert output.usage.reasoning_tokens == output.usage.output_tokens == 9


# What is refused


@tool
def lookup() -> Any:
    async def execute(word: str) -> str:
        """Look a word up.

        Args:
            word: The word.
        """
        return word

    return execute


def test_what_is_not_supported_is_a_sentence(tmp_path: Path) -> None:
    model = get_model(f"lem/{make_model(tmp_path / 'm', 'llama')}")
    user = ChatMessageUser(content="Why?")
    with pytest.raises(UserError, match="tool lookup: the provider lem has no tools"):
        answer(model, user, tools=[lookup()])
    pixel = "data:image/png;base64,iVBORw0KGgo="
    with pytest.raises(UserError, match="a user turn holds content of type image; the provider lem reads text only"):
        answer(model, ChatMessageUser(content=[ContentImage(image=pixel)]))
    with pytest.raises(UserError, match="does not end with a user turn"):
        answer(model, user, ChatMessageAssistant(content="Because"))
    with pytest.raises(UserError, match="does not end with a user turn"):
        answer(model, ChatMessageSystem(content="Be brief."))
    for setting in ({"top_k": 5}, {"logprobs": True}, {"num_choices": 2}, {"frequency_penalty": 0.5}):
        (name,) = setting
        with pytest.raises(UserError, match=f"{name}=.*: the provider lem does not support this setting"):
            answer(model, user, **setting)  # type: ignore[arg-type]
    assert answer(model, user, num_choices=1, logprobs=False, max_tokens=3, timeout=600).usage is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": "missing"}, "missing: no such adapter directory"),
        ({"kernel": "missing.txt"}, "missing.txt: no such kernel file"),
        ({"adapter_scale": 0.5}, "an adapter scale of 0.5 needs an adapter"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"caps": 3}, "-M caps: unknown model argument"),
    ],
)
def test_a_model_that_cannot_be_opened_is_a_sentence(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=message):
        get_model(f"lem/{make_model(tmp_path / 'm', 'llama')}", **options)
    with pytest.raises(PrerequisiteError, match="no such model"):
        get_model("lem/./nowhere")


# The worker


def question(text: str, **changes: Any) -> Question:
    settings = {"max_tokens": 6, "temperature": 0.0, "top_p": 1.0, "stops": (), "seed": 0, **changes}
    return Question(({"role": "user", "content": text},), **settings)


def test_what_arrives_together_is_decoded_together_and_cancelled_questions_are_not(tmp_path: Path) -> None:
    folder = str(make_model(tmp_path / "m", "llama"))
    worker = BatchingWorker(lambda: open_served(folder), window_s=0.2)
    asked = [worker.submit(question(text)) for text in ("Why?", "Who goes there?", "No.")]
    other = worker.submit(question("Why?", max_tokens=4))
    refused = worker.submit(Question(({"role": "assistant", "content": "So."},), 4, 0.0, 1.0, (), 0))
    gone = worker.submit(question("Never."))
    assert gone.cancel()
    replies = [future.result(60) for future in asked]
    assert [reply.n_together for reply in replies] == [3, 3, 3]
    assert other.result(60).n_together == 1
    assert other.result().answer.n_tokens == 4
    assert isinstance(refused.exception(60), LemError)
    chat = load(folder)
    for text, reply in zip(("Why?", "Who goes there?", "No."), replies, strict=True):
        (own,) = own_answers(chat, [render(chat, conversation(text, None, "user")).tokens], GenerationSettings(6, 0.0))
        assert reply.answer.text.strip() == own.response
    worker.close()


def test_one_row_at_a_time_is_a_batch_size_of_one(tmp_path: Path) -> None:
    served = open_served(str(make_model(tmp_path / "m", "llama")), batch_size=1)
    assert served.group_size(100) == 1
    assert open_served(str(tmp_path / "m")).group_size(100) > 1
