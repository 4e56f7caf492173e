"""A/B test of kernels under the published script's name and options: a thin wrapper of `lem benchmark`.

    .venv/bin/python scripts/ab_test.py --model M --kernel json=kernel/axioms.json \
        --prompts seeds/P01-P100.json --output results.jsonl --max-tokens 1024
"""

from __future__ import annotations

import argparse

from lem.cli.main import main


def arguments() -> list[str]:
    """Translate the published options into those of `lem benchmark`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kernel", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--max-tokens", type=int, default=1024)
    options = parser.parse_args()
    words = ["benchmark", "--model", options.model, "--prompts", options.prompts, "--output", options.output]
    words += ["--max-tokens", str(options.max_tokens)]
    for kernel in options.kernel:
        words += ["--kernel", kernel]
    return words


if __name__ == "__main__":
    main(arguments())
