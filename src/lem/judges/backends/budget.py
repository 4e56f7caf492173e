"""The limit of --max-cost: what a call may cost at most is set aside before it is sent, so that no limit is passed."""

from __future__ import annotations

import json
import math
from typing import Any

from lem.data.prices import Price
from lem.errors import UserError
from lem.judges.protocol import Call, Reply

# Room for what a chat template and a service add to the two texts and the schema.
FRAME_TOKENS = 256


class Budget:
    """What one judge may spend and has spent, in the currency of its price.

    A call counts with its upper estimate until its reply says what it did cost; where a reply does not say, the
    estimate stays spent. Without a limit everything is admitted; without a price every cost is None. The costs of the
    replies and what is set aside for calls without one add up to `committed`.
    """

    def __init__(self, max_cost: float | None = None, price: Price | None = None) -> None:
        """Raises: UserError for a limit without a price, or one that is no positive number."""
        if max_cost is not None and not (math.isfinite(max_cost) and max_cost > 0):
            raise UserError(f"--max-cost must be a finite number above 0 (got {max_cost:g}).")
        if max_cost is not None and price is None:
            raise UserError(
                "--max-cost needs the judge's price; name it in a price table and give that with --prices FILE, or "
                "leave --max-cost out."
            )
        self.max_cost = max_cost
        self.price = price
        self.spent = 0.0
        self._reserved: dict[Any, float] = {}
        self._lost: dict[Any, float] = {}

    @property
    def committed(self) -> float:
        """The most that can have been spent so far: what was spent, and what is set aside for calls under way."""
        return self.spent + sum(self._reserved.values())

    def estimate(self, call: Call, extra_tokens: int = 0) -> float:
        """The most that one attempt can cost: a token is at least a byte, and a reply ends at its limit.

        Args:  extra_tokens: what may be written beyond `call.max_tokens` (thinking).
        """
        if self.price is None:
            return 0.0
        texts = call.system + call.user + json.dumps(call.schema)
        read = len(texts.encode("utf-8", "surrogatepass")) + FRAME_TOKENS
        return (read * self.price.input + (call.max_tokens + extra_tokens) * self.price.output) / 1e6

    def admit(self, call: Call, extra_tokens: int = 0) -> bool:
        """Set the estimate of a call aside; False, with nothing set aside, when the limit leaves no room for it."""
        most = self.estimate(call, extra_tokens)
        if self.max_cost is not None and self.committed + most > self.max_cost:
            return False
        self._reserved[call.id] = most
        return True

    def lost(self, call: Call, extra_tokens: int = 0) -> bool:
        """Count an attempt as spent that may have been charged without a reply; whether another one has room."""
        charged = self._reserved.pop(call.id, 0.0)
        self.spent += charged
        self._lost[call.id] = self._lost.get(call.id, 0.0) + charged
        return self.admit(call, extra_tokens)

    def free(self, call: Call) -> None:
        """Take back what is set aside for an attempt that was not charged and gets no reply."""
        self._reserved.pop(call.id, None)

    def settle(self, reply: Reply, *, sent: bool = True) -> float | None:
        """Count what a reply did cost and free what was set aside; the cost of its call, None without a price.

        The cost holds the attempts before that may have been charged. What no reply tells is in it as the most that it
        can have been.

        Args:  sent: False for a reply that stands for attempts which were not charged, or are counted already.
        """
        reserved, lost = self._reserved.pop(reply.id, 0.0), self._lost.pop(reply.id, 0.0)
        if self.price is None:
            return None
        cost = reserved
        if not sent:
            cost = 0.0
        elif reply.n_prompt_tokens is not None and reply.n_tokens is not None:
            cost = (reply.n_prompt_tokens * self.price.input + reply.n_tokens * self.price.output) / 1e6
        self.spent += cost
        return lost + cost
