"""Variants hold their source word for word, name it, repeat under a seed, and are found in training data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from lem.data.check import check_data
from lem.data.probes import Probe, read_probes, refuse_variants
from lem.data.rephrase import (
    KINDS,
    TEMPLATES,
    Frame,
    check_output,
    choose_frame,
    parse_kinds,
    probe_file_text,
    read_templates,
    rephrase,
    rephrase_probes,
)
from lem.data.similarity import words
from lem.errors import DataError, UserError
from lem.paths import repository_root

SEEDS = repository_root() / "seeds"
FRAMES = json.loads(TEMPLATES.read_text(encoding="utf-8"))["frames"]
PROBE = Probe("P01", "work", "A harbour office wants every boat to carry a camera that never sleeps. Argue both sides.")


@pytest.fixture(scope="module")
def shipped() -> list[Probe]:
    return [*read_probes(SEEDS / "P01-P100.json"), *read_probes(SEEDS / "heldout.json")]


def own_words(frame: dict[str, str]) -> list[str]:
    """The words a frame adds, in order."""
    return words(f"{frame.get('before', '')} {frame.get('after', '')}")


def test_every_variant_holds_its_source_verbatim_and_names_it(shipped: list[Probe]) -> None:
    variants = rephrase_probes(shipped, KINDS, 42)
    assert len(shipped) == 141
    assert [v.id for v in variants] == [f"{p.id}~{k}" for p in shipped for k in ("perspective", "urgency", "culture")]
    by_id = {probe.id: probe for probe in shipped}
    frames = {(f.get("before", ""), f.get("after", "")) for f in FRAMES}
    for variant in variants:
        source = by_id[variant.source or ""]
        assert variant.domain == source.domain
        before, found, after = variant.prompt.partition(source.prompt)
        assert found == source.prompt
        assert (before.removesuffix("\n\n"), after.removeprefix("\n\n")) in frames


def test_the_variants_of_a_probe_differ_from_each_other_and_from_it(shipped: list[Probe]) -> None:
    for probe in shipped:
        assert len({probe.prompt, *(rephrase(probe, kind, 42).prompt for kind in KINDS)}) == 4


def test_creative_probes_have_frames_of_their_own(shipped: list[Probe]) -> None:
    templates = read_templates()
    for kind in KINDS:
        assert {f.use for f in templates.fitting(Probe("a", "Creative ", "Sing."), kind)} == {"creative"}
        assert {f.use for f in templates.fitting(Probe("a", "health", "Decide."), kind)} == {"general"}


def test_the_same_seed_repeats_and_another_chooses_other_frames(shipped: list[Probe]) -> None:
    first, again, other = (rephrase_probes(shipped, KINDS, seed) for seed in (42, 42, 43))
    assert first == again
    changed = sum(a.prompt != b.prompt for a, b in zip(first, other, strict=True))
    assert 0.85 < changed / len(first) < 1, "one frame in 18, or in 13, is hit again by chance"


def test_a_choice_does_not_depend_on_the_other_probes_or_kinds(shipped: list[Probe]) -> None:
    whole = {variant.id: variant for variant in rephrase_probes(shipped, KINDS, 42)}
    assert rephrase_probes(shipped[50:52], ["culture"], 42) == [whole[f"{p.id}~culture"] for p in shipped[50:52]]


def test_the_choice_is_the_greatest_hash_written_out_longhand() -> None:
    frames = [Frame(name, "urgency", "general", before=name) for name in ("one", "two", "three")]
    digests = {n: hashlib.sha256(f'[7, "P01", "urgency", "{n}"]'.encode()).digest() for n in ("one", "two", "three")}
    assert choose_frame(frames, 7, "P01", "urgency").id == max(digests, key=lambda name: digests[name])


def test_a_new_frame_takes_only_the_choices_it_wins() -> None:
    frames = [Frame(str(n), "urgency", "general", before=str(n)) for n in range(12)]
    new = Frame("new", "urgency", "general", before="new")
    before = [choose_frame(frames, 42, f"P{n}", "urgency").id for n in range(300)]
    after = [choose_frame([new, *frames], 42, f"P{n}", "urgency").id for n in range(300)]
    assert {b for a, b in zip(before, after, strict=True) if a != b} == {"new"}


def test_every_frame_is_used_and_none_rules(shipped: list[Probe]) -> None:
    used: Counter[str] = Counter()
    for seed in range(20):
        used.update(
            choose_frame(read_templates().fitting(probe, "urgency"), seed, probe.id, "urgency").id
            for probe in shipped
            if probe.domain != "creative"
        )
    expected = used.total() / 18
    assert len(used) == 18
    assert all(0.6 * expected < count < 1.5 * expected for count in used.values())


def test_there_are_at_least_twelve_frames_of_each_kind_and_use_in_several_positions() -> None:
    for kind in KINDS:
        for use in ("general", "creative"):
            frames = [f for f in FRAMES if (f["kind"], f["use"]) == (kind, use)]
            assert len(frames) >= 12
            assert {(bool(f.get("before")), bool(f.get("after"))) for f in frames} == {(1, 0), (0, 1), (1, 1)}
            assert len({f["id"] for f in frames}) == len(frames)
    assert {(f["kind"], f["use"]) for f in FRAMES} == {(k, u) for k in KINDS for u in ("general", "creative")}


def test_no_two_frames_share_their_first_three_words_or_a_run_of_six() -> None:
    openings = Counter(tuple(own_words(frame)[:3]) for frame in FRAMES)
    assert [opening for opening, n in openings.items() if n > 1] == []
    runs: Counter[tuple[str, ...]] = Counter()
    for frame in FRAMES:
        own = own_words(frame)
        runs.update({tuple(own[i : i + 6]) for i in range(len(own) - 5)})
    assert [run for run, n in runs.items() if n > 1] == []


def test_every_paragraph_is_whole_sentences() -> None:
    for frame in FRAMES:
        for part in (frame.get("before"), frame.get("after")):
            if part is not None:
                assert part == part.strip()
                assert part[0].isupper(), part
                assert part[-1] in (".:" if part == frame.get("before") else "."), part
                assert "\n" not in part


def test_a_culture_frame_that_names_languages_asks_for_english() -> None:
    frames = [f for f in FRAMES if f["kind"] == "culture"]
    without = [f["id"] for f in frames if "English" not in f"{f.get('before', '')} {f.get('after', '')}"]
    assert without == ["quakers"], "an answer in another language has no score"


def test_a_rephrased_file_is_a_probe_file_that_keeps_its_sources(tmp_path: Path) -> None:
    file = tmp_path / "rephrased.json"
    variants = rephrase_probes([PROBE], KINDS, 1)
    file.write_text(probe_file_text(variants), encoding="utf-8")
    assert read_probes(file) == variants
    assert {entry["use"] for entry in json.loads(file.read_text())} == {"evaluation only"}


def test_a_rephrasing_is_not_rephrased_again() -> None:
    with pytest.raises(DataError, match=r"^probe P01~urgency is already a rephrasing of P01; give --prompts .*\.$"):
        rephrase_probes([PROBE, rephrase(PROBE, "urgency", 1)], KINDS, 1)


def test_probes_without_a_source_are_written_and_read_as_before() -> None:
    old = {"id": "P01", "domain": "work", "prompt": "Argue."}
    assert Probe(**old) == Probe("P01", "work", "Argue.") == Probe(**dataclasses.asdict(Probe(**old)))
    assert Probe(**old).source is None
    assert Probe(**old).to_entry() == old
    assert Probe(**old, source="P00").to_entry() == {**old, "source": "P00"}


@pytest.mark.parametrize("source", ["", "  ", 3, ["P01"]])
def test_a_source_that_is_no_id_is_one_sentence(tmp_path: Path, source: object) -> None:
    file = tmp_path / "probes.json"
    file.write_text(json.dumps([{"id": "P01~urgency", "domain": "work", "prompt": "Argue.", "source": source}]))
    with pytest.raises(DataError, match=r"probes\.json entry 1 \(P01~urgency\): field 'source' is empty or not a str"):
        read_probes(file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["user", "assistant"])
def test_a_variant_in_training_data_is_found_through_its_source(tmp_path: Path, kind: str, part: str) -> None:
    texts = {"user": "How do I lend a ladder?", "assistant": "Ask for it back over tea."}
    texts[part] = rephrase(read_probes(SEEDS / "P01-P100.json")[17], kind, 42).prompt
    row = {"messages": [{"role": role, "content": texts[role]} for role in ("user", "assistant")]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    findings = check_data(tmp_path, [SEEDS / "P01-P100.json"]).findings
    assert ("probe-words", "P17 of P01-P100.json") in {(f.kind, f.other) for f in findings}


def test_kinds_are_read_in_the_fixed_order_and_once() -> None:
    assert parse_kinds("culture, perspective,culture") == ("perspective", "culture")
    for text, what in (("tone", "'tone' is no kind"), (" , ", "no kind is named")):
        with pytest.raises(UserError, match=what):
            parse_kinds(text)


def test_the_output_may_not_exist_nor_lie_in_the_training_folder(tmp_path: Path) -> None:
    training = tmp_path / "training"
    training.mkdir()
    (tmp_path / "way-in").symlink_to(training)
    taken = tmp_path / "taken.json"
    taken.write_text("[]")
    check_output(tmp_path / "runs" / "new.json", training)
    check_output(tmp_path / "training-notes" / "new.json", training)
    for path in (training / "x.json", training / "deep" / "x.json", tmp_path / "way-in" / "x.json",
                 tmp_path / "runs" / ".." / "training" / "x.json"):  # fmt: skip
        with pytest.raises(UserError, match="inside the training folder"):
            check_output(path, training)
    with pytest.raises(UserError, match="exists and was not touched"):
        check_output(taken, training)
    with pytest.raises(UserError, match=r"ends in \.json"):
        check_output(tmp_path / "x.jsonl", training)


def test_variants_are_refused_where_each_probe_is_an_observation(tmp_path: Path) -> None:
    plain, variant = Probe("P01", "law", "Why?"), Probe("P01~urgency", "law", "Why? Tonight.", "P01")
    refuse_variants([plain], tmp_path / "probes.json")
    with pytest.raises(UserError, match="P01~urgency is a rephrasing of P01"):
        refuse_variants([plain, variant], tmp_path / "probes.json")
