"""The tables of docs/reproductions.md: every figure of `schedsim reproduce`, at full size.

python tests/benchmarks/reproductions.py [NAME ...]
"""

import sys

from schedsim.experiments.reproductions import REPRODUCTIONS
from schedsim.experiments.reproductions.running import reproduce

HEADING = "| figure | published | ours | |\n|---|---|---|---|"


def rows(name: str) -> list[str]:
    """The lines of one table."""
    return [
        f"| {figure.name} | {figure.published}{'' if figure.read else ' ?'} | {figure.ours} | "
        f"{figure.verdict} |"
        for figure in reproduce(REPRODUCTIONS[name]).figures
    ]


def main() -> None:
    """Print the tables asked for, or all."""
    for name in sys.argv[1:] or REPRODUCTIONS:
        print(f"\n{name}\n\n{HEADING}")
        print("\n".join(rows(name)))


if __name__ == "__main__":
    main()
