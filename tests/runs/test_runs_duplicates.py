"""Duplicates among repeats, counted by a second definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lem.records import Record
from lem.runs.execute import count_duplicate_repeats

records = st.builds(
    Record, st.just("r"), st.sampled_from(["base", "json"]), st.sampled_from(["P0", "P1"]), st.integers(0, 5),
    st.sampled_from(["yes", "no", None]),
)  # fmt: skip


@given(st.lists(records, max_size=20))
def test_duplicates_are_answers_less_distinct_answers_of_each_cell(rows: list[Record]) -> None:
    answered = [(row.arm, row.probe_id, row.response) for row in rows if row.response is not None]
    assert count_duplicate_repeats(rows) == len(answered) - len(set(answered))
