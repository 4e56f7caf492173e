"""One thread that owns a model and decodes together what arrives together.

    submit (any thread) --> waiting --window--> groups of equal settings --decode--> futures

MLX belongs to one thread here: loading, rendering and decoding all happen on it, because arrays and tokenizers are
not made for two. A thread that ends without destroying its MLX streams aborts the process, and one that destroys them
cannot use mlx-lm again; so the thread lives until the model is closed or the interpreter ends, and then cleans up.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from lem.errors import LemError, UserError
from lem.interop.served import Answer, Served, read_answer

if TYPE_CHECKING:
    from lem.chat.generate import Completion, GenerationSettings, Request

WINDOW_S = 0.05
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One conversation to answer: its turns, settings, stop sequences, and the 64-bit key of its random stream."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int
    temperature: float
    top_p: float
    stops: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Reply:
    """An answer with what it cost: prompt tokens, rows decoded with it, and whether the model's length limited it."""

    answer: Answer
    n_prompt_tokens: int
    n_together: int
    at_model_length: bool


@dataclass(frozen=True)
class _Waiting:
    question: Question
    future: Future[Reply] = field(default_factory=Future)


@dataclass(frozen=True)
class _Row:
    waiting: _Waiting
    tokens: tuple[int, ...]
    settings: GenerationSettings


class BatchingWorker:
    """Opens a model on its own thread and answers questions there, those that arrive together in one batch."""

    def __init__(self, open_model: Callable[[], Served], window_s: float = WINDOW_S) -> None:
        """Load the model.   Raises: whatever `open_model` raises."""
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._window_s = window_s
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._closing = False
        self._thread = threading.Thread(target=_work_off, args=(self._work,), name="lem-model", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            self.served = self._call(open_model).result()
        except BaseException:
            self.close()
            raise

    def submit(self, question: Question) -> Future[Reply]:
        """Queue a question; the future holds its reply or the error that is its own. Cancelled ones are left out."""
        waiting = _Waiting(question)
        with self._lock:
            self._waiting.append(waiting)
        self._call(self._answer_waiting)
        return waiting.future

    def count_tokens(self, text: str) -> Future[int]:
        """Count the tokens of a text, on the thread that owns the tokenizer."""
        return self._call(lambda: len(self.served.chat.tokenizer.encode(text, add_special_tokens=False)))

    def close(self) -> None:
        """End the thread, at the next row that ends if it is decoding, and forget the model.

        Questions without a reply get an error.
        """
        self._closing = True
        self._work.put(None)
        self._thread.join()
        self.__dict__.pop("served", None)
        atexit.unregister(self.close)
        for waiting in self._waiting:
            waiting.future.cancel()

    def _call(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._work.put(run)
        return future

    def _answer_waiting(self) -> None:
        """Take everything that is waiting, once nothing new has come for a window, and answer it."""
        before = 0
        while 0 < (now := len(self._waiting)) != before:
            before = now
            time.sleep(self._window_s)
        with self._lock:
            taken, self._waiting = self._waiting, []
        taken = [waiting for waiting in taken if waiting.future.set_running_or_notify_cancel()]
        try:
            self._answer(taken)
        except BaseException as error:
            for waiting in taken:
                if not waiting.future.done():
                    waiting.future.set_exception(error)

    def _answer(self, taken: Sequence[_Waiting]) -> None:
        together: dict[Any, list[_Row]] = {}
        for waiting in taken:
            try:
                row = self._render(waiting)
            except LemError as error:
                waiting.future.set_exception(error)
            else:
                together.setdefault(row.settings, []).append(row)
        for settings, rows in together.items():
            self._decode(rows, settings)

    def _render(self, waiting: _Waiting) -> _Row:
        from lem.chat.generate import GenerationSettings
        from lem.chat.render import render

        question, served = waiting.question, self.served
        tokens = render(served.chat, served.conversation(question.messages)).tokens
        settings = GenerationSettings(question.max_tokens, question.temperature, question.top_p)
        room = None if served.max_length is None else served.max_length - len(tokens)
        if room is not None and room < 1:
            raise UserError(
                f"a prompt takes {len(tokens)} tokens but {served.chat.name} reads {served.max_length}; shorten the "
                "sample's input or the kernel."
            )
        if room is not None and room < question.max_tokens:
            settings = replace(settings, max_tokens=room)
        return _Row(waiting, tokens, settings)

    def _decode(self, rows: Sequence[_Row], settings: GenerationSettings) -> None:
        from lem.chat.generate import Request

        requests: list[Request] = [
            Request(index, row.tokens, row.waiting.question.seed) for index, row in enumerate(rows)
        ]
        for completion in self.served.decode(requests, settings, self.served.kernel_prefix):
            if self._closing:
                raise LemError("the model was closed before it answered.")
            row = rows[completion.id]
            if completion.error is not None:
                row.waiting.future.set_exception(LemError(f"the model could not answer: {completion.error}"))
            else:
                row.waiting.future.set_result(self._reply(row, completion, len(rows)))

    def _reply(self, row: _Row, completion: Completion, n_together: int) -> Reply:
        question = row.waiting.question
        answer = read_answer(self.served.chat, row.tokens, completion, question.stops)
        limited = row.settings.max_tokens < question.max_tokens and answer.finish_reason == "length"
        return Reply(answer, len(row.tokens), n_together, limited)


def _work_off(work: SimpleQueue[Callable[[], None] | None]) -> None:
    """The thread: do what is queued until None comes, then destroy the MLX streams that it made."""
    import mlx.core as mx

    while (task := work.get()) is not None:
        task()
        del task  # it may hold the last reference to a model
    mx.clear_streams()
