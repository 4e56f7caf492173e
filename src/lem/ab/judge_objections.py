"""What stands against the verdicts of judges: kinship with an arm, a failed or missing audit, one judge's doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lem.ab.contrast import Contrast
from lem.ab.objections import WATERMARK, Objection
from lem.judges.panel import PANEL, panel_contrast, panel_judges
from lem.records import RunContents, judge_files
from lem.records.judge_files import NOT_SHOWN, UNTRUSTWORTHY, self_judged
from lem.records.metrics import COMPOSITES

SELF_JUDGED = "self-judged"


def judge_objections(
    contents: RunContents, contrasts: Sequence[Contrast], excluded: frozenset[str] = frozenset()
) -> list[Objection]:
    """Watermarks on contrasts whose metric comes from a judge; none for judges that others ran (imported ratings)."""
    found: dict[tuple[str, str], Objection] = {}
    every = [*_kin(contents, contrasts)]
    for contrast in contrasts:
        every += [*_audit(contents, contrast), *_panel(contents, contrast, excluded)]
    for one in every:
        known = found.setdefault((one.code, one.sentence), one)
        found[one.code, one.sentence] = replace(known, metrics=tuple(dict.fromkeys((*known.metrics, *one.metrics))))
    return list(found.values())


def _dimensions(metric: str) -> tuple[str, ...]:
    """The dimensions behind a judged metric, those of its parts for a composite."""
    name = metric.partition(" · ")[0]
    return COMPOSITES.get(name, (name,))


def _judges(contents: RunContents, metric: str, source: str) -> list[str]:
    """The judges of ours behind a metric: the one, or all who sit on the panel."""
    if source != PANEL:
        return [source] if source in contents.judges else []
    seated = (judge for dimension in _dimensions(metric) for judge in panel_judges(contents, dimension))
    return [judge for judge in dict.fromkeys(seated) if judge in contents.judges]


def kin_of(contents: RunContents, metric: str, source: str) -> dict[str, list[str]]:
    """Judge -> arms of its lineage, for the judges behind a metric."""
    behind = {judge: self_judged(contents.judges[judge]) for judge in _judges(contents, metric, source)}
    return {judge: arms for judge, arms in behind.items() if arms}


def judge_notes(contents: RunContents) -> list[str]:
    """What must be said beside any table with verdicts of these judges: kinship, and audits that failed."""
    return judge_files.judge_notes(contents.judges, contents.audits)


def _kin(contents: RunContents, contrasts: Sequence[Contrast]) -> Iterator[Objection]:
    """Contrasts with an arm of the judge's lineage; one sentence where every contrast of a judge has one."""
    related: dict[str, list[tuple[Contrast, list[str]]]] = {}
    judged: Counter[str] = Counter()
    for contrast in contrasts:
        sides = (contrast.treatment, contrast.baseline)
        judged.update(_judges(contents, contrast.metric, contrast.source))
        for judge, kin in kin_of(contents, contrast.metric, contrast.source).items():
            if arms := [arm for arm in kin if arm in sides]:
                related.setdefault(judge, []).append((contrast, arms))
    for judge, found in related.items():
        if len(found) == judged[judge]:
            every = dict.fromkeys(arm for _, arms in found for arm in arms)
            metrics = tuple(dict.fromkeys(contrast.metric for contrast, _ in found))
            yield Objection(SELF_JUDGED, WATERMARK, _kin_sentence(judge, list(every)), metrics=metrics)
            continue
        for contrast, arms in found:
            pair = (contrast.treatment, contrast.baseline)
            yield Objection(SELF_JUDGED, WATERMARK, _kin_sentence(judge, arms), pair, metrics=(contrast.metric,))


def _kin_sentence(judge: str, arms: Sequence[str]) -> str:
    quoted = [f"'{arm}'" for arm in arms]
    named = " and ".join(part for part in (", ".join(quoted[:-1]), quoted[-1]) if part)
    return f"self-judged: the judge '{judge}' is of one lineage with {named}; its ratings rank nothing."


def _audit(contents: RunContents, contrast: Contrast) -> Iterator[Objection]:
    for judge in _judges(contents, contrast.metric, contrast.source):
        verdict = contents.audits.get(judge, {}).get("verdict")
        if verdict is None:
            sentence = f"the judge '{judge}' was not audited; `lem judge audit` says how far it can be trusted."
            yield Objection("judge-not-audited", WATERMARK, sentence, metrics=(contrast.metric,))
        elif verdict == UNTRUSTWORTHY:
            sentence = f"the audit found the judge '{judge}' not trustworthy."
            yield Objection("judge-untrustworthy", WATERMARK, sentence, metrics=(contrast.metric,))
        elif verdict == NOT_SHOWN:
            sentence = f"the audit did not show that the judge '{judge}' can be trusted; see its open checks."
            yield Objection("judge-not-shown", WATERMARK, sentence, metrics=(contrast.metric,))


def _panel(contents: RunContents, contrast: Contrast, excluded: frozenset[str]) -> Iterator[Objection]:
    """The panel's difference turns or vanishes without one of its judges, or one of them said nothing."""
    if contrast.source != PANEL:
        return
    for dimension in _dimensions(contrast.metric):
        if len(panel_judges(contents, dimension)) > 1:  # else it is a panel that others brought
            yield from _panel_on(contents, contrast, dimension, excluded)


def _panel_on(
    contents: RunContents, contrast: Contrast, dimension: str, excluded: frozenset[str]
) -> Iterator[Objection]:
    pair = (contrast.treatment, contrast.baseline)
    panel = panel_contrast(contents, dimension, contrast.treatment, contrast.baseline, excluded=excluded)
    if panel.judge_dependent:
        named = ", ".join(f"'{judge}'" for judge in panel.dependent)
        sentence = f"judge-dependent: {dimension} changes its sign, or loses it, without {named}."
        yield Objection("judge-dependent", WATERMARK, sentence, pair, metrics=(contrast.metric,))
    if panel.flat:
        named = ", ".join(f"'{judge}'" for judge in panel.flat)
        sentence = f"{dimension}: {named} rated every answer alike and added nothing to the panel."
        yield Objection("flat-judge", WATERMARK, sentence, metrics=(contrast.metric,))
    if panel.n_partial:
        sentence = (
            f"{dimension}: {panel.n_partial} answers were not rated by every judge of the panel and are left out."
        )
        yield Objection("partial-panel", WATERMARK, sentence, pair, metrics=(contrast.metric,))
