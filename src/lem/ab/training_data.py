"""Did an arm see the probes it is tested on? Answered from the training files that its weights' records name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lem.chat.load import file_sha
from lem.chat.trainings import ALL, Training, from_rows, local_folder, trainings_of_adapter, trainings_of_model
from lem.data import read_chat_examples
from lem.data.contamination import ProbeSource, check_probes
from lem.data.findings import Finding
from lem.data.probes import Probe
from lem.data.short_texts import too_short
from lem.records import RunInfo
from lem.records.contaminated import contaminated_items

UNCHECKED = "training-data-unknown"
CONTAMINATED = "contaminated"


def training_objection(info: RunInfo, arm: str) -> tuple[str, str, str] | None:
    """(code, severity, sentence) when an arm's weights were trained on probes of this run, or may have been.

    None for an arm without an adapter on an ordinary model, and for one whose training files are all at hand as they
    were and hold no probe.
    """
    trainings = _trainings(info, arm)
    recorded = _recorded(info, arm)
    if not trainings and not recorded:
        return None
    unknown = [one.weights for one in trainings if one.files is None]
    probes = tuple(Probe(p["id"], p.get("domain", ""), p["prompt"]) for p in info.probes if p.get("prompt"))
    files = dict.fromkeys(file for one in trainings for file in one.files or ())
    if found := _findings(tuple((file, file_sha(file)) for file in files), probes):
        met = len({finding.other for finding in found})
        sentence = (
            f"the training data of '{arm}' hold {met} of the {len(info.probes)} probes of this run "
            f"({found[0].file} line {found[0].line} for one): it was tested on what it was taught."
        )
        return (CONTAMINATED, "refusal", sentence)
    if recorded:
        sentence = (
            f"when this run was made, the training data of '{arm}' held {len(recorded)} of its "
            f"{len(info.probes)} probes ({recorded[0]} for one): it was tested on what it was taught."
        )
        return (CONTAMINATED, "refusal", sentence)
    if unknown or len(probes) < len(info.probes):
        what = f"the training data of '{arm}'" if unknown else f"the texts of the probes that '{arm}' answered"
        sentence = (
            f"{what} are not at hand as they were{_of(unknown)}, so it is not known whether it was trained on probes "
            "of this run."
        )
        return (UNCHECKED, "watermark", sentence)
    if short := [probe.id for probe in probes if too_short(probe.prompt)]:
        sentence = (
            f"{len(short)} of the {len(probes)} probes of this run ({short[0]} for one) are too short to be looked for "
            f"in the training data of '{arm}'."
        )
        return (UNCHECKED, "watermark", sentence)
    return None


def _recorded(info: RunInfo, arm: str) -> list[str]:
    """The probes that the run itself says an arm's weights were trained on, whatever is at hand by now."""
    weights = {info.arms.get(arm, {}).get(kind) for kind in ("adapter", "model")}
    met = contaminated_items(info.data)
    return [probe["id"] for probe in info.probes if weights.intersection(met.get(probe["id"], ()))]


def _of(unknown: list[str]) -> str:
    return f" (those of {', '.join(dict.fromkeys(unknown))})" if unknown else ""


def _trainings(info: RunInfo, arm: str) -> list[Training]:
    """Every training behind an arm's adapter and model; one without files for each that is not known."""
    facts = info.arms.get(arm, {})
    found: list[Training] = []
    if facts.get("adapter"):
        found += trainings_of_adapter(Path(str(facts["adapter"])).expanduser(), facts.get("adapter_sha"))
    model, sha = facts.get("model"), facts.get("model_sha")
    if ALL in facts:  # as it was when the run was made, whatever lies in the model's place by now
        return found + from_rows(facts[ALL], str(model))
    folder = local_folder(str(model)) if model and sha else None
    return found if folder is None else found + trainings_of_model(folder, sha)


@lru_cache(maxsize=4)
def _findings(files: tuple[tuple[Path, str], ...], probes: tuple[Probe, ...]) -> list[Finding]:
    """The probes that training files (with their hashes) hold; remembered, as many arms share a model or an adapter."""
    examples = [(file.name, example) for file, _ in files for example in read_chat_examples(file)]
    return check_probes(examples, [ProbeSource(probe, "the run") for probe in probes])
