"""Records: what was asked, what came back, and what failed, one line each, never lost and never overwritten.

`model` holds the frozen types, `store` the append-only JSONL file, `run` the run directory with its manifest and
lock, `contents` a run read whole, `cells` and `metrics` what became of each planned cell under each scorer and judge.
Nothing here imports MLX. A record's key is (arm, probe_id, repeat); its fingerprint covers everything that can change
the text (rendered prompt, generation settings, model, adapter and cap identity) and nothing that cannot (batch size,
threads, retries).
"""

from lem.records.cells import Cell, Outcome, join_cells, read_scores
from lem.records.contents import RunContents, read_contents, read_judgements
from lem.records.metrics import Metric, metrics_of
from lem.records.model import RECORD_SCHEMA, Judgement, Key, Record, Score, fingerprint, text_sha
from lem.records.run import RunDirectory, RunInfo, open_run, read_run
from lem.records.store import JsonlStore, lock_directory, read_jsonl, write_atomic

__all__ = [
    "RECORD_SCHEMA",
    "Cell",
    "JsonlStore",
    "Judgement",
    "Key",
    "Metric",
    "Outcome",
    "Record",
    "RunContents",
    "RunDirectory",
    "RunInfo",
    "Score",
    "fingerprint",
    "join_cells",
    "lock_directory",
    "metrics_of",
    "open_run",
    "read_contents",
    "read_judgements",
    "read_jsonl",
    "read_run",
    "read_scores",
    "text_sha",
    "write_atomic",
]
