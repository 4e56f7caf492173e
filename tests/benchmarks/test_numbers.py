"""Numbers are found where a reader of English finds them, and each decision on a doubtful form holds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.benchmarks.numbers import last_number, leading_number, numbers_in

whole = st.integers(-(10**12), 10**12)
before = st.sampled_from(["", "It costs ", "= ", "so: ", "(", "**", "about "])
after = st.sampled_from(["", ".", ". ", "!", "%", " apples", "kg", ")", "**", ",", ", which is it.", "\n"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,000.50", [1000.5]),
        ("-$5 or $-5", [-5, -5]),
        ("\\$1,500", [1500]),
        ("€ 12", [12]),
        ("US$5", [5]),
        ("45%", [45]),
        (".5 and $.50 and -0.5", [0.5, 0.5, -0.5]),
        ("1,000,000 and 1,00,000", [1_000_000, 100_000]),
        ("1.000,5", [1.0, 5]),
        ("1,2 and 1,2345", [1, 2, 1, 2345]),
        ("5\u202f000 and 5\u00a0000 and 5\u2009000 and 5\u2007000", [5000, 5000, 5000, 5000]),
        ("1_000_000 and 1_0 and 12_3456", [1_000_000, 1, 12]),
        ("__42__ _43_ **_44_** __$45__ __-46__ ___47___.", [42, 43, 44, 45, -46, 47]),
        ("a_3 b__4 ____5 GSM8K_039 6_", [5, 6]),
        ("5 000", [5, 0]),
        ("\u22127 and = -28, which", [-7, -28]),
        ("10-7 and 5\u20137 and 10 - 7", [10, 7, 5, 7, 10, 7]),
        ("(3)-2 and 5%-6 and (-7)", [3, 2, 5, 6, -7]),
        ("3/4. 1 1/2, 7/0", [0.75, 1.5]),
        ("12/25/2023 at 5:30", [12, 25, 2023, 5, 30]),
        (r"$\frac{3}{4}$ and 2\frac{1}{2} and -\dfrac{1}{4}", [0.75, 2.5, -0.25]),
        (r"$\boxed{160}$ and \boxed{1{,}000} and 1\,000", [160, 1000, 1000]),
        ("**18** 18. 18th 5pm x2 GSM8K a_3", [18, 18, 18, 5]),
        ("2.5e3 and 3e and 1.2.3", [2500, 3, 1.2, 3]),
        ("no number at all", []),
    ],
)
def test_forms(text: str, expected: list[float]) -> None:
    assert numbers_in(text) == expected


@given(before, whole, after)
def test_a_whole_number_is_read_with_and_without_commas(lead: str, number: int, tail: str) -> None:
    for written in (f"{number}", f"{number:,}", f"{number}".replace("-", "\u2212")):
        assert numbers_in(lead + written + tail) == [number]


@given(before, st.decimals(-(10**6), 10**6, places=2), after)
def test_a_decimal_is_read(lead: str, number: object, tail: str) -> None:
    assert numbers_in(f"{lead}{number}{tail}") == [float(str(number))]


@given(st.integers(0, 10**9), after)
def test_money_is_read_on_either_side_of_its_sign(amount: int, tail: str) -> None:
    for written in (f"${amount:,}", f"\\${amount}", f"£ {amount}", f"{amount} €"):
        assert last_number(f"Together {written}{tail}") == amount
    assert last_number(f"a loss of -${amount}{tail}") == -amount


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error_and_never_as_nan(text: str) -> None:
    found = numbers_in(text)
    assert not any(math.isnan(number) for number in found)
    assert last_number(text) == (found[-1] if found else None)
    assert leading_number(text) in [None, *found[:1]]


def test_more_digits_than_a_float_holds_are_infinite_and_equal_nothing() -> None:
    assert last_number("9" * 5000) == math.inf


@pytest.mark.parametrize(
    "text",
    ["18", " $18", ": **18** eggs", "\n\n$\\boxed{18}$", "= 18 and 19", "\\(18\\)", "__18__", "**_18_**", "<18>"],
)
def test_a_leading_number_stands_behind_marks_only(text: str) -> None:
    assert leading_number(text) == 18


@pytest.mark.parametrize("text", ["", ".\n\n18", "the answer is 18", "Step 2: 18", ", 18", "- a list, 18"])
def test_a_number_behind_words_does_not_lead(text: str) -> None:
    assert leading_number(text) is None
