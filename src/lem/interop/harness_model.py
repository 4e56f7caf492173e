"""lm-eval's tasks on our engine: the model `lem`, with adapters, kernels and per-row seeds.

lm-eval 0.4 finds models in its own list only, so importing this module registers ours, and running it is lm-eval's
command line with `--model lem` added:

    python -m lem.interop.harness_model run --model lem --model_args model=DIR,adapter=DIR,kernel=FILE --tasks ...

Log-likelihoods are computed in float32 on the CPU (on a GPU in the type of the model's files) and summed in float64.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

# lm-eval looks its own models up only while its registry is empty, so they have to be in it before ours
import lm_eval.models  # type: ignore[import-untyped]  # noqa: F401
from lm_eval.api.model import TemplateLM  # type: ignore[import-untyped]
from lm_eval.api.registry import register_model  # type: ignore[import-untyped]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # type: ignore[import-untyped]
from tqdm import tqdm  # type: ignore[import-untyped]

from lem.config import load_config
from lem.errors import LemError, UserError
from lem.interop.harness_options import DEFAULT_MAX_LENGTH, MODEL_ARGS, read_batch_size, read_settings, read_stops
from lem.interop.served import open_served, read_answer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance  # type: ignore[import-untyped]

    from lem.chat.generate import GenerationSettings, Request
    from lem.chat.likelihood import Continuation, Likelihood


@register_model("lem")
class LemModel(TemplateLM):  # type: ignore[misc]
    """A model of ours for lm-eval; `n_truncated` counts requests whose context was cut from the left."""

    def __init__(
        self,
        model: str | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
        kernel: str | None = None,
        inject: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        batch_size: int | str | None = "auto",
        max_batch_size: int | None = None,
        seed: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        """Load model, adapter and kernel; `device`, which lm-eval always names, is MLX's to choose and not used.

        Raises: UserError for what is unknown or does not fit together.
        """
        super().__init__()
        if unknown:
            raise UserError(f"--model_args: unknown key {sorted(unknown)[0]}; known keys are {', '.join(MODEL_ARGS)}.")
        self.served = open_served(
            model, adapter=adapter, adapter_scale=float(adapter_scale), kernel=kernel, inject=inject,
            batch_size=read_batch_size(batch_size, max_batch_size), need_template=False,
        )  # fmt: skip
        self.tokenizer = self.served.chat.tokenizer
        self.max_length = max_length or self.served.max_length or DEFAULT_MAX_LENGTH
        self.max_gen_toks = max_gen_toks
        self.seed = load_config().seed if seed is None else seed
        self.n_truncated = 0

    @property
    def eot_token_id(self) -> int:
        """The first of the tokens that end an answer."""
        return int(self.served.chat.stop_token_ids[0])

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by: the beginning-of-text token, or without one the end-of-text token."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """Names the template with the weights and the kernel, so that lm-eval's request cache keeps them apart."""
        facts = self.served.facts
        parts = [facts["model"], facts["model_sha"][:12], (facts["kernel_sha"] or "")[:12], facts["inject"] or ""]
        return "__".join(part.replace("/", "_") for part in parts if part)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside the scores: hashes, type, kernel, and how many contexts were cut."""
        facts = self.served.facts
        own = {"max_length": self.max_length, "n_truncated": self.n_truncated, "seed": self.seed}
        return {"model_sha": facts["model_sha"], "model_dtype": facts["dtype"], "lem": {**facts, **own}}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokenise by the tokenizer's own rule, but never with a second beginning-of-text token."""
        if add_special_tokens is None:
            bos = self.tokenizer.bos_token
            add_special_tokens = not (bos and string.startswith(bos))
        return [int(token) for token in self.tokenizer.encode(string, add_special_tokens=add_special_tokens)]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, or None when none is applied.   Raises: UserError for a named or missing template."""
        if isinstance(chat_template, str):
            raise UserError(f"--apply_chat_template {chat_template}: give no name, the model's own template is used.")
        if not chat_template:
            return None
        self._need_template()
        return str(self.tokenizer.chat_template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation with the kernel in its place, up to where the assistant speaks or goes on."""
        self._need_template()
        messages = self.served.conversation(chat_history)
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def _need_template(self) -> None:
        if not self.tokenizer.has_chat_template:
            name = self.served.chat.name
            raise UserError(f"{name}: the tokenizer has no chat template; leave out --apply_chat_template.")

    def _need_kernel(self, contexts: Sequence[str]) -> None:
        """Refuse prompts without the kernel in them: it would do nothing, and nobody would notice."""
        kernel = self.served.kernel
        if kernel is not None and any(kernel.text not in context for context in contexts):
            raise UserError(
                f"{kernel.path}: these requests are no conversations, so the kernel has no place in them; add "
                "--apply_chat_template, or leave the kernel out for this task."
            )

    def _note_truncation(self, n_dropped: int) -> None:
        if n_dropped > 0 and self.served.kernel is not None:
            raise UserError(
                f"{self.served.kernel.path}: a prompt is {n_dropped} tokens too long for the {self.max_length} that "
                "the model reads, and cutting it would cut the kernel; use fewer examples, a shorter kernel or a lower "
                "max_gen_toks."
            )
        self.n_truncated += n_dropped > 0

    # Log-likelihoods

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability and greediness of each (context, continuation); an empty context is the prefix token."""
        texts = [request.args[:2] for request in requests]
        self._need_kernel([context for context, _ in texts if context])
        pairs = [self._encode(context, continuation) for context, continuation in texts]
        return self._score(pairs, disable_tqdm, lambda index: texts[index])

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [_pair(context, tokens) for _, context, tokens in requests]
        return self._score(pairs, disable_tqdm, lambda index: requests[index][0])

    def _encode(self, context: str, continuation: str) -> Continuation:
        if context:
            before, tokens = self._encode_pair(context, continuation)
            return _pair(before or [self.prefix_token_id], tokens)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        if tokens[:1] == [self.prefix_token_id]:
            return _pair(tokens[:1], tokens[1:])
        return _pair([self.prefix_token_id], tokens)

    def _score(
        self, pairs: Sequence[Continuation], quiet: bool, texts_of: Callable[[int], Any] | None
    ) -> list[tuple[float, bool]]:
        """Score pairs, in their order; with `texts_of` each result goes into lm-eval's cache as soon as it is there."""
        from lem.chat.likelihood import fit_left, score
        from lem.runs.workers import one_blas_thread

        fitted = [fit_left(pair, self.max_length) for pair in pairs]
        for _, n_dropped in fitted:
            self._note_truncation(n_dropped)
        found: dict[int, Likelihood] = {}
        with one_blas_thread(), tqdm(total=len(pairs), desc="Log-likelihoods", disable=quiet) as bar:
            rows = [pair for pair, _ in fitted]
            for index, result in score(self.served.chat, rows, self.served.group_size):
                found[index] = result
                if texts_of is not None:
                    self.cache_hook.add_partial("loglikelihood", texts_of(index), (result.total, result.greedy))
                bar.update()
        return [(found[index].total, found[index].greedy) for index in range(len(pairs))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts; one longer than the model reads is cut into windows, no token twice."""
        texts = [str(request.args[0]) for request in requests]
        self._need_kernel(texts)
        pairs, owners = [], []
        for owner, text in enumerate(texts):
            tokens = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append(_pair(context, continuation))
                owners.append(owner)
        totals = [0.0] * len(texts)
        for owner, (total, _) in zip(owners, self._score(pairs, disable_tqdm, None), strict=True):
            totals[owner] += total
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    # Generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate until a stop sequence, greedily or with a random stream for each task, document and repeat."""
        self._need_kernel([str(request.args[0]) for request in requests])
        together: dict[GenerationSettings, list[Request]] = {}
        seen: Counter[str] = Counter()
        for index, request in enumerate(requests):
            settings = read_settings(request.args[1], self.max_gen_toks, self.max_length)
            row = f"{request.task_name}/{request.doc_id}/{request.idx}"
            together.setdefault(settings, []).append(self._request(index, request, settings, row, seen[row]))
            seen[row] += 1
        answers: dict[int, str] = {}
        with tqdm(total=len(requests), desc="Generating", disable=disable_tqdm) as bar:
            for settings, rows in together.items():
                self._generate(rows, settings, requests, answers, bar.update)
        return [answers[index] for index in range(len(requests))]

    def _generate(
        self, rows: Sequence[Request], settings: GenerationSettings, requests: Sequence[Instance],
        answers: dict[int, str], on_answer: Callable[[], Any],
    ) -> None:  # fmt: skip
        from lem.chat.generate import prefix_of

        prompts = {row.id: row.tokens for row in rows}
        shared = prefix_of(list(prompts.values())) if len(rows) > 1 else ()
        for completion in self.served.decode(rows, settings, shared):
            request = requests[completion.id]
            if completion.error is not None:
                raise LemError(f"task {request.task_name}, document {request.doc_id}: no answer ({completion.error}).")
            stops = read_stops(request.args[1])
            answer = read_answer(self.served.chat, prompts[completion.id], completion, stops)
            answers[completion.id] = answer.text
            self.cache_hook.add_partial("generate_until", request.args, answer.text)
            on_answer()

    def _request(self, index: int, request: Instance, settings: GenerationSettings, row: str, repeat: int) -> Request:
        from lem.chat.generate import Request
        from lem.chat.sampling import row_seed

        tokens = self.tok_encode(str(request.args[0])) or [self.prefix_token_id]
        room = self.max_length - settings.max_tokens
        self._note_truncation(len(tokens) - room)
        return Request(index, tuple(tokens[-room:]), row_seed(self.seed, row, repeat))


def _pair(context: Sequence[int], tokens: Sequence[int]) -> Continuation:
    from lem.chat.likelihood import Continuation

    return Continuation(tuple(context), tuple(tokens))


def main() -> int:
    """lm-eval's command line with our model registered; what a person can mend is one sentence and exit code 2."""
    from lm_eval.__main__ import cli_evaluate  # type: ignore[import-untyped]

    try:
        cli_evaluate()
    except LemError as error:
        print(f"lem: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
