"""Scorers: numbers read off the surface of an answer, each with a version, none with a default for failure.

`v2` is the published yardstick, exact; `v3` is our corrected scorer; `v1` is history. `table` names them, `passes`
scores runs, `audit` measures what a scorer rewards besides content (imports scipy: import it where it is used).
"""

from lem.scorers.result import ScoreResult
from lem.scorers.table import SCORERS, find, score_text

__all__ = ["SCORERS", "ScoreResult", "find", "score_text"]
