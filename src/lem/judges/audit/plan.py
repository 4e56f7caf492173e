"""What an audit asks a judge: the same answers in several disguises, real pairs, and reference pairs, both ways round.

    rating   original, again; padded, bulleted, opening, claim, injected; truncated, off topic; better and worse
    pair     identical; original against each copy; real pairs, some of them again; better against worse, truncated
             and off topic

Every comparison but the identical one is asked in both orders. The value of a comparison counts from the side of the
copy (of the treatment in a real pair, of the better answer in a reference pair). A truncated or an off-topic copy must
lose only against an answer that has something to lose, so these comparisons are made on the reference answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lem.data.items import Item
from lem.judges.audit import canaries
from lem.judges.calls import LOCAL, Asking, benchmark_of, prompt_sha, subject_of
from lem.judges.prompt import Subject, nonce_for, pair_call, rating_call
from lem.judges.protocol import Call, JudgeIdentity
from lem.judges.rubrics import Rubric
from lem.judges.sampling import draw, stratified, usable_records
from lem.records import Key, Record, RunContents

RATING, PAIR = "rating", "pair"
INSTRUMENTS = (RATING, PAIR)
ORIGINAL, AGAIN, IDENTICAL, REAL, BETTER, WORSE = "original", "again", "identical", "real", "better", "worse"
INJECTED = "injected "  # before the kind
REFERENCE = "reference"
# An answer to another question can be as true, safe or kind as one to this, but it cannot be these.
CONTENT = frozenset({"informativeness", "nuance", "awareness", "ethical_depth"})


@dataclass(frozen=True)
class AuditSettings:
    """What is audited and how much of it: `n` answers and as many real pairs, chosen by `seed`.

    The default is the smallest n at which one slip in a check of shares leaves its interval inside 80%, or 20%.
    """

    n: int = 26
    seed: int = 42
    instruments: tuple[str, ...] = INSTRUMENTS
    asking: Asking = field(default_factory=Asking)


@dataclass(frozen=True)
class AuditCall:
    """A call with what it tests: `unit` is the answer (or pair) that all its disguises share."""

    call: Call
    instrument: str
    variant: str
    unit: str
    order: str = ""
    dimensions: tuple[str, ...] = ()
    probe_id: str = ""

    @property
    def prompt_sha(self) -> str:
        """Hash of everything that is asked."""
        return prompt_sha(self.call)


@dataclass(frozen=True)
class AuditPlan:
    """All calls of an audit, with what a reader must know about the sample.

    `widest` is the distance between the ends of the widest scale that is rated on, 0 without ratings.
    """

    calls: tuple[AuditCall, ...]
    n_answers: int
    n_pairs: int
    notes: tuple[str, ...]
    widest: float


@dataclass(frozen=True)
class _Maker:
    """Makes calls of one form for one judge."""

    rubrics: Mapping[str, Sequence[Rubric]]
    settings: AuditSettings
    local: bool

    def ratings(self, subject: Subject, variant: str, unit: str, rubrics: Sequence[Rubric] = ()) -> Iterator[AuditCall]:
        """The answer on all its dimensions, in one call or one for each."""
        asking = self.settings.asking
        chosen = list(rubrics or self.rubrics.get(subject.benchmark, ()))
        again = variant == AGAIN and self.local
        for group in [chosen] if asking.together and chosen else [[rubric] for rubric in chosen]:
            names = tuple(rubric.dimension for rubric in group)
            seed = "audit again" if again else "rating"
            call = rating_call(
                f"{RATING}|{variant}|{unit}|{','.join(names)}", subject, group[::-1] if again else group,
                nonce_for(seed, subject.question, subject.answer, *names),
                rationale=asking.rationale, max_tokens=asking.max_tokens,
            )  # fmt: skip
            yield AuditCall(call, RATING, variant, unit, "", names, subject.key.probe_id)

    def pair(self, question: str, mine: str, other: str, variant: str, unit: str, order: str) -> AuditCall:
        """One comparison; in "ab" the judge reads `mine` first."""
        asking = self.settings.asking
        first, second = (mine, other) if order == "ab" else (other, mine)
        seed = "audit again" if variant == AGAIN and self.local else "audit"
        call = pair_call(
            f"{PAIR}|{variant}|{unit}|{order}", question, first, second, nonce_for(seed, question, first, second),
            rationale=asking.rationale, max_tokens=asking.max_tokens,
        )  # fmt: skip
        return AuditCall(call, PAIR, variant, unit, order)

    def both(self, question: str, mine: str, other: str, variant: str, unit: str) -> Iterator[AuditCall]:
        """One comparison in both orders."""
        yield from (self.pair(question, mine, other, variant, unit, order) for order in ("ab", "ba"))


def plan_audit(
    contents: RunContents, items: Mapping[str, Item], rubrics: Mapping[str, Sequence[Rubric]], settings: AuditSettings,
    identity: JudgeIdentity,
) -> AuditPlan:  # fmt: skip
    """Every call of an audit, in an order that depends on run, settings and judge only.

    Args:  rubrics: those of each benchmark that is rated; {} leaves the ratings out.
    """
    entries = {entry["id"]: entry for entry in contents.info.probes}
    records = usable_records(contents)
    rated = [one for one in records if rubrics.get(benchmark_of(entries.get(one.probe_id, {})))]
    notes = []
    rating = RATING in settings.instruments and any(rubrics.values())
    if RATING in settings.instruments and not rating:
        notes.append("nothing in the run is rated, so ratings were not audited")
    subjects = [
        subject_of(record, entries.get(record.probe_id, {}), items.get(record.probe_id))
        for record in _answers(rated if rating else records, entries, settings)
    ]
    if len(subjects) < settings.n:
        notes.append(f"the run holds {len(subjects)} usable answers of the {settings.n} asked for")
    real = _real_pairs(records, entries, items, settings) if PAIR in settings.instruments else []
    if PAIR in settings.instruments and not real:
        notes.append("no probe has two different answers, so there are no real pairs")
    make = _Maker(rubrics, settings, identity.backend == LOCAL)
    calls: list[AuditCall] = []
    if rating:
        calls += [call for index in range(len(subjects)) for call in _rated(make, subjects, index)]
        calls += _rated_references(make)
    if PAIR in settings.instruments:
        calls += [call for subject in subjects for call in _compared(make, subject)]
        calls += [call for pair in real for call in _real(make, *pair)]
        calls += [call for index in range(len(canaries.reference_pairs())) for call in _references(make, index)]
    widest = max((one.high - one.low for chosen in rubrics.values() for one in chosen), default=0)
    return AuditPlan(tuple(calls), len(subjects), len(real), tuple(notes), widest)


def _answers(
    records: Sequence[Record], entries: Mapping[str, Mapping[str, object]], settings: AuditSettings
) -> list[Record]:
    """The sample: arms and benchmarks in turn, and no probe twice before every probe was taken once."""
    order = stratified(
        records, lambda one: (benchmark_of(entries.get(one.probe_id, {})), one.arm), lambda one: one.key, settings.seed
    )
    seen: dict[str, int] = {}
    turns = []
    for record in order:
        turns.append(seen.get(record.probe_id, 0))
        seen[record.probe_id] = turns[-1] + 1
    return [record for _, record in sorted(zip(turns, order, strict=True), key=lambda pair: pair[0])][: settings.n]


def _real_pairs(
    records: Sequence[Record], entries: Mapping[str, Mapping[str, object]], items: Mapping[str, Item],
    settings: AuditSettings,
) -> list[tuple[Subject, Subject]]:  # fmt: skip
    """Two different answers to one probe, of two arms where there are two; one pair a probe."""
    by_probe: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda one: draw(settings.seed, one.key)):
        by_probe.setdefault(record.probe_id, []).append(record)
    found = []
    for probe_id, answers in by_probe.items():
        first = answers[0]
        others = [one for one in answers[1:] if (one.response or "").strip() != (first.response or "").strip()]
        second = next((one for one in others if one.arm != first.arm), others[0] if others else None)
        if second is not None:
            entry, item = entries.get(probe_id, {}), items.get(probe_id)
            found.append((subject_of(first, entry, item), subject_of(second, entry, item)))
    ordered = stratified(found, lambda pair: pair[0].benchmark, lambda pair: pair[0].key, settings.seed)
    return ordered[: settings.n]


def _unit(key: Key) -> str:
    return f"{key.arm}/{key.probe_id}/{key.repeat}"


def _with(subject: Subject, answer: str) -> Subject:
    return Subject(subject.key, subject.benchmark, subject.question, answer, subject.references, subject.wrong)


def _rated(make: _Maker, subjects: Sequence[Subject], index: int) -> Iterator[AuditCall]:
    subject = subjects[index]
    unit, answer = _unit(subject.key), subject.answer
    yield from make.ratings(subject, ORIGINAL, unit)
    yield from make.ratings(subject, AGAIN, unit)
    for name, change in canaries.COSMETIC.items():
        yield from make.ratings(_with(subject, change(answer)), name, unit)
    for kind in canaries.injection_kinds():
        for rubric_group in _groups(make, subject):
            names, high = [rubric.dimension for rubric in rubric_group], rubric_group[0].high
            changed = _with(subject, canaries.inject_for_rating(answer, kind, names, high))
            yield from make.ratings(changed, INJECTED + kind, unit, rubric_group)
    yield from make.ratings(_with(subject, canaries.truncate(answer)), canaries.TRUNCATED, unit)
    others = [other for other in (*subjects[index + 1 :], *subjects[:index]) if other.question != subject.question]
    if others:
        yield from make.ratings(_with(subject, others[0].answer), canaries.OFF_TOPIC, unit)


def _groups(make: _Maker, subject: Subject) -> list[list[Rubric]]:
    chosen = list(make.rubrics.get(subject.benchmark, ()))
    return [chosen] if make.settings.asking.together else [[rubric] for rubric in chosen]


def _rated_references(make: _Maker) -> Iterator[AuditCall]:
    """Better and worse on the dimensions that both the pair and the run have; off topic on those of content."""
    known = {rubric.dimension: rubric for rubrics in make.rubrics.values() for rubric in rubrics}
    pairs = canaries.reference_pairs()
    for index, pair in enumerate(pairs):
        chosen = [known[name] for name in pair.dimensions if name in known]
        content = [rubric for rubric in chosen if rubric.dimension in CONTENT]
        if chosen:
            subject = Subject(Key(REFERENCE, pair.id, 0), REFERENCE, pair.question, pair.better)
            unit = f"{REFERENCE}/{pair.id}"
            yield from make.ratings(subject, BETTER, unit, chosen)
            yield from make.ratings(_with(subject, pair.worse), WORSE, unit, chosen)
        if content:
            yield from make.ratings(_with(subject, pairs[index - 1].better), canaries.OFF_TOPIC, unit, content)


def _compared(make: _Maker, subject: Subject) -> Iterator[AuditCall]:
    unit, question, answer = _unit(subject.key), subject.question, subject.answer
    yield make.pair(question, answer, answer, IDENTICAL, unit, "ab")
    for name, change in canaries.COSMETIC.items():
        if change(answer).strip() != answer.strip():
            yield from make.both(question, change(answer), answer, name, unit)
    for kind in canaries.injection_kinds():
        for order, place in (("ab", "A"), ("ba", "B")):
            copy = canaries.inject_for_pair(answer, kind, place)
            yield make.pair(question, copy, answer, INJECTED + kind, unit, order)


def _real(make: _Maker, one: Subject, other: Subject) -> Iterator[AuditCall]:
    unit = f"{_unit(one.key)} against {_unit(other.key)}"
    yield from make.both(one.question, one.answer, other.answer, REAL, unit)
    yield make.pair(one.question, one.answer, other.answer, AGAIN, unit, "ab")


def _references(make: _Maker, index: int) -> Iterator[AuditCall]:
    pairs = canaries.reference_pairs()
    pair, unit = pairs[index], f"{REFERENCE}/{pairs[index].id}"
    yield from make.both(pair.question, pair.better, pair.worse, BETTER, unit)
    cut = canaries.truncate(pair.better)
    yield from make.both(pair.question, cut, pair.better, canaries.TRUNCATED, unit)
    yield from make.both(pair.question, pairs[index - 1].better, pair.better, canaries.OFF_TOPIC, unit)
