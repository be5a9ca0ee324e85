"""Run directories written by hand."""

import math

import numpy as np
import yaml

STEPS = (0, 100, 200, 300)


def write_run(path, *, algo=None, env=None, seeds=(0, 1), steps=STEPS, seconds=None, returns=None, **settings):
    """A run directory as `hajax train` leaves it; returns `[K, S]` are the path's own random ones unless given."""
    path.mkdir(parents=True)
    config = {
        "algo": {"name": "happo", "reward": "team", "clip": 0.2, "hidden_sizes": [64, 64]} | (algo or {}),
        "env": {"name": "mpe/simple_spread", "num_agents": 3, "reward": "team", "state": "observations"} | (env or {}),
        "eval": {"episodes": 100, "stochastic": False},
        "preset": None,
        "seed": seeds[0],
        "num_seeds": len(seeds),
        "total_steps": steps[-1],
        "num_envs": 20,
        "out_dir": str(path),
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config | settings), encoding="utf-8")
    if returns is None:
        returns = np.random.default_rng(len(path.name)).normal(size=(len(steps), len(seeds)))
    lines = [
        f"{step},{seed},{'' if math.isnan(value) else repr(float(value))},1.0"
        for step, row in zip(steps, returns, strict=True)
        for seed, value in zip(seeds, row, strict=True)
    ]
    (path / "metrics.csv").write_text("\n".join(["step,seed,eval_return_mean,eval_length", *lines, ""]))
    seconds = [10.0 + step for step in steps] if seconds is None else seconds
    lines = [f"{step},{wall},0.0,0.0" for step, wall in zip(steps, seconds, strict=True)]
    (path / "timing.csv").write_text("\n".join(["step,wall_seconds,train_seconds,eval_seconds", *lines, ""]))
    return path
