#!/usr/bin/env python3
"""Write paper/PAPER.md from its template and paper/data/*.json; with options, make the data from runs first.

.venv/bin/python scripts/build_paper.py                          # the same data give the same bytes
.venv/bin/python scripts/build_paper.py --standard FOLDER        # published answers with standard_scores.json
.venv/bin/python scripts/build_paper.py --demo RUN               # a finished run of ./lem demo
.venv/bin/python scripts/build_paper.py --simulation FILE        # what scripts/simulate_stats.py printed
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lem.errors import LemError
from lem.paths import display_path, repository_root
from lem.studies.paper import build


def main() -> int:
    """Build the paper of this checkout, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--standard", type=Path, metavar="FOLDER", help="analyse the published answers again")
    parser.add_argument("--demo", type=Path, metavar="RUN", help="take the figures of the demonstration from this run")
    parser.add_argument("--simulation", type=Path, metavar="FILE", help="take the simulated figures from this output")
    given = parser.parse_args()
    try:
        written = build(repository_root(), given.standard, given.demo, given.simulation)
    except LemError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(f"written: {display_path(path)}" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
