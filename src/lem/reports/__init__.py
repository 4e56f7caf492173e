"""Reports: what a run directory says, as tables for people and machines and as one self-contained page.

`leaderboard` and `domains` turn cells into estimates; `tables` prints them; `page` writes the HTML page; `curves`
draws a training from its metrics. Only files of a run directory, and of the adapter directories it names, are read: no
model, no MLX, no network.
"""

from lem.reports.curves import TrainingSummary, draw_training, training_summary
from lem.reports.domains import DomainMean, domain_means
from lem.reports.leaderboard import LeaderboardRow, leaderboard
from lem.reports.page import write_report

__all__ = [
    "DomainMean",
    "LeaderboardRow",
    "TrainingSummary",
    "domain_means",
    "draw_training",
    "leaderboard",
    "training_summary",
    "write_report",
]
