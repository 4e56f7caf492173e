"""Train the curriculum, or one phase of it, under the published script's name: a thin wrapper of `lem curriculum`.

    .venv/bin/python scripts/train_mistral_lek.py --model M [--phase P] [--quick]

A phase continues the one before it, which must have passed in the same output directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lem.cli.main import main

CURRICULUM = Path(__file__).resolve().parents[1] / "training" / "curriculum.yaml"


def arguments() -> list[str]:
    """Translate the published options into those of `lem curriculum`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--phase", action="append", default=[], metavar="P", help="repeatable; default: all phases")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    words = ["curriculum", str(CURRICULUM), "--model", options.model]
    for phase in options.phase:
        words += ["--phase", phase]
    return words + (["--quick"] if options.quick else [])


if __name__ == "__main__":
    main(arguments())
