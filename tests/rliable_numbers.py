"""What rliable 1.2.0 computes from random scores, stored for `tests/training/test_statistics.py`.

rliable needs arch below 8, which cannot be imported with pandas 3, and constraints.txt pins that. So it is installed
into an environment of its own:

    python3.11 -m venv /tmp/rl
    /tmp/rl/bin/pip install rliable==1.2.0 "pandas<3" numpy==2.4.6 scipy==1.17.1
    /tmp/rl/bin/python tests/rliable_numbers.py    writes tests/rliable_numbers.json; two minutes

Its bootstrap draws from NumPy's global generator and ignores `random_state`.
"""

from __future__ import annotations

import itertools
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

STORED = Path(__file__).with_suffix(".json")
NUM_TASKS = 4
NUM_RUNS = {"happo": 7, "mappo": 7, "ippo": 5}
RESAMPLES = {"iqm": 50_000, "profile": 10_000, "improvement": 10_000}


def random_scores() -> dict[str, np.ndarray]:
    """`[num_runs, num_tasks]` by algorithm, with one decimal, so that some are equal; tasks lie apart."""
    generator = np.random.default_rng(0)
    tasks = np.linspace(0, 3, NUM_TASKS)
    return {
        name: (tasks + better + generator.normal(size=(runs, NUM_TASKS))).round(1)
        for (name, runs), better in zip(NUM_RUNS.items(), (0.6, 0.2, 0.0), strict=True)
    }


def main() -> None:
    np.random.seed(0)
    scores = random_scores()
    thresholds = np.arange(-2.0, 6.01, 0.5)
    pairs = {f"{x},{y}": [scores[x], scores[y]] for x, y in itertools.permutations(scores, 2)}
    found = {
        "iqm": library.get_interval_estimates(
            scores, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=RESAMPLES["iqm"]
        ),
        "profile": library.create_performance_profile(scores, thresholds, reps=RESAMPLES["profile"]),
        "improvement": library.get_interval_estimates(
            pairs, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=RESAMPLES["improvement"]
        ),
    }
    stored = {
        "versions": {name: version(name) for name in ("rliable", "arch", "numpy", "scipy", "pandas")},
        "resamples": RESAMPLES,
        "scores": {name: values.T.tolist() for name, values in scores.items()},  # by task
        "thresholds": thresholds.tolist(),
    }
    for what, (points, intervals) in found.items():
        stored[what] = {
            name: {"estimate": points[name].tolist(), "interval": intervals[name].tolist()} for name in points
        }
    lines = [f'  "{key}": {json.dumps(value)}' for key, value in stored.items()]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
