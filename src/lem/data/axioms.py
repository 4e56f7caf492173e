"""Kernels that hold a part of the axioms of a JSON kernel: the first n, or all but one.

A part is cut out of the text of the whole kernel, so that everything else - title, layout, the other fields - is
the same to the letter, and the kernel with all axioms is the whole text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lem.data.kernels import Kernel
from lem.errors import DataError

AXIOM_SETS = ("prefixes", "leave-one-out")
_DECODER = json.JSONDecoder()
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


@dataclass(frozen=True)
class _Parts:
    """The text of a kernel around and between its axioms; `between` stands between any two."""

    before: str
    axioms: tuple[str, ...]
    between: str
    after: str

    def only(self, kept: Sequence[int]) -> str:
        return self.before + self.between.join(self.axioms[index] for index in kept) + self.after


def axiom_kernels(kernel: Kernel, sets: Sequence[str]) -> list[Kernel]:
    """The parts of a kernel as kernels of their own.

    Args:  sets: of AXIOM_SETS. "prefixes": `axioms-1`, `axioms-1-2`, ... up to all n; "leave-one-out":
           `axioms-without-1`, ..., and `axioms-1-n` as the whole that they are compared with.
    Raises: DataError if the kernel is no JSON object with a list `axioms` of two or more.
    """
    parts = _split(kernel)
    n = len(parts.axioms)
    chosen: dict[str, list[int]] = {}
    if "prefixes" in sets:
        chosen |= {_prefix_name(last): list(range(last)) for last in range(1, n + 1)}
    if "leave-one-out" in sets:
        chosen |= {f"axioms-without-{out + 1}": [index for index in range(n) if index != out] for out in range(n)}
        chosen |= {_prefix_name(n): list(range(n))}
    return [replace(kernel, name=name, text=parts.only(kept)) for name, kept in chosen.items()]


def _prefix_name(last: int) -> str:
    return "axioms-1" if last == 1 else f"axioms-1-{last}"


def _split(kernel: Kernel) -> _Parts:
    """Find the axioms in the text of a kernel.   Raises: DataError if there are none to take apart."""
    spans = _spans(kernel)
    texts = tuple(kernel.text[start:end] for start, end in spans)
    between = kernel.text[spans[0][1] : spans[1][0]]
    return _Parts(kernel.text[: spans[0][0]], texts, between, kernel.text[spans[-1][1] :])


def _spans(kernel: Kernel) -> list[tuple[int, int]]:
    """Where each axiom begins and ends in the text of a kernel."""
    text = kernel.text
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = None
    axioms = whole.get("axioms") if isinstance(whole, dict) else None
    if not isinstance(axioms, list) or len(axioms) < 2:
        raise DataError(
            f"{kernel.path}: --axioms takes a JSON kernel with a list 'axioms' of two or more apart, and this is none; "
            "give --kernel PATH of such a kernel, like kernel/axioms.json."
        )
    at = _value_of(text, "axioms") + 1
    spans = []
    for _ in axioms:
        start = _skip(text, at)
        end = _DECODER.raw_decode(text, start)[1]
        spans.append((start, end))
        at = _skip(text, end) + 1
    return spans


def _skip(text: str, at: int) -> int:
    """The next place that is no white space."""
    found = _NOT_SPACE.search(text, at)
    return len(text) if found is None else found.start()


def _value_of(text: str, wanted: str) -> int:
    """Where the value of the last such key of the outermost object begins, in text that is known to be valid JSON."""
    found = -1
    at = _skip(text, 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, end) + 1)
        found = start if key == wanted else found
        at = _skip(text, _DECODER.raw_decode(text, start)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
    return found
