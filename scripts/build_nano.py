"""Builds lem-nano, the embedded toy model, from the hand-written text in scripts/nano/text.

Stages: corpus, tokenizer, train, export, check, card; `all` runs them in order. On Linux preload OpenBLAS, one thread:
  OPENBLAS_NUM_THREADS=1 LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libopenblas.so.0 python scripts/build_nano.py all
Keeping freed memory (MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ set high) saves a third of the time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from nano import stages

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Runs one stage, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*stages.STAGES, "all"])
    parser.add_argument("run", nargs="?", type=Path, help="for check and card: a run directory of ./lem benchmark")
    parser.add_argument("--adapter", type=Path, help="for check: the trained adapter")
    parser.add_argument("--placebo-adapter", type=Path, help="for check: the adapter trained on the placebo answers")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "lem-nano", help="corpus, checkpoint and logs")
    parser.add_argument("--output", type=Path, default=ROOT / "models" / "lem-nano", help="where the model goes")
    parser.add_argument("--rows", type=int, default=stages.ROWS, help="rows of the corpus")
    parser.add_argument("--seed", type=int, default=stages.SEED)
    args = parser.parse_args()
    plan = stages.Plan(ROOT, args.work, args.output, args.rows, args.seed, args.run, args.adapter, args.placebo_adapter)
    names = [name for name in stages.STAGES if name != "check"] if args.stage == "all" else [args.stage]
    return max(stages.STAGES[name](plan) for name in names)


if __name__ == "__main__":
    sys.exit(main())
