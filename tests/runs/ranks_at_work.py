"""A small benchmark as one of several ranks: `python ranks_at_work.py FOLDER MODEL [key=value ...]`.

Prints one JSON line: rank, rows written, rows that were there. `FOLDER/pid<rank>` holds the process id while it works.
Keys ending in `@1` hold for rank 1 only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from lem.cli.main import _show_warning
from lem.errors import LemError
from lem.runs.conduct import conduct
from lem.runs.plan import RunPlan
from lem.runs.shards import here
from small_plan import small_plan, write_kernel, write_probes

N_PROBES = 10


def write_files(folder: Path) -> None:
    """The probe file and the kernel; ranks that all wrote them would read each other's half-written ones."""
    write_probes(folder / "probes.json", N_PROBES)
    write_kernel(folder / "axioms.json")


def the_plan(folder: Path, model: str, **options: Any) -> RunPlan:
    """Ten probes, two arms, groups of two, on the files in the folder."""
    settings = {"max_tokens": 60, "group_size": 2, "command": ("lem", "benchmark"), **options}
    return small_plan(Path(model), folder / "probes.json", kernels=(f"json={folder / 'axioms.json'}",), **settings)


def main() -> None:
    """Run as the rank that the environment names."""
    import warnings

    folder, model = Path(sys.argv[1]), sys.argv[2]
    ranks = here()
    options: dict[str, Any] = {}
    for word in sys.argv[3:]:
        name, _, value = word.partition("=")
        name, _, only = name.partition("@")
        if not only or int(only) == ranks.rank:
            options[name] = json.loads(value)
    output = folder / options.pop("output", "run")
    warnings.showwarning = _show_warning
    (folder / f"pid{ranks.rank}").write_text(str(os.getpid()))
    try:
        outcome = conduct(the_plan(folder, model, **options), output, "benchmark", ranks=ranks)
    except LemError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps({"rank": ranks.rank, "written": outcome.written, "reused": outcome.reused}), flush=True)


if __name__ == "__main__":
    main()
