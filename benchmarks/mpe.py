"""Trains what docs/results shows of MPE for the off-policy algorithms, run after run, and their policies in mpe2.

    python benchmarks/mpe.py --list
    python benchmarks/mpe.py spread_discrete/hasac spread_discrete/masac
    python benchmarks/mpe.py                          everything that docs/results does not have yet

A run trains in runs/mpe/TASK/NAME, where it goes on if it was interrupted, and is copied to docs/results/TASK/NAME when
it is finished and its policies have played in mpe2. Several of these may work side by side, one on each core
(`taskset -c 0 python benchmarks/mpe.py`): a run that another one has begun is left to it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, WORK = ROOT / "docs" / "results", ROOT / "runs" / "mpe"
# The last tells that a run is done.
KEPT = ("config.yaml", "metrics.csv", "timing.csv", "curve.png", "transfer.json", "summary.json")

COMMON = ["total_steps=300_000", "num_seeds=3", "eval.episodes=200", "checkpoint.interval=100_000", "checkpoint.keep=1"]
# HARL's settings but for the batch, a CPU's budget; a replay that holds the run; n_step from pilot runs (docs/results).
OFF_POLICY = ["algo.batch_size=256", "algo.buffer_size=300_000"]
SETTINGS = {
    "happo": ["preset=harl/mpe"],
    **{name: ["preset=harl/mpe_hasac", "algo.n_step=5", *OFF_POLICY] for name in ("hasac", "masac")},
    **{
        name: ["preset=harl/mpe_haddpg", "algo.n_step=5", *OFF_POLICY]
        for name in ("haddpg", "maddpg", "hatd3", "matd3")
    },
    **{name: ["preset=harl/mpe_had3qn", *OFF_POLICY] for name in ("had3qn", "mad3qn")},
}
ALGORITHMS = {
    "continuous": ("happo", "haddpg", "maddpg", "hatd3", "matd3", "hasac", "masac"),
    "discrete": ("happo", "had3qn", "mad3qn", "hasac", "masac"),
}
ENVIRONMENTS = {
    "spread": "mpe/simple_spread",
    "speaker_listener": "mpe/simple_speaker_listener",
    "reference": "mpe/simple_reference",
}
# The parts of HASAC's paper: fixed temperatures (Figure 4b), and no entropy but Gaussian noise (4a).
ABLATIONS = {
    **{f"alpha_{x}": ("hasac", ["algo.auto_temperature=false", f"algo.temperature={x}"]) for x in ("0.01", "0.1", "1")},
    "deterministic": (
        "hatd3",
        [
            "algo.hidden_sizes=[256,256]",
            "algo.critic_lr=5e-4",
            "algo.policy_delay=1",
            "algo.target_noise=0",
            "algo.others=policy",
        ],
    ),
    "haddpg_policy": ("haddpg", ["algo.others=policy"]),
}


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    listed = {}
    for task, env in ENVIRONMENTS.items():
        for actions, names in ALGORITHMS.items():
            where = [f"env={env}", f"env.actions={actions}", *COMMON]
            for name in names:
                listed[f"{task}_{actions}/{name}"] = [f"algo={name}", *SETTINGS[name], *where]
    where = ["env=mpe/simple_spread", "env.actions=continuous", *COMMON]
    for name, (algo, changes) in ABLATIONS.items():
        listed[f"spread_ablation/{name}"] = [f"algo={algo}", *SETTINGS[algo], *changes, *where]
    # HARL's own schedule, as far as a CPU takes it.
    listed["spread_2m/hatd3"] = ["algo=hatd3", "preset=harl/mpe_haddpg", *where, "total_steps=2_000_000"]
    return listed


def make(name: str, settings: list[str]) -> None:
    """Trains, plays in mpe2, and copies what docs/results keeps."""
    directory = WORK / name
    train = [sys.executable, "-m", "hajax", "train", *settings, f"out_dir={directory}", "resume=auto"]
    subprocess.run(train, check=True)
    transfer = [sys.executable, ROOT / "benchmarks" / "transfer.py", directory]
    subprocess.run([*transfer, "--output", directory / "transfer.json"], check=True)
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copy(directory / file, RESULTS / name / file)
        if file == "config.yaml":
            config = RESULTS / name / file
            text = config.read_text(encoding="utf-8")
            text = re.sub(r"^out_dir: .*$", f"out_dir: docs/results/{name}", text, flags=re.M)
            config.write_text(re.sub(r"^resume: auto$", "resume: false", text, flags=re.M), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="TASK/NAME; all that are missing otherwise")
    parser.add_argument("--list", action="store_true", help="show all runs with their settings")
    arguments = parser.parse_args()
    listed = runs()
    if unknown := [name for name in arguments.names if name not in listed]:
        raise SystemExit(f"{', '.join(unknown)}: no such run; allowed: {', '.join(listed)}")
    for name in arguments.names or listed:
        done = (RESULTS / name / "summary.json").exists()
        if arguments.list:
            print(f"{'done' if done else 'to do'}  {name}: {' '.join(listed[name])}")
        elif not done or arguments.names:
            begun = WORK / f"{name}.begun"
            begun.parent.mkdir(parents=True, exist_ok=True)
            try:
                begun.mkdir()
            except FileExistsError:
                print(f"{name}: another process has it; remove {begun} if none does")
                continue
            try:
                make(name, listed[name])
            finally:
                begun.rmdir()


if __name__ == "__main__":
    main()
