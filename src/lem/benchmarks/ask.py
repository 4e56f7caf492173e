"""What is sent for an item: the text for a chat model, and the plain text for a model without a chat template.

The texts are the templates beside this module, with the question in the place of `{question}`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from lem.benchmarks.table import find
from lem.data import Probe
from lem.data.items import Item

Form = Literal["chat", "completion"]
_PLACE = "{question}"


def ask(item: Item, form: Form) -> str:
    """The exact text sent; "completion" ends in "Answer:"."""
    return template(find(item.benchmark).name, form).replace(_PLACE, item.question.strip())


def choices(item: Item) -> tuple[str, ...]:
    """The answers whose likelihood is measured in place of generating; () where the model answers in words."""
    return find(item.benchmark).choices(item)


def stop_strings(task: str, form: Form) -> tuple[str, ...]:
    """Where an answer ends: a plain-text continuation goes on with the next question, a chat answer ends by itself."""
    return find(task).stop_strings if form == "completion" else ()


def probe(item: Item) -> Probe:
    """The item as a probe of a run: its prompt is the question, and both forms of what is sent go with it."""
    benchmark = find(item.benchmark)
    asks = ask(item, "chat")
    measured = choices(item)
    return Probe(
        id=item.id,
        domain=item.domain,
        prompt=item.question,
        benchmark=item.benchmark,
        asks=None if asks == item.question else asks,
        completes=ask(item, "completion"),
        max_tokens=benchmark.max_tokens,
        stop_strings=() if measured else benchmark.stop_strings,
        choices=measured,
    )


@cache
def template(task: str, form: Form) -> str:
    """The template of a task and form; a task without one of its own has the general one."""
    folder = Path(__file__).with_name("templates")
    own = folder / f"{task}.{form}.txt"
    path = own if own.is_file() else folder / f"question.{form}.txt"
    return path.read_text(encoding="utf-8").rstrip("\n")
