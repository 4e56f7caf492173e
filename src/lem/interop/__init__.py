"""Interop: files of other tools, read into runs and written from them; no MLX.

`read_answers_file` decides the format and reads it, `write_run` makes a run directory of what was read,
`merge_by_benchmark` joins one-file-per-model results into leaderboards, `write_ab` writes a run in the published A/B
format.
"""

from lem.interop.detect import read_answers_file
from lem.interop.imported import Imported
from lem.interop.imported_run import write_run
from lem.interop.merge import merge_by_benchmark
from lem.interop.published import read_ab, read_answers, read_standard_results, write_ab
from lem.interop.standard import read_standard

__all__ = [
    "Imported",
    "merge_by_benchmark",
    "read_ab",
    "read_answers",
    "read_answers_file",
    "read_standard",
    "read_standard_results",
    "write_ab",
    "write_run",
]
