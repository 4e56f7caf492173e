"""What judging costs: a price table that the user keeps, and the tokens that judges will read and write.

No prices ship with the program, because they change; a judge without a price has an unknown cost, never a cost of 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError

KEYS = ("input", "output", "currency", "date")
EXAMPLE = "NAME: {input: 1.0, output: 4.0, currency: USD, date: 2026-01-31}"


@dataclass(frozen=True)
class Price:
    """Price of a million tokens read and a million written, in `currency`, as it was on `date` (ISO)."""

    input: float
    output: float
    currency: str
    date: str


@dataclass(frozen=True)
class JudgeCost:
    """One judge's calls and tokens over the whole run; `cost` is None where the price or the tokens are not known."""

    judge: str
    calls: int
    input_tokens: float | None
    output_tokens: float | None
    price: Price | None
    cost: float | None


def read_prices(path: Path) -> dict[str, Price]:
    """Read a price table, YAML or JSON: judge -> {input, output, currency, date}, prices per million tokens.

    Raises: UserError if the file is missing; DataError naming the judge and field that is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such price table; write one with lines like {EXAMPLE}")
    try:
        raw = _parse(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    if not isinstance(raw, dict) or not raw:
        raise DataError(f"{path}: a price table is a mapping with entries like {EXAMPLE}")
    return {str(name): _price(path, str(name), entry) for name, entry in raw.items()}


def _parse(path: Path) -> Any:
    import yaml

    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _refuse_twice(path, pairs))
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {error.lineno}: not valid JSON ({error.msg}); mend the file.") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(path, [(key.value, None) for key, _ in node.value])
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:120]
        raise DataError(f"{path}{where}: not valid YAML ({reason}); mend the file.") from None


def _refuse_twice(path: Path, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    names = [str(name) for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: '{name}' is written twice; leave one of them.")
    return dict(pairs)


def _price(path: Path, judge: str, entry: Any) -> Price:
    if not isinstance(entry, dict) or set(entry) != set(KEYS):
        raise DataError(f"{path}: judge '{judge}' needs exactly the keys {', '.join(KEYS)}; write {EXAMPLE}")
    for key in ("input", "output"):
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise DataError(
                f"{path}: judge '{judge}', {key}: must be a price per million tokens, 0 or more (got {value!r})."
            )
    if not isinstance(entry["currency"], str) or not entry["currency"].strip():
        raise DataError(f"{path}: judge '{judge}', currency: must be a name such as USD (got {entry['currency']!r}).")
    try:
        day = date.fromisoformat(str(entry["date"]))
    except ValueError:
        raise DataError(
            f"{path}: judge '{judge}', date: must be a day such as 2026-01-31 (got {str(entry['date'])!r})."
        ) from None
    return Price(float(entry["input"]), float(entry["output"]), entry["currency"].strip(), day.isoformat())


def judge_cost(
    judge: str, n_answers: int, calls_per_answer: int, tokens: tuple[float, float] | None, answer_tokens: float | None,
    prices: Mapping[str, Price] | None,
) -> JudgeCost:  # fmt: skip
    """Count one judge's calls and tokens, and what they cost at its price.

    Args:  tokens: (read beside the answer, written) by one call.  answer_tokens: tokens of an answer, which every call
           reads as well.  Unknown parts (None) make the cost None.
    """
    calls = n_answers * calls_per_answer
    price = (prices or {}).get(judge)
    if tokens is None or answer_tokens is None:
        return JudgeCost(judge, calls, None, None, price, None)
    read, written = calls * (tokens[0] + answer_tokens), calls * tokens[1]
    cost = None if price is None else (read * price.input + written * price.output) / 1e6
    return JudgeCost(judge, calls, read, written, price, cost)


def cost_entry(judges: Sequence[JudgeCost], *, priced: bool, tokens_known: bool, answers_known: bool) -> dict[str, Any]:
    """The `cost` of a plan: judges, total per currency (None as soon as one judge's cost is not known), and why."""
    reasons = []
    if judges and not priced:
        reasons.append("no price table was given (--prices FILE)")
    if judges and not tokens_known:
        reasons.append("the tokens of a judge's call are not known (--judge-tokens IN,OUT)")
    if judges and not answers_known:
        reasons.append("the length of an answer is not known (--pilot or --tokens-per-answer)")
    if priced:
        reasons += [f"the price table has no judge '{cost.judge}'" for cost in judges if cost.price is None]
    total: dict[str, float] | None = None
    if judges and all(cost.cost is not None for cost in judges):
        total = {}
        for cost in judges:
            if cost.price is not None and cost.cost is not None:
                total[cost.price.currency] = total.get(cost.price.currency, 0.0) + cost.cost
    return {"judges": [asdict(cost) for cost in judges], "total": total, "unknown": reasons}
