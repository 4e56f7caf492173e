"""Did an adapter see the probes it is tested on? Answered from the training files that its provenance names."""

from __future__ import annotations

from pathlib import Path

from lem.chat.load import adapter_identity, file_sha, read_adapter_config
from lem.data import read_chat_examples
from lem.data.contamination import ProbeSource, check_probes
from lem.data.probes import Probe
from lem.errors import UserError
from lem.records import RunInfo

UNCHECKED = "training-data-unknown"
CONTAMINATED = "contaminated"


def training_objection(info: RunInfo, arm: str) -> tuple[str, str, str] | None:
    """(code, severity, sentence) when an arm's adapter was trained on probes of this run, or may have been.

    None for an arm without an adapter, and for one whose training files are at hand, unchanged, and hold no probe.
    """
    facts = info.arms.get(arm, {})
    if not facts.get("adapter"):
        return None
    try:
        folder = Path(str(facts["adapter"])).expanduser()
        same = facts.get("adapter_sha") is None or facts["adapter_sha"] == adapter_identity(folder)
        files = training_files(folder) if same else None
    except (UserError, OSError):
        files = None
    if files is None or not all(probe.get("prompt") for probe in info.probes):
        what = "the training data" if files is None else "the texts of the probes"
        sentence = (
            f"{what} of '{arm}' are not at hand as they were, so it is not known whether it was trained on probes of "
            "this run."
        )
        return (UNCHECKED, "watermark", sentence)
    examples = [(file.name, example) for file in files for example in read_chat_examples(file)]
    sources = [ProbeSource(Probe(p["id"], p.get("domain", ""), p["prompt"]), "the run") for p in info.probes]
    findings = check_probes(examples, sources)
    if not findings:
        return None
    probes = len({finding.other for finding in findings})
    sentence = (
        f"the training data of '{arm}' hold {probes} of the {len(info.probes)} probes of this run "
        f"({findings[0].file} line {findings[0].line} for one): it was tested on what it was taught."
    )
    return (CONTAMINATED, "refusal", sentence)


def training_files(adapter: Path) -> list[Path] | None:
    """The training files that an adapter's provenance names, None unless all are there with the same content."""
    settings = read_adapter_config(adapter)
    shas, folder = settings.get("data_sha"), settings.get("data")
    if not isinstance(shas, dict) or not shas or not isinstance(folder, str):
        return None
    files = [Path(folder).expanduser() / name for name in shas]
    if any(not file.is_file() or file_sha(file) != sha for file, sha in zip(files, shas.values(), strict=True)):
        return None
    return files
