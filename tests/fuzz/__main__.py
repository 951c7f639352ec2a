"""Checks damaged files by the thousand, and keeps those that break a promise.

  python -m tests.fuzz --files=100000 --out=faults

Exit code 1 if there was a fault; the folder then holds each file, and faults.txt their reasons. The
same --seed and number make the same file again: --only=NUMBER checks one.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.fuzz import checks, mutators, workers


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=100_000, help="damaged files to check")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other files")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at the same time")
    parser.add_argument("--out", default="fuzz-faults", help="folder for files with a fault")
    parser.add_argument("--only", type=int, help="check this file alone, in this process")
    flags = parser.parse_args()
    if flags.only is not None:
        name, data = mutators.mutated(flags.seed, flags.only)
        print(f"file {flags.only}, made from {name}: {len(data)} bytes")
        print("accepted" if checks.check(name.partition(":")[0], data) else "refused")
        return 0
    faults, accepted = workers.run(flags.seed, flags.files, flags.processes, _show)
    print(f"\n{flags.files:,} files: {accepted:,} accepted, {len(faults)} faults")
    if not faults:
        return 0
    os.makedirs(flags.out, exist_ok=True)
    lines = []
    for fault in faults:
        name, data = mutators.mutated(flags.seed, fault.number)
        path = f"seed{flags.seed}-{fault.number}.{name.partition(':')[0]}"
        with open(os.path.join(flags.out, path), "wb") as file:
            file.write(data)
        lines.append(f"{path}, made from {name}: {fault.reason}\n")
    with open(os.path.join(flags.out, "faults.txt"), "w") as file:
        file.writelines(lines)
    sys.stdout.writelines(lines[:20])
    print(f"all of them: {flags.out}/faults.txt")
    return 1


def _show(done: int, faults: int) -> None:
    print(f"\r{done:,} files, {faults} faults", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
