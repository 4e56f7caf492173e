"""One line of lm-eval's samples as a document: probe, what was sent, answers and marks.

A line that an export of ours wrote says more under "lem", and that goes first: the probe's id, which repeat each text
is, how it ended, and the scores of every repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lem.interop.harness_files import SampleFile, about_task
from lem.interop.harness_rows import Mark, Request, Text, document_id, marks_of, messages_of, requests_of, texts_of
from lem.interop.lines import Line

# lm-eval's names of settings, and ours.
SETTINGS = {
    "max_gen_toks": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "seed": "seed",
    "until": "stop_seqs",
}  # fmt: skip
DOMAINS = ("domain", "category", "subject")


@dataclass(frozen=True)
class Document:
    """What one line says; `chosen` when its answer is an option and not a text that was generated."""

    number: int
    filtered: str
    probe_id: str
    prompt: str
    domain: str
    benchmark: str
    sent: tuple[dict[str, str], ...]
    texts: list[Text]
    marks: list[Mark]
    left_out: set[str]
    settings: dict[str, Any]
    chosen: bool


def read_document(line: Line, file: SampleFile) -> Document:
    """Read one line of a samples file.   Raises: DataError, with the line, for anything malformed."""
    number, ours = document_id(line), _ours(line)
    requests = requests_of(line)
    texts = texts_of(line, requests)
    doc = line.row.get("doc")
    known = doc if isinstance(doc, dict) else {}
    sent = messages_of(requests[0].context)
    if ours is not None:
        texts, marks, left_out = _our_texts(line, ours, texts), _our_marks(ours), set[str]()
        probe_id, benchmark = str(ours.get("probe_id", number)), str(ours.get("benchmark", ""))
        prompt = str(known.get("prompt", ""))
    else:
        marks, left_out = marks_of(line, [text.repeat for text in texts])
        probe_id, benchmark = f"{file.task}/{number}", file.task
        prompt = _question(file, known, requests[0].context, sent)
    return Document(
        number,
        line.text_or_none("filter") or "none",
        probe_id,
        prompt,
        next((known[name] for name in DOMAINS if isinstance(known.get(name), str)), ""),
        benchmark,
        sent,
        texts,
        marks,
        left_out,
        _settings(requests[0]),
        chosen=requests[0].option is not None,
    )


def _settings(request: Request) -> dict[str, Any]:
    given = {ours: request.settings[theirs] for theirs, ours in SETTINGS.items() if theirs in request.settings}
    return {**given, "temperature": 0.0} if request.settings.get("do_sample") is False else given


def _question(file: SampleFile, doc: dict[str, Any], context: str, sent: Sequence[dict[str, str]]) -> str:
    """The document's own text, if the task's template gives it and it stands in what was sent; else what was sent.

    Examples, a system instruction and a chat template around the question then do not make another probe of it.
    """
    config = about_task(file, "configs")
    template = config.get("doc_to_text") if isinstance(config, dict) else None
    if isinstance(template, str) and template.strip():
        text = doc.get(template) if template in doc else _rendered(template, doc)
        if isinstance(text, str) and text.strip() and any(text.strip() in message["content"] for message in sent):
            return text.strip()
    asked = [message["content"] for message in sent if message["role"] != "system"]
    return asked[0] if len(asked) == 1 else context


def _rendered(template: str, doc: dict[str, Any]) -> str | None:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(template).render(**doc)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return None  # a filter that only lm-eval has, or a template that is no text


def _ours(line: Line) -> dict[str, Any] | None:
    found = line.row.get("lem")
    if found is None:
        return None
    entries = found.get("repeats") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(_is_repeat(entry) for entry in entries):
        raise line.error("field 'lem' does not hold the repeats of this probe; export the run again.")
    return dict(found)


def _is_repeat(entry: Any) -> bool:
    parts = [entry.get(name, {}) for name in ("scores", "unscored")] if isinstance(entry, dict) else [None]
    return all(isinstance(part, dict) for part in parts) and type(entry.get("repeat")) is int


def _our_texts(line: Line, ours: dict[str, Any], texts: Sequence[Text]) -> list[Text]:
    if len(texts) != len(ours["repeats"]):
        raise line.error(f"it holds {len(texts)} texts and names {len(ours['repeats'])} repeats; export the run again.")
    return [
        replace(text, repeat=entry["repeat"], finish_reason=entry.get("finish_reason"))
        for text, entry in zip(texts, ours["repeats"], strict=True)
    ]


def _our_marks(ours: dict[str, Any]) -> list[Mark]:
    return [
        Mark(name, entry["repeat"], value, entry.get("unscored", {}).get(name))
        for entry in ours["repeats"]
        for name, value in entry.get("scores", {}).items()
    ]
