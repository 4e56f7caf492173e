"""v1: the first surface scorer of LEM, kept for its history.

The published description gives the weights,

    2 engagement + 3 creative + 2 emotional + 1.5 first person - 5 compliance - 3 preamble - 4 degeneration - 20 broken,

and says only that the parts are yes/no or capped low. The limits below are our choice, so that values of this
scorer can be compared with each other and with no published figure: engagement counts paragraph breaks up to 3;
creative, emotional and first person count v2's matches up to 3; the other four are 0 or 1. Degenerate means fewer
than half of the words distinct, in a text of more than ten words.
"""

from __future__ import annotations

from lem.scorers import v2

VERSION = "v1.0"
LIMIT = 3
WEIGHTS = {
    "engagement": 2.0,
    "creative": 3.0,
    "emotional": 2.0,
    "first_person": 1.5,
    "compliance": -5.0,
    "preamble": -3.0,
    "degeneration": -4.0,
    "broken": -20.0,
}


def score(text: str) -> dict[str, int | float]:
    """Return the eight limited parts and their weighted sum `score`.   Raises: TypeError if text is no string."""
    counts = v2.score(text)
    parts: dict[str, int | float] = {
        "engagement": min(counts["engagement_depth"] - 1, LIMIT),
        "creative": min(counts["creative_form"], LIMIT),
        "emotional": min(counts["emotional_register"], LIMIT),
        "first_person": min(counts["first_person"], LIMIT),
        "compliance": int(counts["compliance_markers"] > 0),
        "preamble": counts["formulaic_preamble"],
        "degeneration": int(counts["degeneration"] > 0),
        "broken": counts["empty_broken"],
    }
    parts["score"] = round(sum(weight * parts[part] for part, weight in WEIGHTS.items()), 2)
    return parts
