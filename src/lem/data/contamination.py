"""Contamination: evaluation probes in training text, and protected text in a corpus.

A prompt or an answer is contaminated by a probe if they share eight words in a row, or if it holds the whole of a
probe of four to seven words (`lem.data.short_texts`); a prompt also if its 3-gram Jaccard with the probe is above 0.3.
A free rephrasing that shares none of these passes: keeping those out is the writer's duty. The corpus check knows only
the eight words in a row, against any text that must stay out of the corpus.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.data.chat_examples import ChatExample
from lem.data.findings import Finding
from lem.data.probes import Probe, read_probes
from lem.data.short_texts import ShortTexts
from lem.data.similarity import PROMPT_JACCARD, PROMPT_N, NgramIndex, near_duplicates_between, shingles
from lem.errors import DataError, UserError

_NEVER_TRAINED = "probes are never trained on: remove it or write another."


@dataclass(frozen=True)
class ProbeSource:
    """A probe and the name of the file it was read from."""

    probe: Probe
    file: str

    @property
    def label(self) -> str:
        """How findings name it: `P17 of P01-P100.json`."""
        return f"{self.probe.id} of {self.file}"


def find_probe_files(seeds: Sequence[Path]) -> list[Path]:
    """List the probe files behind paths: a file is itself, a folder every .json below it.

    Raises: UserError if a path is missing or a folder has no probe file.
    """
    found: list[Path] = []
    for seed in seeds:
        files = sorted(seed.rglob("*.json")) if seed.is_dir() else [seed] if seed.is_file() else []
        if not files:
            raise UserError(f"{seed}: no probe file here; give --seeds a .json file of probes or a folder of them.")
        found += files
    return found


def read_probe_sources(files: Sequence[Path]) -> list[ProbeSource]:
    """Read probe files; a probe that several files hold counts once, under the first of them.

    Raises: DataError from a malformed probe file.
    """
    found: dict[tuple[str, str], ProbeSource] = {}
    for file in files:
        for probe in read_probes(file):
            found.setdefault((probe.id, probe.prompt), ProbeSource(probe, file.name))
    return list(found.values())


def check_probes(examples: Sequence[tuple[str, ChatExample]], sources: Sequence[ProbeSource]) -> list[Finding]:
    """Find training prompts and answers that hold words of a probe, and prompts that are near to one.

    Args:  examples: (file name, example) pairs.
    """
    index = _ProbeWords(sources)
    findings: list[Finding] = []
    for file, example in examples:
        for part, text in (("prompt", example.prompt), ("answer", example.answer)):
            for label, runs in index.shared(text).items():
                what = f"the {part} shares {_count_words(runs)} with {label}"
                findings.append(Finding("probe-words", file, example.line, what, label, " ... ".join(runs)))
    prompts = [example.prompt for _, example in examples]
    probes = [source.probe.prompt for source in sources]
    for pair in near_duplicates_between(prompts, probes, PROMPT_N, PROMPT_JACCARD):
        file, example = examples[pair.left]
        label = sources[pair.right].label
        what = f"the prompt is near to {label} ({PROMPT_N}-gram Jaccard {pair.jaccard:.2f})"
        findings.append(Finding("near-probe", file, example.line, what, label))
    return findings


def refuse_probes(texts: Iterable[tuple[str, str]], seeds: Sequence[Path], ids: Iterable[tuple[str, str]] = ()) -> None:
    """Refuse training texts that hold an evaluation probe: its words, or a near-duplicate.

    Args:  texts: (place, text) pairs; the place is how the message names the text.
           seeds: probe files, or folders of them.
           ids: (place, id) pairs, none of which may be the id of a probe, whatever its case.
    Raises: DataError naming the first such place and the probe; UserError if there is no probe file.
    """
    sources = read_probe_sources(find_probe_files(seeds))
    known = {source.probe.id.casefold(): source.label for source in reversed(sources)}
    for place, name in ids:
        if name.strip().casefold() in known:
            label = known[name.strip().casefold()]
            raise DataError(f"{place}: id '{name}' is that of evaluation probe {label}; {_NEVER_TRAINED}")
    index = _ProbeWords(sources)
    near = _NearIndex([source.probe.prompt for source in sources])
    for place, text in texts:
        if shared := index.shared(text):
            label, runs = next(iter(shared.items()))
            raise DataError(f"{place} shares {_count_words(runs)} with evaluation probe {label}; {_NEVER_TRAINED}")
        if nearest := near.nearest(text):
            number, jaccard = nearest
            label, what = sources[number].label, f"{PROMPT_N}-gram Jaccard {jaccard:.2f}"
            raise DataError(f"{place} is near to evaluation probe {label} ({what}); {_NEVER_TRAINED}")


class _ProbeWords:
    """The words by which probes are known: any eight in a row of a long one, the whole of a short one."""

    def __init__(self, sources: Sequence[ProbeSource]) -> None:
        texts = [(source.label, source.probe.prompt) for source in sources]
        self._runs, self._whole = NgramIndex(texts), ShortTexts(texts)

    def shared(self, text: str) -> dict[str, list[str]]:
        """Map the label of each probe that a text has words of to those words."""
        return {**self._whole.held(text), **self._runs.shared(text)}


class _NearIndex:
    """The n-grams of few prompts, to find the one that is near to a text; many texts go by one at a time."""

    def __init__(self, prompts: Sequence[str]) -> None:
        sets = [shingles(prompt, PROMPT_N) for prompt in prompts]
        self._sizes = [len(grams) for grams in sets]
        self._holders: dict[str, list[int]] = {}
        for number, grams in enumerate(sets):
            for gram in grams:
                self._holders.setdefault(gram, []).append(number)

    def nearest(self, text: str) -> tuple[int, float] | None:
        """The prompt with the highest Jaccard above the bar for prompts, and that Jaccard."""
        grams = shingles(text, PROMPT_N)
        common = Counter(number for gram in grams & self._holders.keys() for number in self._holders[gram])
        jaccards = {number: n / (len(grams) + self._sizes[number] - n) for number, n in common.items()}
        best = max(jaccards, key=lambda number: (jaccards[number], -number), default=None)
        return (best, jaccards[best]) if best is not None and jaccards[best] > PROMPT_JACCARD else None


def check_corpus(
    corpus_texts: Iterable[str], against: Mapping[str, str | Iterable[str]], name: str = "corpus"
) -> list[Finding]:
    """Find the corpus texts that share eight words in a row with a protected text.

    Args:  corpus_texts: the corpus, read once and never held in memory; a finding's `line` is the text's number from 1.
           against: protected texts by name, for example {"seeds/heldout.json": prompts, "kernel/placebo.txt": text}.
           name: what findings call the corpus.
    """
    return _corpus_findings(name, enumerate(corpus_texts, start=1), protected_index(against))


def protected_index(against: Mapping[str, str | Iterable[str]]) -> NgramIndex:
    """Index protected texts by name for `check_corpus_files`."""
    return NgramIndex(
        (name, text) for name, texts in against.items() for text in ([texts] if isinstance(texts, str) else texts)
    )


def check_corpus_files(files: Iterable[Path], index: NgramIndex) -> list[Finding]:
    """Check corpus files against an index: .jsonl line by line, .json by its strings, any other by its paragraphs."""
    return [finding for file in files for finding in _corpus_findings(file.name, read_corpus(file), index)]


def read_corpus(path: Path) -> list[tuple[int, str]]:
    """Return the texts of a corpus file with the line each starts on.

    JSON keys are not text: only string values are. A chat line gives one text per message, so no run of words
    crosses from one message to the next.
    Raises: UserError if the file is missing; DataError if it is not UTF-8 or a JSON line does not parse.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such text file; give the path of a corpus or kernel file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    if path.suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
        return [(number, text) for number, line in lines for text in _strings(_parse(line, path, number))]
    if path.suffix == ".json":
        return [(1, text) for text in _strings(_parse(content, path, 1))]
    return _paragraphs(content)


def _corpus_findings(file: str, texts: Iterable[tuple[int, str]], index: NgramIndex) -> list[Finding]:
    return [
        Finding("corpus-words", file, line, f"shares {_count_words(runs)} with {name}", name, " ... ".join(runs))
        for line, text in texts
        for name, runs in index.shared(text).items()
    ]


def _count_words(runs: Sequence[str]) -> str:
    longest = max(len(run.split(" ")) for run in runs)
    return f"{longest} words in a row" + (f" and {len(runs) - 1} more passages" if len(runs) > 1 else "")


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {number + error.lineno - 1}: not valid JSON ({error.msg}).") from None


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _strings(child)]


def _paragraphs(content: str) -> list[tuple[int, str]]:
    """Blank-line-separated paragraphs, so that a hard line break never hides a run of words."""
    found: list[tuple[int, list[str]]] = []
    open_paragraph = False
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            open_paragraph = False
        elif open_paragraph:
            found[-1][1].append(line)
        else:
            found.append((number, [line]))
            open_paragraph = True
    return [(number, " ".join(lines)) for number, lines in found]
