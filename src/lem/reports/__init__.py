"""Reports: what a run directory says, as tables for people and machines and as one self-contained page.

`cells` joins plan, records and scores into one outcome per cell; `leaderboard` and `domains` turn cells into
estimates; `tables` prints them; `page` writes the HTML page. Only files of a run directory are read: no model,
no MLX, no network.
"""

from lem.reports.cells import Cell, join_cells, read_scores
from lem.reports.domains import DomainMean, domain_means
from lem.reports.leaderboard import LeaderboardRow, leaderboard
from lem.reports.page import write_report

__all__ = [
    "Cell",
    "DomainMean",
    "LeaderboardRow",
    "domain_means",
    "join_cells",
    "leaderboard",
    "read_scores",
    "write_report",
]
