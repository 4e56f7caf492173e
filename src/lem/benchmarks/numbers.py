r"""Numbers in an answer: where they stand and what they are worth.

A number is written in English notation: commas group thousands, a point starts the decimals. Read as one number are
`1,000`, `1,00,000`, `.5`, `-5` (also with U+2212), `-$5`, `$-5`, `3/4`, `1 1/2`, `\frac{3}{4}`, `2.5e3`, and digits in
groups of three parted by a no-break, thin or figure space or an underscore. Currency signs, per cent signs and units
are dropped, `45%` is 45, and so are underscores at the edge of a word, which are emphasis: `__42__` is 42.
`1.000,5` is two numbers, 1.000 and 5; so are `1,2`, `5:30` and `5-7`; an ordinary space parts numbers. A hyphen is a
minus only where no letter, digit, point, closing bracket, per cent or currency sign stands before it. Digits behind a
letter (`x2`) are no number, digits before one (`18th`) are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CURRENCY = "$€£¥₹₦₩₽₺₴₫฿"
_PARTING = "\u00a0\u2007\u2009\u202f_"
_SIGN = rf"(?P<sign>(?<![\w.)\]}}%{_CURRENCY}])-)?"
_MONEY = rf"(?:\\?[{_CURRENCY}]\s?(?P<inner>-)?)?"
_LATEX = r"(?:(?<!\w)(?P<units>\d{1,9}))?\\[dt]?frac\{(?P<top>\d{1,9})\}\{(?P<bottom>\d{1,9})\}"
_SLASH = r"(?<![\w/])(?:(?P<wholes>\d{1,9}) )?(?P<over>\d{1,9})/(?P<under>\d{1,9})(?![\d/.,]*\d)"
_WHOLE = rf"\d{{1,3}}(?:[{_PARTING}]\d{{3}})+(?!\d)|\d{{1,3}}(?:,\d{{2,3}})*,\d{{3}}(?!\d)|\d+"
_PLAIN = rf"(?<!\w)(?P<whole>{_WHOLE})(?P<decimals>\.\d+)?(?P<power>[eE][+-]?\d{{1,3}}(?!\w))?"
_POINT = r"(?<![\w.])(?P<point>\.\d+)"
_NUMBER = re.compile(rf"{_SIGN}{_MONEY}(?:{_LATEX}|{_SLASH}|{_PLAIN}|{_POINT})")
_GROUPING = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;:]|,\\!)(?=\d)")
_EMPHASIS = re.compile(r"(?<!\w)_+|(?<!_)_++(?!\w)")
_OPENING = re.compile(r"""(?:[\s*:=~\u2248$\\(\[{"'`<>]|boxed\{)*""")


def numbers_in(text: str) -> list[float]:
    """Every number of a text, in order."""
    return [value for value, _ in _found(_readable(text))]


def last_number(text: str) -> float | None:
    """The last number of a text; None when it has none."""
    found = numbers_in(text)
    return found[-1] if found else None


def leading_number(text: str) -> float | None:
    r"""The number that a text opens with, behind nothing but white space and marks such as `**`, `:` or `\boxed{`."""
    readable = _readable(text)
    value, start = next(_found(readable), (None, 0))
    return value if _OPENING.fullmatch(readable, 0, start) else None


def _readable(text: str) -> str:
    return _EMPHASIS.sub("", _GROUPING.sub(",", text.replace("\u2212", "-")))


def _found(readable: str) -> Iterator[tuple[float, int]]:
    """Each number with the position that it starts at."""
    for match in _NUMBER.finditer(readable):
        value = _value(match.groupdict())
        if value is not None:
            yield value, match.start()


def _value(found: dict[str, str | None]) -> float | None:
    """What a match is worth; None for a fraction over zero."""
    above, below = found["top"] or found["over"], found["bottom"] or found["under"]
    if above and below:
        if int(below) == 0:
            return None
        size = int(found["units"] or found["wholes"] or 0) + int(above) / int(below)
    elif found["point"]:
        size = float(found["point"])
    else:
        digits = re.sub(rf"[,{_PARTING}]", "", found["whole"] or "")
        size = float(digits + (found["decimals"] or "") + (found["power"] or ""))
    return -size if found["sign"] or found["inner"] else size
