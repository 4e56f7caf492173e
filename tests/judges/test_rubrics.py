"""Rubrics: the ten that ship are sound scales, distinct from each other; a file of one's own passes the same checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import lem.judges
from lem.data.similarity import NgramIndex, near_duplicates
from lem.errors import DataError, UserError
from lem.judges.rubrics import known_dimensions, read_rubric, rubrics_for

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(lem.judges.__file__).parent / "rubrics"
BATTERY = {
    "truthfulqa": ["truthfulness", "informativeness"],
    "do_not_answer": ["safety", "nuance"],
    "toxigen": ["kindness", "awareness"],
    "ethics": ["sovereignty", "ethical_depth", "creative_expression", "self_concept"],
}
OWN = """
dimension = "safety"
version = "mine 3"
benchmarks = ["do_not_answer"]
uses_references = false
low = 1
high = 5
question = "Is it safe?"
considerations = ["Length is no merit."]
[anchors]
1 = "Help with harm."
3 = "Neither."
5 = "None."
"""


def own(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in OWN
    path = folder / "mine.toml"
    path.write_text(OWN.replace(old, new) if old else OWN, encoding="utf-8")
    return path


def test_each_benchmark_has_the_published_dimensions_and_each_dimension_a_file() -> None:
    assert {name: [rubric.dimension for rubric in rubrics_for(name)] for name in BATTERY} == BATTERY
    assert [name for names in BATTERY.values() for name in names] == list(known_dimensions())
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(known_dimensions())
    assert rubrics_for("gsm8k") == []


@pytest.mark.parametrize("name", known_dimensions())
def test_a_rubric_that_ships_is_an_anchored_scale_of_ten(name: str) -> None:
    rubric = read_rubric(name)
    assert (rubric.dimension, rubric.low, rubric.high) == (name, 1, 10)
    assert list(rubric.anchors) == [1, 3, 5, 7, 9, 10]
    assert all(len(text.split()) >= 12 for text in rubric.anchors.values())  # a description, not an adjective
    assert rubric.question.endswith("?")
    assert rubric.uses_references == (name == "truthfulness")
    texts = " ".join(rubric.considerations)
    for case in ("empty", "unreadable", "efus", "is rated"):  # "efus": refusal, refuse
        assert case in texts or (case == "efus" and name == "truthfulness" and "declined" in rubric.anchors[5])


def test_no_two_rubrics_say_the_same_thing() -> None:
    rubrics = [read_rubric(name) for name in known_dimensions()]
    anchors = [(rubric.dimension, text) for rubric in rubrics for text in rubric.anchors.values()]
    assert near_duplicates([text for _, text in anchors], 3, 0.1) == []
    scales = [" ".join([rubric.question, *rubric.anchors.values(), *rubric.considerations]) for rubric in rubrics]
    assert near_duplicates(scales, 3, 0.08) == []


def test_no_rubric_or_prompt_holds_the_kernel() -> None:
    kernels = [path for path in (ROOT / "kernel").iterdir() if path.suffix in (".json", ".txt")]
    index = NgramIndex([(path.name, path.read_text(encoding="utf-8")) for path in kernels], 5)
    judged = [*FOLDER.glob("*.toml"), *(FOLDER.parent / "prompts").glob("*.md")]
    assert len(kernels) >= 2
    assert {path.name: shared for path in judged if (shared := index.shared(path.read_text(encoding="utf-8")))} == {}


def test_the_hash_follows_the_content_and_not_the_file(tmp_path: Path) -> None:
    first = read_rubric(own(tmp_path))
    assert read_rubric(own(tmp_path, "low = 1\n", "  low = 1  # a note\n")).sha == first.sha
    assert read_rubric(own(tmp_path, "Neither.", "Neither of them.")).sha != first.sha
    assert len({read_rubric(name).sha for name in known_dimensions()}) == len(known_dimensions())


def test_a_rubric_of_ones_own_may_have_another_scale(tmp_path: Path) -> None:
    rubric = read_rubric(own(tmp_path))
    assert (rubric.dimension, rubric.version, rubric.low, rubric.high) == ("safety", "mine 3", 1, 5)
    assert rubric.anchors == {1: "Help with harm.", 3: "Neither.", 5: "None."}
    assert read_rubric(str(tmp_path / "mine.toml")) == rubric
    assert replace(rubric, sha="") != rubric


@pytest.mark.parametrize("name", ["saftey", "", "Safety", "gsm8k"])
def test_an_unknown_dimension_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"no dimension.*truthfulness.*self_concept"):
        read_rubric(name)


def test_a_file_for_an_unknown_dimension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.toml: 'wit' is no dimension.*truthfulness"):
        read_rubric(own(tmp_path, '"safety"', '"wit"'))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "mine 3"\n', "", "version: field required"),
        ('version = "mine 3"', "version = 3", "version: input should be a valid string"),
        ("low = 1", 'low = "1"', "low: input should be a valid integer"),
        ("low = 1", "low = 5", "low must be below high"),
        ("low = 1", "low = 0", "first and last anchors must be those of 0 and 5"),
        ("high = 5", "high = 6", "first and last anchors must be those of 1 and 6"),
        ('5 = "None."', '5.5 = "None."', "anchors.5"),
        ('5 = "None."', '05 = "None."', "anchors.05"),
        ('5 = "None."', '5 = "  "', "anchors.5"),
        ('5 = "None."', '5 = "Neither."', "two anchors have the same text"),
        ('3 = "Neither."\n', "", "anchors: dictionary should have at least 3 items"),
        ('["Length is no merit."]', "[]", "considerations: list should have at least 1 item"),
        ("uses_references = false", "uses_references = 0", "uses_references: input should be a valid boolean"),
        ('version = "mine 3"', 'version = "3"\nweight = 2', "weight: extra inputs are not permitted"),
        ("low = 1", "low = 1\nlow = 1", "not a TOML file"),
        (OWN, "not = [toml", "not a TOML file"),
    ],
)
def test_a_file_that_is_no_scale_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rubric(own(tmp_path, old, new))
    assert "mine.toml" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.toml: cannot be read"):
        read_rubric(tmp_path / "nowhere.toml")
    with pytest.raises(DataError, match="cannot be read"):
        read_rubric(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'dimension = "\xe9"')
    with pytest.raises(DataError, match=r"latin\.toml: not a TOML file"):
        read_rubric(tmp_path / "latin.toml")
