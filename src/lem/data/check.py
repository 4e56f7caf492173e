"""`lem data check`: is a training folder well-formed, free of copies, and free of evaluation probes?

Every *.jsonl below the folder is a chat file. Files of one folder are splits of one data set: they may not share a
prompt, and no two of their prompts or answers may be near-duplicates (3-gram Jaccard above 0.3 for prompts, 5-gram
above 0.15 for answers). A folder named `placebo` is the control of the folder above it: the same prompts on purpose,
other answers. Every prompt and answer is compared with every probe. Nothing stops at the first finding.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lem.data.chat_examples import ChatExample, LineProblem, parse_chat_line
from lem.data.contamination import (
    ProbeSource,
    check_corpus_files,
    check_probes,
    find_probe_files,
    protected_index,
    read_corpus,
    read_probe_sources,
)
from lem.data.findings import KINDS, DataReport, FileSummary, Finding, lengths
from lem.data.similarity import (
    ANSWER_JACCARD,
    ANSWER_N,
    PROMPT_JACCARD,
    PROMPT_N,
    SimilarPair,
    near_duplicates,
    near_duplicates_between,
    words,
)
from lem.errors import UserError
from lem.paths import display_path

PLACEBO = "placebo"


@dataclass(frozen=True)
class _ChatFile:
    """A parsed file; `name` is its path below the checked folder."""

    name: str
    examples: tuple[ChatExample, ...]
    findings: tuple[Finding, ...]

    @property
    def folder(self) -> str:
        return str(Path(self.name).parent)


def check_data(
    directory: Path, seeds: Sequence[Path], extra: Sequence[Path] = (), kernels: Sequence[Path] = ()
) -> DataReport:
    """Check every chat file below a folder against itself, its siblings, its placebo and the probes.

    Args:  directory: holds *.jsonl chat files, at any depth.
           seeds: probe files, or folders of them.
           extra: corpus files (.jsonl, .json or text) that may share no eight words with training, probes or kernels.
           kernels: kernel files, which only `extra` is compared with.
    Raises: UserError if a path is missing or there is no chat file; DataError if a probe or corpus file is malformed.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the folder that holds train.jsonl.")
    paths = sorted(path for path in directory.rglob("*.jsonl") if path.is_file())
    if not paths:
        raise UserError(f"{directory}: no .jsonl file in this folder; put train.jsonl and valid.jsonl there.")
    probe_files = find_probe_files(seeds)
    sources = read_probe_sources(probe_files)
    files = [_read(path, path.relative_to(directory).as_posix()) for path in paths]
    findings = [finding for file in files for finding in file.findings]
    for siblings in _by_folder(files).values():
        findings += _copies(siblings)
    findings += _placebos(files)
    findings += check_probes([(file.name, example) for file in files for example in file.examples], sources)
    if extra:
        findings += check_corpus_files(extra, protected_index(_protected(files, sources, kernels)))
    return DataReport(
        directory=display_path(directory),
        files=tuple(_summary(file) for file in files),
        n_probes=len(sources),
        probe_files=tuple(dict.fromkeys(file.name for file in probe_files)),
        corpus_files=tuple(display_path(path) for path in extra),
        findings=tuple(sorted(findings, key=_order)),
    )


def _order(finding: Finding) -> tuple[int, str, int, str]:
    return list(KINDS).index(finding.kind), finding.file, finding.line, finding.other


def _read(path: Path, name: str) -> _ChatFile:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        number = path.read_bytes()[: error.start].count(b"\n") + 1
        return _ChatFile(
            name, (), (Finding("schema", name, number, "not UTF-8 text, so nothing in the file was read"),)
        )
    examples: list[ChatExample] = []
    findings: list[Finding] = []
    for number, line in enumerate(content.split("\n"), start=1):
        parsed = parse_chat_line(line) if line.strip() else None
        if isinstance(parsed, LineProblem):
            findings.append(Finding(parsed.kind, name, number, parsed.what))
        elif parsed is not None:
            examples.append(ChatExample(parsed, number))
    if not examples and not findings:
        findings.append(Finding("empty", name, 1, "the file has no example"))
    return _ChatFile(name, tuple(examples), tuple(findings))


def _by_folder(files: Sequence[_ChatFile]) -> dict[str, list[_ChatFile]]:
    folders: defaultdict[str, list[_ChatFile]] = defaultdict(list)
    for file in files:
        folders[file.folder].append(file)
    return dict(folders)


