"""Three variants of a probe: the same text asked from another seat, under pressure of time, in another community.

A variant is the probe's own text, word for word, with a paragraph before it, after it, or both. The paragraphs (the
frames) stand in `rephrase_templates.json`; those with the use "creative" are for probes of the creative domains. They
say who asks, how soon or where, and assume nothing of the probe: not that it is a question, nor where it is set.
Variants are for evaluation only, like the probes they hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lem.data.probes import Probe
from lem.errors import DataError, UserError

KINDS = ("perspective", "urgency", "culture")
SEPARATOR = "~"  # between the id of the source probe and the kind
TEMPLATES = Path(__file__).with_name("rephrase_templates.json")
USE = "evaluation only"


@dataclass(frozen=True)
class Frame:
    """What stands around a probe: a paragraph before it, one after it, or both.

    `use` is "general" or "creative"; `id` is unique within kind and use.
    """

    id: str
    kind: str
    use: str
    before: str = ""
    after: str = ""

    def around(self, prompt: str) -> str:
        """The prompt, unchanged, with this frame's paragraphs; blank lines between."""
        return "\n\n".join(part for part in (self.before, prompt, self.after) if part)


@dataclass(frozen=True)
class Templates:
    """All frames, and the domains whose probes take the creative ones."""

    creative_domains: frozenset[str]
    frames: tuple[Frame, ...]

    def fitting(self, probe: Probe, kind: str) -> list[Frame]:
        """The frames of one kind that suit a probe's domain (compared in lower case)."""
        use = "creative" if probe.domain.strip().lower() in self.creative_domains else "general"
        return [frame for frame in self.frames if (frame.kind, frame.use) == (kind, use)]


@cache
def read_templates() -> Templates:
    """Read the frames that come with the package."""
    content = json.loads(TEMPLATES.read_text(encoding="utf-8"))
    return Templates(frozenset(content["creative_domains"]), tuple(Frame(**frame) for frame in content["frames"]))


def choose_frame(frames: Sequence[Frame], seed: int, probe_id: str, kind: str) -> Frame:
    """The frame whose hash with (seed, probe id, kind) is greatest.

    A frame that is added later changes only the choices that it wins; a remainder would change nearly all.
    """
    return max(frames, key=lambda frame: _hash(seed, probe_id, kind, frame.id))


def _hash(*parts: int | str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def rephrase(probe: Probe, kind: str, seed: int) -> Probe:
    """One variant of a probe: id `<source id>~<kind>`, the domain of the source, its text inside a frame."""
    templates = read_templates()
    frame = choose_frame(templates.fitting(probe, kind), seed, probe.id, kind)
    return Probe(f"{probe.id}{SEPARATOR}{kind}", probe.domain, frame.around(probe.prompt), source=probe.id)


def rephrase_probes(probes: Sequence[Probe], kinds: Sequence[str], seed: int) -> list[Probe]:
    """Every variant of every probe, probe by probe, in the order of `kinds`.

    Raises: DataError if a probe is itself a rephrasing.
    """
    for probe in probes:
        if probe.source is not None:
            raise DataError(
                f"probe {probe.id} is already a rephrasing of {probe.source}; give --prompts the file with the "
                "probes themselves."
            )
    return [rephrase(probe, kind, seed) for probe in probes for kind in kinds]


def parse_kinds(text: str) -> tuple[str, ...]:
    """Read `perspective,culture`: each kind once, in the order of `KINDS`.   Raises: UserError naming the kinds."""
    named = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in named if name not in KINDS]
    if unknown or not named:
        what = f"'{unknown[0]}' is no kind of rephrasing" if unknown else "no kind is named"
        raise UserError(f"--kinds: {what}; choose from {','.join(KINDS)}, separated by commas.")
    return tuple(kind for kind in KINDS if kind in named)


def check_output(output: Path, training_dir: Path) -> None:
    """Refuse an output that exists, that is no .json file, or that lies inside the training folder.

    Raises: UserError.
    """
    if output.suffix.lower() != ".json":
        raise UserError(f"--output {output}: a probe file is JSON; give a name that ends in .json.")
    if output.exists() or output.is_symlink():
        raise UserError(f"--output {output} exists and was not touched; give a new name or remove it first.")
    training = training_dir.resolve()
    for folder in output.resolve().parents:
        # samefile also knows a folder under another spelling, on file systems that ignore case
        if folder == training or (folder.exists() and training.exists() and folder.samefile(training)):
            raise UserError(
                f"--output {output} lies inside the training folder, and rephrased probes are for evaluation only; "
                "give a place outside it, for example runs/rephrased.json."
            )


def probe_file_text(probes: Sequence[Probe]) -> str:
    """The content of a probe file: a JSON array of the variants, each marked as for evaluation only."""
    entries = [{**probe.to_entry(), "use": USE} for probe in probes]
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
