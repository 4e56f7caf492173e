"""Records: what was asked, what came back, and what failed, one line each, never lost and never overwritten.

`model` holds the frozen types, `store` the append-only JSONL file, `run` the run directory with its
manifest and lock, `cells` joins plan, records and scores into one outcome per cell. Nothing here imports MLX. A record's key is (arm, probe_id, repeat); its fingerprint
covers everything that can change the text (rendered prompt, generation settings, model, adapter and cap
identity) and nothing that cannot (batch size, threads, retries).
"""

from lem.records.cells import Cell, Outcome, join_cells, read_scores
from lem.records.model import RECORD_SCHEMA, Key, Record, Score, fingerprint, text_sha
from lem.records.run import RunDirectory, RunInfo, open_run, read_run
from lem.records.store import JsonlStore, lock_directory, read_jsonl, write_atomic

__all__ = [
    "RECORD_SCHEMA",
    "Cell",
    "JsonlStore",
    "Key",
    "Outcome",
    "Record",
    "RunDirectory",
    "RunInfo",
    "Score",
    "fingerprint",
    "join_cells",
    "lock_directory",
    "open_run",
    "read_jsonl",
    "read_run",
    "read_scores",
    "text_sha",
    "write_atomic",
]
