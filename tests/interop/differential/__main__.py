"""Plays one script again, on both servers, and makes it short.

python -m tests.interop.differential --seed 17 [--steps 300] [--quotas] [--ensemble] [--shrink] [--print]
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.interop.differential.pair import Pair
from tests.interop.differential.script import Step


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interop.differential", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=1, help="seeds to play, from --seed on")
    parser.add_argument("--quotas", action="store_true", help="make and change quotas, too")
    parser.add_argument("--ensemble", action="store_true", help="ours are three servers")
    parser.add_argument(
        "--shrink", action="store_true", help="drop the steps that the difference does not need"
    )
    parser.add_argument("--print", action="store_true", help="print the script")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as directory, Pair(Path(directory), options.ensemble) as pair:
        for seed in range(options.seed, options.seed + options.count):
            script = pair.script(random.Random(seed), options.steps, quotas=options.quotas)
            difference = pair.difference(script)
            if difference is None:
                continue
            failed += 1
            print(f"seed {seed} differs in step {difference.step}:\n{difference}")
            if options.shrink:
                script = shorten(pair, script[: difference.step] if difference.step > 0 else script)
                print(f"\nenough for it:\n{pair.difference(script)}")
            if options.print or options.shrink:
                print("\n".join(f"{number}: {step}" for number, step in enumerate(script, 1)))
        print(f"{options.count} scripts, {failed} differ; {pair.summary()}")
    return 1 if failed else 0


def shorten(pair: Pair, script: list[Step]) -> list[Step]:
    """Without every run of steps that a difference does not need."""
    size = max(1, len(script) // 2)
    while True:
        start = 0
        while start < len(script):
            shorter = script[:start] + script[start + size :]
            if pair.difference(shorter) is not None:
                script = shorter
            else:
                start += size
        if size == 1:
            return script
        size //= 2


sys.exit(main())
