"""What judging will cost: the tokens that judges will read and write, at the prices of the user's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lem.data.prices import Price


@dataclass(frozen=True)
class JudgeCost:
    """One judge's calls and tokens over the whole run; `cost` is None where the price or the tokens are not known."""

    judge: str
    calls: int
    input_tokens: float | None
    output_tokens: float | None
    price: Price | None
    cost: float | None


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
