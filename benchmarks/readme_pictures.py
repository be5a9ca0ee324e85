"""Makes the pictures of the README, in docs/pictures: a film of a trained policy, and curves of committed runs.

    python benchmarks/readme_pictures.py

The policy trains in runs/readme, a few minutes on one core, where it is resumed if it was interrupted.
"""

from __future__ import annotations

import argparse

from kept_runs import RESULTS, ROOT, train
from mpe import runs
from reports import with_last

from hajax.cli import main as hajax

PICTURES = ROOT / "docs" / "pictures"
# The run of this name for longer, so that there is something to see.
FILMED, LONGER = "spread_continuous/hatd3", ["num_seeds=1", "total_steps=1_000_000", "algo.buffer_size=1_000_000"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    directory = ROOT / "runs" / "readme"
    train(with_last(*runs()[FILMED], *LONGER), directory)
    commands = [["render", directory, "--episodes", "4", "--output", PICTURES / "spread.gif"]]
    spread = [RESULTS / "spread_continuous" / name for name in ("hasac", "hatd3", "happo")]
    title = "simple_spread, continuous actions"
    curves = ["--x", "steps", "--no-seeds"]
    commands += [
        [
            "plot",
            *spread,
            "--labels",
            "HASAC,HATD3,HAPPO",
            "--title",
            title,
            *curves,
            "--output",
            PICTURES / "spread.png",
        ]
    ]
    smax = [RESULTS / "2s3z" / name for name in ("happo", "mappo", "hatrpo")]
    labels = ["--metric", "win", "--labels", "HAPPO,MAPPO,HATRPO", "--title", "SMAX 2s3z"]
    commands += [["plot", *smax, *labels, *curves, "--output", PICTURES / "smax.png"]]
    for command in commands:
        if hajax([str(part) for part in command]):
            raise SystemExit(f"hajax {command[0]} failed")


if __name__ == "__main__":
    main()
