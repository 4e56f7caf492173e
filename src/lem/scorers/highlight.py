"""Where the signals of v2 and v3 stand in a text, as patterns that a browser can run.

The patterns are translated from those that the scorers count with, so a page that shows a text can mark what was
counted without a word list of its own. For v2 the number of matches of a signal's patterns is the scorer's raw count.
v3 reads plain lower-case prose in windows and counts an entry once in each: its patterns show where entries stand, in
the text as it was written, and their number may exceed what v3 counts. Signals of the whole text (repetition,
paragraphs, an empty answer) have no place and no pattern.
"""

from __future__ import annotations

import re

from lem.scorers import v2, v3
from lem.scorers.lexicon import load

Pattern = dict[str, str]

_WORD = r"\p{L}\p{N}_"
_SPACE = r"\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_DIGIT = r"\p{Nd}"
_SETS = {"w": _WORD, "s": _SPACE, "d": _DIGIT}
_BOUNDARY = f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))"
# What must keep its backslash where the flag u makes every needless one an error.
_SYNTAX = frozenset("^$\\.*+?()[]{}|/")
_TOKEN = re.compile(r"\\(.)|(\[\^?)|(\])|(\.)|(.)", re.DOTALL)
_APOSTROPHE = "['\u2019]"


def highlights() -> dict[str, dict[str, list[Pattern]]]:
    """Scorer -> signal -> patterns, each with the `source` and the `flags` of a JavaScript regular expression."""
    return {"v2": _v2(), "v3": _v3()}


def javascript(pattern: str, flags: str = "u") -> Pattern:
    r"""Translate a Python pattern so that it matches the same text in JavaScript.

    `\w`, `\s`, `\d`, `\b` and `.` mean what they mean in Python (letters and blanks of every script; the dot is
    everything but a line feed). Named groups, inline flags and a `[` in a class are not handled: no scorer has any.
    """
    parts: list[str] = []
    inside = False
    for escaped, opening, closing, dot, literal in _TOKEN.findall(pattern):
        if escaped in _SETS:
            parts.append(_SETS[escaped] if inside else f"[{_SETS[escaped]}]")
        elif escaped == "b":
            parts.append(_BOUNDARY)
        elif escaped:
            kept = escaped.isalnum() or escaped in _SYNTAX or (inside and escaped == "-")
            parts.append(f"\\{escaped}" if kept else escaped)
        elif opening or closing:
            inside = bool(opening)
            parts.append(opening or closing)
        elif dot:
            parts.append("." if inside else r"[^\n]")
        else:
            parts.append(literal)
    return {"source": "".join(parts), "flags": flags}


def _v2() -> dict[str, list[Pattern]]:
    found = {signal: [javascript(pattern.pattern, "iu")] for signal, pattern in v2._PLAIN.items()}
    found["formulaic_preamble"] = [javascript(f"^(?:{v2._PREAMBLE.pattern})", "iu")]
    found["first_person"] = [javascript(v2._FIRST_PERSON_PLAIN.pattern)]
    found["creative_form"] = [javascript(v2._CREATIVE_PLAIN.pattern)]
    found["questioning"] = [javascript(r"\?")]
    found["specificity"] += [_after_the_first_character(), javascript(v2._NUMBER_PLAIN.pattern)]
    return {signal: found[signal] for signal in v2.SIGNALS if signal in found}


def _after_the_first_character() -> Pattern:
    r"""v2's capitalised words, which it looks for in `text[1:]`: for them the first character does not exist."""
    opening = r"(?<!\. )\b"
    if not v2._CAPITALISED_PLAIN.pattern.startswith(opening):
        raise ValueError("v2 looks for capitalised words in another way than this translation knows")
    word = javascript(v2._CAPITALISED_PLAIN.pattern.removeprefix(opening))["source"]
    start = rf"(?:(?<=^[^])|(?<=[^])(?<![^]\. ){_BOUNDARY})"
    return {"source": start + word, "flags": "u"}


def _v3() -> dict[str, list[Pattern]]:
    found: dict[str, list[Pattern]] = {}
    for name, signal in load("signals").items():
        entries = [v3._entry_regex(entry) for entry in signal["entries"]]
        found[name] = [_loose(rf"(?<![\w'-])(?:{'|'.join(entries)})")] if entries else []
    for name, pattern in (
        ("questioning", v3._QUESTION), ("creative_form", v3._FORM), ("specificity", v3._NAME),
        ("specificity", v3._NUMBER),
    ):  # fmt: skip
        found[name].append(javascript(pattern.pattern))
    marker, after, before = v3._refusal_patterns()
    found["refusals"] = [_loose(rf"(?<!{before.pattern.removesuffix('$')}){marker.pattern}(?!{after.pattern})")]
    found["formulaic_opening"] = [_loose(rf"^{v3._opening_pattern().pattern}")]
    return {name: patterns for name, patterns in found.items() if patterns}


def _loose(pattern: str) -> Pattern:
    """A pattern for lower-case text with straight apostrophes, made to fit text as it was written."""
    return javascript(_outside_classes(pattern), "iu")


def _outside_classes(pattern: str) -> str:
    """Let a straight apostrophe stand for the curly one too, except in a class, which would hold a class then."""
    parts, inside = [], False
    for token in re.findall(r"\\.|[\s\S]", pattern):
        inside = token == "[" or (inside and token != "]")
        parts.append(_APOSTROPHE if token == "'" and not inside else token)
    return "".join(parts)
