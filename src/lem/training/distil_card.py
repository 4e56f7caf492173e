"""The figures of a distillation, and the data card that carries them beside the training data.

Scores and lengths are averaged per prompt first, because the samples of one prompt are not independent; the interval
is over prompts, and over domains too where every prompt has one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lem import __version__
from lem.data.similarity import words
from lem.paths import slug
from lem.records import RunInfo, text_sha
from lem.stats import Estimate, headline, per_probe
from lem.training.distil_filters import REASONS, Filters, Sample, Verdict

_TEMPLATES = Path(__file__).parent / "templates"
_TOY = "lem-nano"


def summarise(verdicts: Sequence[Verdict], filters: Filters, info: RunInfo, counts: dict[str, Any]) -> dict[str, Any]:
    """Everything the card and `summary.json` say: counts by reason (they sum to the cells), distributions, sources.

    Args:  counts: what `count_cells` counted.   NaN becomes None.
    """
    kept = [verdict.sample for verdict in verdicts if verdict.reason is None]
    everything = [verdict.sample for verdict in verdicts]
    found = Counter(verdict.reason for verdict in verdicts if verdict.reason is not None)
    scored = [value for sample in everything if (value := sample.value(filters.scorer)) is not None]
    (arm,) = info.arms.values()
    return {
        "run": info.run_id,
        "status": info.status,
        **{name: counts[name] for name in ("planned", "answered", "failed", "missing", "duplicate_repeats")},
        "kept": len(kept),
        "rejected": {reason: found[reason] for reason in REASONS},
        "n_prompts": len(info.probes),
        "n_prompts_kept": len({sample.prompt.id for sample in kept}),
        "filters": asdict(filters),
        "best_score": max(scored, default=None),
        "figures": [
            {"what": what, "answers": which, **_figures(group, measure)}
            for what, measure in _MEASURES.items()
            for which, group in (("all", everything), ("kept", kept))
        ],
        "domains": _domains(verdicts),
        "source": {name: arm[name] for name in ("model", "model_sha", "adapter", "adapter_sha", "inject")},
        "kernel": {"file": Path(arm["kernel"]).name if arm["kernel"] else None, "sha": arm["kernel_sha"]},
        "prompts": {"file": Path(info.data["probe_file"]).name, "sha": text_sha(repr(_texts(info)))},
        "settings": {n: info.settings[n] for n in ("repeats", "temperature", "top_p", "max_tokens", "seed")},
        "versions": {"lem": __version__, **{name: info.versions.get(name) for name in ("mlx", "mlx-lm")}},
    }


def render_card(summary: dict[str, Any]) -> str:
    """The data card as Markdown; the same summary gives the same text (no time of making, no folder of a machine)."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters.update(number=_number, cell=_cell, interval=_interval)
    source = summary["source"]
    names = {name: _public_name(source[name]) for name in ("model", "adapter")}
    toy = _TOY in slug(source["model"])
    return environment.get_template("data_card.md.j2").render(**summary, names=names, toy=toy)


def _texts(info: RunInfo) -> list[tuple[str, str]]:
    return [(entry["id"], entry["prompt"]) for entry in info.probes]


def _length(sample: Sample) -> float | None:
    return float(len(words(sample.response))) if sample.record and not sample.record.failed else None


def _tokens(sample: Sample) -> float | None:
    return None if sample.record is None or sample.record.n_tokens is None else float(sample.record.n_tokens)


_MEASURES: dict[str, Callable[[Sample], float | None]] = {
    "v2": lambda sample: sample.value("v2"),
    "v3": lambda sample: sample.value("v3"),
    "words": _length,
    "tokens": _tokens,
}


def _figures(samples: Sequence[Sample], measure: Callable[[Sample], float | None]) -> dict[str, Any]:
    """Distribution of one measure: n answers, mean over prompts with interval, and quantiles over answers."""
    values = [value for sample in samples if (value := measure(sample)) is not None]
    by_prompt = per_probe((sample.prompt.id, measure(sample)) for sample in samples)
    domain = {sample.prompt.id: sample.prompt.domain for sample in samples}
    clusters = [domain[prompt] for prompt in by_prompt]
    mean = headline(list(by_prompt.values()), clusters if all(clusters) else None)
    quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist() if values else [None] * 5
    names = ("min", "q25", "median", "q75", "max")
    return {"n": len(values), "mean": _plain(mean), **dict(zip(names, quantiles, strict=True))}


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(estimate).items()
    }


def _domains(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Answers and kept answers per domain, in the order of the prompts; empty when no prompt has a domain."""
    answers = Counter(verdict.sample.prompt.domain for verdict in verdicts)
    kept = Counter(verdict.sample.prompt.domain for verdict in verdicts if verdict.reason is None)
    if set(answers) <= {""}:
        return []
    return [{"domain": name or "(none)", "answers": answers[name], "kept": kept[name]} for name in answers]


def _public_name(place: str | None) -> str | None:
    """A hub id or relative path as it is, of a folder elsewhere on the machine its last part only."""
    return Path(place).name if place is not None and Path(place).expanduser().is_absolute() else place


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(mean: dict[str, Any]) -> str:
    if mean["low"] is None or mean["high"] is None:
        return "no interval"
    return f"[{_number(mean['low'])}, {_number(mean['high'])}]"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
