"""What stands against the verdicts of judges: kinship with an arm, a failed or missing audit, one judge's doing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lem.ab.contrast import Contrast
from lem.ab.objections import WATERMARK, Objection
from lem.judges.panel import PANEL, panel_contrast
from lem.records import RunContents
from lem.records.judge_files import UNTRUSTWORTHY, self_judged

SCORER = "scorer"


def judge_objections(
    contents: RunContents, contrasts: Sequence[Contrast], excluded: frozenset[str] = frozenset()
) -> list[Objection]:
    """Watermarks on contrasts whose metric comes from a judge; none for judges that others ran (imported ratings)."""
    found: dict[tuple[str, str], Objection] = {}
    for contrast in contrasts:
        against = (*_kin(contents, contrast), *_audit(contents, contrast), *_panel(contents, contrast, excluded))
        for objection in against:
            found.setdefault((objection.code, objection.sentence), objection)
    return list(found.values())


def _kin(contents: RunContents, contrast: Contrast) -> Iterator[Objection]:
    for judge, manifest in contents.judges.items():
        if contrast.source not in (judge, PANEL):
            continue
        arms = [arm for arm in self_judged(manifest) if arm in (contrast.treatment, contrast.baseline)]
        if arms:
            named = " and ".join(f"'{arm}'" for arm in arms)
            sentence = f"self-judged: the judge '{judge}' is of one lineage with {named}; its ratings rank nothing."
            yield Objection("self-judged", WATERMARK, sentence, (contrast.treatment, contrast.baseline))


def _audit(contents: RunContents, contrast: Contrast) -> Iterator[Objection]:
    manifest = contents.judges.get(contrast.source)
    if manifest is None:
        return
    verdict = contents.audits.get(contrast.source, {}).get("verdict")
    if verdict is None:
        sentence = f"the judge '{contrast.source}' was not audited; `lem judge audit` says how far it can be trusted."
        yield Objection("judge-not-audited", WATERMARK, sentence)
    elif verdict == UNTRUSTWORTHY:
        sentence = f"the audit found the judge '{contrast.source}' not trustworthy."
        yield Objection("judge-untrustworthy", WATERMARK, sentence)


def _panel(contents: RunContents, contrast: Contrast, excluded: frozenset[str]) -> Iterator[Objection]:
    """The panel's difference turns or vanishes without one of its judges, or one of them said nothing."""
    if contrast.source != PANEL:
        return
    dimension = contrast.metric.partition(" · ")[0]
    panel = panel_contrast(contents, dimension, contrast.treatment, contrast.baseline, excluded=excluded)
    if panel.judge_dependent:
        named = ", ".join(f"'{judge}'" for judge in panel.dependent)
        sentence = f"judge-dependent: {dimension} changes its sign, or loses it, without {named}."
        yield Objection("judge-dependent", WATERMARK, sentence, (contrast.treatment, contrast.baseline))
    if panel.flat:
        named = ", ".join(f"'{judge}'" for judge in panel.flat)
        sentence = f"{dimension}: {named} rated every answer alike and added nothing to the panel."
        yield Objection("flat-judge", WATERMARK, sentence)
    if panel.n_partial:
        sentence = (
            f"{dimension}: {panel.n_partial} answers were not rated by every judge of the panel and are left out."
        )
        yield Objection("partial-panel", WATERMARK, sentence, (contrast.treatment, contrast.baseline))