def _copies(siblings: Sequence[_ChatFile]) -> list[Finding]:
    """Duplicate rows and prompts, and near-duplicates, within and between the splits of one folder."""
    rows = [(file.name, example) for file in siblings for example in file.examples]
    findings: list[Finding] = []
    first_row: dict[tuple[tuple[str, str], ...], int] = {}
    first_prompt: dict[str, int] = {}
    known: set[tuple[int, int]] = set()
    copied_rows: set[tuple[int, int]] = set()
    for number, (file, example) in enumerate(rows):
        row = tuple((message["role"], message["content"]) for message in example.messages)
        same_row = first_row.setdefault(row, number)
        same_prompt = first_prompt.setdefault(" ".join(words(example.prompt)) or example.prompt, number)
        if same_prompt == number:
            continue
        known.add((same_prompt, number))
        between = rows[same_prompt][0] != file
        if same_row != number:
            copied_rows.add((same_row, number))
            findings.append(_collision("duplicate-row", rows, same_row, number, "the whole row repeats"))
        if between:
            findings.append(_collision("shared-prompt", rows, same_prompt, number, "the prompt is also"))
        elif same_row == number:
            findings.append(_collision("duplicate-prompt", rows, same_prompt, number, "the prompt repeats"))
    prompts = near_duplicates([example.prompt for _, example in rows], PROMPT_N, PROMPT_JACCARD)
    answers = near_duplicates([example.answer for _, example in rows], ANSWER_N, ANSWER_JACCARD)
    findings += _near("near-prompt", "prompt", rows, [p for p in prompts if (p.left, p.right) not in known])
    findings += _near("near-answer", "answer", rows, [p for p in answers if (p.left, p.right) not in copied_rows])
    return findings


_Rows = Sequence[tuple[str, ChatExample]]


def _place(rows: _Rows, index: int) -> str:
    file, example = rows[index]
    return f"{file} line {example.line}"


def _collision(kind: str, rows: _Rows, earlier: int, later: int, what: str) -> Finding:
    file, example = rows[later]
    place = _place(rows, earlier)
    return Finding(kind, file, example.line, f"{what} {place}", place)


def _near(kind: str, part: str, rows: _Rows, pairs: Sequence[SimilarPair]) -> list[Finding]:
    n = PROMPT_N if part == "prompt" else ANSWER_N
    return [
        _collision(kind, rows, pair.left, pair.right, f"the {part} has {n}-gram Jaccard {pair.jaccard:.2f} with")
        for pair in pairs
    ]


def _placebos(files: Sequence[_ChatFile]) -> list[Finding]:
    by_name = {file.name: file for file in files}
    findings: list[Finding] = []
    for file in files:
        path = Path(file.name)
        if path.parent.name != PLACEBO:
            continue
        parent = by_name.get((path.parent.parent / path.name).as_posix())
        if parent is None:
            findings.append(Finding("placebo-parent", file.name, 1, f"there is no {path.name} one folder up"))
        else:
            findings += _control(file, parent)
    return findings


def _control(placebo: _ChatFile, parent: _ChatFile) -> list[Finding]:
    """A control must ask the same things, in the same order, and answer them differently."""
    findings: list[Finding] = []
    for mine, theirs in ((placebo, parent), (parent, placebo)):
        missing = Counter(example.prompt for example in theirs.examples)
        for example in mine.examples:
            missing[example.prompt] -= 1
            if missing[example.prompt] < 0:
                what = f"the prompt is not in {theirs.name}"
                findings.append(Finding("placebo-prompt", mine.name, example.line, what, theirs.name))
    if not findings:
        for example, other in zip(placebo.examples, parent.examples, strict=True):
            if example.prompt != other.prompt:
                place = f"{parent.name} line {other.line}"
                findings.append(
                    Finding("placebo-order", placebo.name, example.line, f"not the prompt of {place}", place)
                )
                break
    rows = [(file.name, example) for file in (parent, placebo) for example in file.examples]
    offset = len(parent.examples)
    answers = [example.answer for _, example in rows]
    pairs = near_duplicates_between(answers[:offset], answers[offset:], ANSWER_N, ANSWER_JACCARD)
    shifted = [SimilarPair(pair.left, pair.right + offset, pair.jaccard) for pair in pairs]
    return findings + _near("near-answer", "answer", rows, shifted)


def _protected(
    files: Sequence[_ChatFile], sources: Sequence[ProbeSource], kernels: Sequence[Path]
) -> dict[str, list[str]]:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        for example in file.examples:
            texts[f"{file.name} line {example.line}"] += [message["content"] for message in example.messages]
    for source in sources:
        texts[source.label].append(source.probe.prompt)
    for kernel in kernels:
        texts[kernel.name] += [text for _, text in read_corpus(kernel)]
    return dict(texts)


def _summary(file: _ChatFile) -> FileSummary:
    return FileSummary(
        file=file.name,
        rows=len(file.examples),
        bad_lines=sum(finding.kind in ("schema", "roles", "empty") for finding in file.findings),
        prompts=lengths([len(words(example.prompt)) for example in file.examples]),
        answers=lengths([len(words(example.answer)) for example in file.examples]),
    )
