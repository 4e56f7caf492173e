"""Interop: files of other tools, read into runs and written from them; no MLX.

`read_answers_file` decides the format and reads it, `merge_by_benchmark` joins one-file-per-model results into
leaderboards, `write_ab` writes a run in the published A/B format.
"""

from lem.interop.detect import read_answers_file
from lem.interop.imported import Imported
from lem.interop.merge import merge_by_benchmark
from lem.interop.published import read_ab, read_answers, read_standard_results, write_ab

__all__ = [
    "Imported",
    "merge_by_benchmark",
    "read_ab",
    "read_answers",
    "read_answers_file",
    "read_standard_results",
    "write_ab",
]
