"""The lm-eval model: scores against numpy, generation against our own engine, tasks through lm-eval itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from providers import NANO, ROOT, longhand, own_answers

from adapters import write_adapter
from lem.chat.generate import GenerationSettings
from lem.chat.likelihood import Continuation
from lem.chat.load import load
from lem.errors import LemError, UserError
from tiny import make_model

pytest.importorskip("lm_eval")
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from lem.interop import harness_model
from lem.interop.harness_model import LemModel

KERNEL = "Care is work. Before anything is done to a mind, it is asked."
SHARED = "The ferry runs at dawn, at noon and when the bell is rung. "  # longer than the tiny Gemma's window
QUESTIONS = [
    {"q": "Why repair a bridge?", "choices": ["to cross it", "because"], "answer": 0},
    {"q": "What is a lantern for?", "choices": ["to see by", "for rowing against the stream", "no"], "answer": 1},
    {"q": "Who?", "choices": ["nobody", "the baker"], "answer": 0},
]


def ask(kind: str, *arguments: Any, doc: int = 0) -> Instance:
    return Instance(kind, {}, arguments, 0, ("t", doc, 1))


def tiny(folder: Path, family: str = "llama", **options: Any) -> str:
    return str(make_model(folder / family, family, **options))


def task(name: str, output_type: str, **more: Any) -> dict[str, Any]:
    """A task of lm-eval over QUESTIONS, without files."""
    from datasets import Dataset

    return {
        "task": name, "custom_dataset": lambda **_: {"test": Dataset.from_list(QUESTIONS)}, "test_split": "test",
        "output_type": output_type, "doc_to_text": "Question: {{q}}\nAnswer:", **more,
    }  # fmt: skip


def run(tasks: list[dict[str, Any]], model_args: dict[str, Any], **options: Any) -> Any:
    manager = TaskManager(include_defaults=False)
    return simple_evaluate(
        model="lem", model_args=model_args, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options
    )


CHOICES = task(
    "choices", "multiple_choice", doc_to_choice="{{choices}}", doc_to_target="{{answer}}",
    metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
)  # fmt: skip
WORDS = task(
    "words", "generate_until", doc_to_target="{{choices[answer]}}",
    generation_kwargs={"until": ["\n"], "max_gen_toks": 24},
    metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
)  # fmt: skip


# Through lm-eval


def test_a_multiple_choice_task_runs_and_its_likelihoods_are_numpys() -> None:
    results = run([CHOICES], {"model": NANO})
    chat, hits = load(NANO), 0
    for sample, question in zip(results["samples"]["choices"], QUESTIONS, strict=True):
        context = chat.tokenizer.encode(f"Question: {question['q']}\nAnswer:")
        totals = []
        for choice, (found, greedy) in zip(question["choices"], sample["filtered_resps"], strict=True):
            whole = chat.tokenizer.encode(f"Question: {question['q']}\nAnswer: {choice}")
            total, best = longhand(chat, context, whole[len(context) :])
            assert whole[: len(context)] == context
            assert (found, greedy) == (pytest.approx(total, abs=2e-4), best)
            totals.append(total)
        hits += int(np.argmax(totals)) == question["answer"]
    assert results["results"]["choices"]["acc,none"] == pytest.approx(hits / len(QUESTIONS))
    assert results["config"]["lem"]["n_truncated"] == 0
    assert results["config"]["model_dtype"] == "float32"


def test_a_generation_task_with_template_and_kernel_is_our_engines_answer(tmp_path: Path) -> None:
    (tmp_path / "kernel.txt").write_text(KERNEL)
    arguments = {"model": NANO, "kernel": str(tmp_path / "kernel.txt")}
    results = run([WORDS], arguments, apply_chat_template=True)
    chat = load(NANO)
    for sample, question in zip(results["samples"]["words"], QUESTIONS, strict=True):
        asked = {"role": "user", "content": f"Question: {question['q']}\nAnswer:"}
        prompt = chat.tokenizer.apply_chat_template(
            [{"role": "system", "content": KERNEL}, asked], add_generation_prompt=True
        )
        (own,) = own_answers(chat, [prompt], GenerationSettings(24, 0.0))
        text = chat.tokenizer.decode(list(own.tokens), skip_special_tokens=True)
        assert text
        assert sample["resps"] == [[text.split("\n")[0]]]
    assert results["config"]["lem"]["kernel_sha"] is not None
    with pytest.raises(UserError, match="no conversations, so the kernel has no place in them"):
        run([CHOICES], arguments)


@pytest.mark.slow
def test_the_command_line_knows_the_model(tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "local.yaml").write_text(
        f"task: local\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/questions.json}}}}\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\n'
        'doc_to_target: "{{answer}}"\nmetric_list: [{metric: acc}]\n'
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "lem.interop.harness_model", "run", "--model", "lem", "--batch_size", "auto"]
    command += ["--model_args", f"model={NANO}", "--tasks", "local", "--include_path", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "|local|" in done.stdout.replace(" ", "")


def test_an_error_is_one_sentence_and_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import lm_eval.__main__

    def evaluate() -> None:
        run([CHOICES], {"model": NANO, "modell": "x"})

    monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", evaluate)
    assert harness_model.main() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("lem: --model_args: unknown key modell; known keys are model, adapter")


# Log-likelihoods


def test_the_models_own_greedy_continuation_is_called_greedy() -> None:
    lm = LemModel(model=NANO)
    chat = lm.served.chat
    (own,) = own_answers(chat, [chat.tokenizer.encode("The bridge")], GenerationSettings(5, 0.0, stop=False))
    best = Continuation(tuple(chat.tokenizer.encode("The bridge")), own.tokens)
    other = Continuation(best.context, (*own.tokens[:-1], own.tokens[-1] + 1))
    (good, bad) = lm._score([best, other], True, None)
    assert (good[1], bad[1]) == (True, False)
    assert good[0] > bad[0]


def test_an_empty_context_is_the_beginning_of_text() -> None:
    lm = LemModel(model=NANO)
    chat = lm.served.chat
    tokens = chat.tokenizer.encode("A quiet harbour")
    assert lm.prefix_token_id == chat.tokenizer.bos_token_id
    expected = longhand(chat, [chat.tokenizer.bos_token_id], tokens)
    (found,) = lm.loglikelihood([ask("loglikelihood", "", "A quiet harbour")], disable_tqdm=True)
    assert found == (pytest.approx(expected[0], abs=2e-4), expected[1])
    (whole,) = lm.loglikelihood_rolling([ask("loglikelihood_rolling", "A quiet harbour")], disable_tqdm=True)
    assert whole == pytest.approx(expected[0], abs=2e-4)
    assert lm.loglikelihood([ask("loglikelihood", "", "")], disable_tqdm=True) == [(0.0, True)]


def test_a_text_longer_than_the_model_reads_is_scored_in_windows(tmp_path: Path) -> None:
    lm = LemModel(model=tiny(tmp_path), max_length=10)
    text = "The ferry runs at dawn."
    (found,) = lm.loglikelihood_rolling([ask("loglikelihood_rolling", text)], disable_tqdm=True)
    chat = lm.served.chat
    tokens = chat.tokenizer.encode(text)
    assert len(tokens) == 23
    expected = longhand(chat, [lm.prefix_token_id], tokens[:10])[0]
    expected += longhand(chat, tokens[9:10], tokens[10:20])[0]
    expected += longhand(chat, tokens[12:20], tokens[20:])[0]  # the last window reads as much as the model can
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_long_context_loses_its_beginning_and_is_counted(tmp_path: Path) -> None:
    lm = LemModel(model=tiny(tmp_path), max_length=12)
    chat = lm.served.chat
    tokens = chat.tokenizer.encode("The ferry runs at dawn or noon")
    found = lm.loglikelihood(
        [ask("loglikelihood", "The ferry runs at dawn", " or noon"), ask("loglikelihood", "The", " dawn")], True
    )
    assert found[0][0] == pytest.approx(longhand(chat, tokens[-13:-8], tokens[-8:])[0], abs=1e-3)
    assert lm.n_truncated == 1
    assert lm.get_model_info()["lem"]["n_truncated"] == 1
    with pytest.raises(UserError, match="a continuation of 22 tokens does not fit a model that reads 12"):
        lm.loglikelihood([ask("loglikelihood", "Go:", "The ferry runs at dawn")], True)


def test_a_kernel_is_never_cut(tmp_path: Path) -> None:
    (tmp_path / "kernel.txt").write_text(KERNEL)
    lm = LemModel(model=tiny(tmp_path), kernel=str(tmp_path / "kernel.txt"), max_length=120)
    prompt = lm.apply_chat_template([{"role": "user", "content": "Who?" * 20}])
    with pytest.raises(UserError, match="cutting it would cut the kernel"):
        lm.loglikelihood([ask("loglikelihood", prompt, "I")], True)
    with pytest.raises(UserError, match="cutting it would cut the kernel"):
        lm.generate_until([ask("generate_until", prompt, {"max_gen_toks": 20})], True)


def test_a_model_that_gives_no_number_is_an_error(tmp_path: Path) -> None:
    folder = Path(tiny(tmp_path))
    weights = mx.load(str(folder / "model.safetensors"))
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    with pytest.raises(LemError, match="no finite number"):
        LemModel(model=str(folder)).loglikelihood([ask("loglikelihood", "a", "b")], True)


def test_an_adapter_counts_at_its_scale(tmp_path: Path) -> None:
    base = tiny(tmp_path)
    adapter = str(write_adapter(Path(base), tmp_path / "adapter", size=0.5))
    asked = [ask("loglikelihood", "Why?", " no")]
    values = {}
    for name, options in (
        ("base", {}), ("whole", {"adapter": adapter}), ("half", {"adapter": adapter, "adapter_scale": 0.5}),
        ("none", {"adapter": adapter, "adapter_scale": 0}),
    ):  # fmt: skip
        lm = LemModel(model=base, **options)
        values[name] = lm.loglikelihood(asked, True)[0][0]
        tokens = lm.served.chat.tokenizer.encode("Why? no")
        assert values[name] == pytest.approx(longhand(lm.served.chat, tokens[:4], tokens[4:])[0], abs=1e-3)
    assert values["none"] == pytest.approx(values["base"], abs=1e-4)
    assert len({round(value, 2) for value in values.values()}) == 3


# Generation


def test_stop_sequences_cut_the_answer_and_greedy_rows_do_not_depend_on_the_batch() -> None:
    prompts = ["The", "A bridge that is repaired every spring", "Why does ice float?", "Care is"]
    options = {"until": ["the", "zzz"], "max_gen_toks": 20}
    lm = LemModel(model=NANO)
    chat = lm.served.chat
    together = lm.generate_until([ask("generate_until", prompt, options) for prompt in prompts], True)
    alone = [lm.generate_until([ask("generate_until", prompt, options)], True)[0] for prompt in prompts]
    assert together == alone
    own = own_answers(chat, [chat.tokenizer.encode(prompt) for prompt in prompts], GenerationSettings(20, 0.0))
    texts = [chat.tokenizer.decode(list(done.tokens), skip_special_tokens=True) for done in own]
    assert together == [text.split("the")[0] for text in texts]
    assert any("the" in text for text in texts)


def test_repeats_of_a_sampled_document_differ_and_come_back_with_the_seed() -> None:
    options = {"do_sample": True, "temperature": 0.9, "max_gen_toks": 16, "until": []}
    asked = [ask("generate_until", "Care is", options)] * 3
    first, again = (LemModel(model=NANO, seed=7).generate_until(asked, True) for _ in range(2))
    assert first == again
    assert len(set(first)) == 3
    assert LemModel(model=NANO, seed=8).generate_until(asked, True) != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, "num_beams=4 is not supported; supported are do_sample, max_gen_toks"),
        ({"max_gen_toks": 9000}, "max_gen_toks=9000 must be at least 1 and leave room for a prompt in the 4096"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 must be at least 1"),
    ],
)
def test_settings_that_would_not_be_honoured_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        LemModel(model=tiny(tmp_path)).generate_until([ask("generate_until", "a", options)], True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": "many"}, "--batch_size many: must be a whole number"),
        ({"inject": "user"}, "inject=user: there is no kernel to place"),
        ({"inject": "margin", "kernel": "k.txt"}, "inject=margin: a kernel goes to system, user, sandwich"),
        ({"kernel": "missing.txt"}, "missing.txt: no such kernel file"),
        ({"adapter": "missing"}, "missing: no such adapter directory"),
    ],
)
def test_wrong_arguments_are_sentences(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        LemModel(model=tiny(tmp_path), **options)


def test_templates_and_tokens(tmp_path: Path) -> None:
    lm = LemModel(model=NANO)
    text = lm.apply_chat_template([{"role": "user", "content": "Why?"}])
    chat = lm.served.chat
    tokens = chat.tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], add_generation_prompt=True)
    assert lm.tok_encode(text) == list(tokens)
    started = lm.apply_chat_template(
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because"}], add_generation_prompt=False
    )
    assert started.endswith("Because")
    assert started.startswith(text)
    (tmp_path / "kernel.txt").write_text(KERNEL)
    assert LemModel(model=NANO, kernel=str(tmp_path / "kernel.txt")).tokenizer_name != lm.tokenizer_name
    bare = LemModel(model=tiny(tmp_path, template=None))
    with pytest.raises(UserError, match="has no chat template; leave out --apply_chat_template"):
        bare.apply_chat_template([{"role": "user", "content": "Why?"}])


def test_the_models_of_lm_eval_stay_beside_ours() -> None:
    from lm_eval.api.registry import get_model

    assert get_model("dummy").__name__ == "DummyLM"
    assert get_model("lem").__name__ == "LemModel"
