"""A part of a kernel is the text of the whole with some axioms left out and nothing else changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.data import Kernel, read_kernel
from lem.data.axioms import AXIOM_SETS, axiom_kernels
from lem.errors import DataError
from lem.paths import repository_root

REAL = repository_root() / "kernel" / "axioms.json"
LAYOUTS: list[dict[str, Any]] = [
    {"indent": 2, "ensure_ascii": False}, {"indent": 4}, {"indent": "\t"}, {}, {"separators": (",", ":")},
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def parts(text: str, *sets: str) -> dict[str, str]:
    found = axiom_kernels(Kernel("json", "k.json", text), sets)
    names = [kernel.name for kernel in found]
    assert len(set(names)) == len(names)
    return {kernel.name: kernel.text for kernel in found}


def test_the_real_kernel_comes_apart_into_five() -> None:
    whole = read_kernel(REAL)
    found = axiom_kernels(whole, AXIOM_SETS)
    assert [kernel.name for kernel in found] == [
        "axioms-1", "axioms-1-2", "axioms-1-3", "axioms-1-4", "axioms-1-5", "axioms-without-1", "axioms-without-2",
        "axioms-without-3", "axioms-without-4", "axioms-without-5",
    ]  # fmt: skip
    by_name = {kernel.name: kernel for kernel in found}
    assert by_name["axioms-1-5"].sha == whole.sha
    # The last one left out and the first four are the same text: one kernel under two names.
    assert by_name["axioms-without-5"].sha == by_name["axioms-1-4"].sha
    assert len({kernel.sha for kernel in found}) == 9
    content = json.loads(whole.text)
    assert json.loads(by_name["axioms-without-2"].text) == {
        **content, "axioms": [content["axioms"][i] for i in (0, 2, 3, 4)]
    }  # fmt: skip
    assert {kernel.path for kernel in found} == {str(REAL)}


@given(
    st.lists(VALUES, min_size=2, max_size=5), st.dictionaries(st.text(max_size=8), VALUES, max_size=3),
    st.dictionaries(st.text(max_size=8), VALUES, max_size=3), st.sampled_from(LAYOUTS),
)  # fmt: skip
def test_a_part_is_laid_out_as_the_whole(
    axioms: list[Any], before: dict[str, Any], after: dict[str, Any], layout: dict[str, Any]
) -> None:
    content = {**before, "axioms": axioms, **{key: value for key, value in after.items() if key != "axioms"}}
    n = len(axioms)
    found = parts(json.dumps(content, **layout), *AXIOM_SETS)
    assert len(found) == 2 * n

    def expected(kept: list[Any]) -> str:
        return json.dumps({**content, "axioms": kept}, **layout)

    for last in range(1, n + 1):
        assert found["axioms-1" if last == 1 else f"axioms-1-{last}"] == expected(axioms[:last])
    for out in range(n):
        assert found[f"axioms-without-{out + 1}"] == expected(axioms[:out] + axioms[out + 1 :])


def test_each_set_is_complete_by_itself() -> None:
    text = json.dumps({"axioms": ["a", "b", "c"]})
    assert list(parts(text, "prefixes")) == ["axioms-1", "axioms-1-2", "axioms-1-3"]
    assert list(parts(text, "leave-one-out")) == [
        "axioms-without-1", "axioms-without-2", "axioms-without-3", "axioms-1-3"
    ]  # fmt: skip


def test_a_list_of_axioms_inside_something_else_is_not_the_kernels() -> None:
    text = '{"note": {"axioms": ["x", "y"]}, "axioms" : [ "a" , "b" ], "end": "axioms"}'
    assert parts(text, "prefixes")["axioms-1"] == text.replace('"a" , "b"', '"a"')


@pytest.mark.parametrize(
    "text",
    ["Hold to consent.", "[1, 2]", '{"axioms": "one"}', '{"axioms": ["only one"]}', '{"kernel": []}', '"axioms"'],
)
def test_another_kernel_is_a_sentence(text: str) -> None:
    with pytest.raises(DataError, match=r"^k\.json: --axioms takes a JSON kernel with a list 'axioms' of two or more"):
        parts(text, "prefixes")
