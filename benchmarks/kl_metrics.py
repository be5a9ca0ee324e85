"""Measures HATRPO's steps during a training in two metrics: hajax's and HARL's.

    python benchmarks/kl_metrics.py [--steps 300_000] [--only mpe/simple_spread] [--output docs/results/kl_metrics.json]

hajax bounds the mean of KL(π_old ‖ π_new) = Σ_a π_old(a) (e^d − 1 − d), with d = log π_new(a) − log π_old(a). HARL
bounds the mean of Σ_a (e^d − 1 − d), the same without the weights. Near a uniform policy over |A| available choices the
second is |A| times the first; further away it depends on which choices have changed. A threshold of HARL's therefore
corresponds to one |A| times smaller. The presets of discrete HATRPO have HARL's thresholds divided by |A|.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hajax
from hajax.core.losses import weighted_mean
from hajax.core.observation_moments import in_units_of
from hajax.core.on_policy.template import make_networks
from hajax.nn import distributions
from hajax.nn.networks import available_choices
from hajax.runs import config
from hajax.training.rollout import playable, rollout

# The trainings: the preset, and the environment if it is not the preset's.
TRAININGS = {
    "mpe/simple_spread": ["preset=harl/mpe_hatrpo"],
    "mpe/simple_speaker_listener": ["preset=harl/mpe_hatrpo", "env=mpe/simple_speaker_listener"],
    "mpe/simple_reference": ["preset=harl/mpe_hatrpo_reference"],
    "smax/3m": ["preset=harl/smac_hatrpo"],
    "smax/2s3z": ["preset=harl/smac_hatrpo", "env=smax/2s3z"],
    "smax/3s5z": ["preset=harl/smac_hatrpo_3s5z"],
    "smax/10m_vs_11m": ["preset=harl/smac_hatrpo_10m_vs_11m"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--only", choices=list(TRAININGS), action="append")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "jax": version("jax"),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "steps": arguments.steps,
        "seed": 0,
        "trainings": {},
    }
    for name in arguments.only or TRAININGS:
        report["trainings"][name] = measured = measure(TRAININGS[name], arguments.steps)
        print(name, json.dumps({key: measured[key] for key in ("kl_radius", "whole", "first", "last")}), flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure(overrides: list[str], steps: int) -> dict[str, Any]:
    """The metrics of one training: per iteration, and medians of all, of the first and of the last tenth."""
    settings = config.compose(overrides)
    env = hajax.make_env(**settings["env"])
    options = {key: value for key, value in settings["algo"].items() if key not in ("name", "reward")}
    algo = hajax.make_algorithm("hatrpo", env, **options)
    loop = hajax.make_loop(env, algo, num_envs=settings["num_envs"], rollout_length=settings["rollout_length"])
    actors, _ = make_networks("hatrpo", env.spec, algo.settings, None, None)
    playing = playable(env, algo)

    @jax.jit
    def iterate(state):
        key, rollout_key, update_key = jax.random.split(state.key, 3)
        inside, batch = rollout(playing, algo, rollout_key, state.algorithm, state.actors, settings["rollout_length"])
        new, info = algo.update(update_key, state.algorithm, batch)
        seen = in_units_of(state.algorithm.moments, actors.groups, batch.observation), batch.action_mask
        old_policy, new_policy = (actors.team_distribution(x.actors.params, *seen)[0] for x in (state.algorithm, new))
        rows = metrics(actors.layout, old_policy, new_policy, batch)
        rows |= {"compound_ratio": info["compound_ratio"].mean()}
        return state._replace(algorithm=new, actors=inside, key=key), rows

    state, rows = jax.jit(loop.init)(jax.random.key(0)), []
    for _ in range(loop.iterations(steps)):
        state, row = iterate(state)
        rows.append({name: float(value) for name, value in row.items()})
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    tenth = max(1, len(rows) // 10)
    parts = {"whole": slice(None), "first": slice(tenth), "last": slice(-tenth, None)}
    medians = {
        part: {name: round(float(np.median(column[rows_of])), 6) for name, column in columns.items()}
        for part, rows_of in parts.items()
    }
    return {"command": overrides, "kl_radius": options["kl_radius"], **medians, "iterations": columns}


def metrics(layout: Any, old: Any, new: Any, batch: Any) -> dict[str, jax.Array]:
    """Means over active agents: both metrics of a step, the number of available choices, and the old entropy."""
    available = available_choices(layout, batch.action_mask)
    p, q = (jax.nn.log_softmax(policy.logits) for policy in (old, new))
    d = jnp.where(available, q - p, 0)
    terms = jnp.exp(d) - 1 - d
    active = batch.active.astype(p.dtype)

    def mean(x):
        return weighted_mean(x, active)

    kl = mean(distributions.kl_divergence(old, new, layout))
    harl = mean(jnp.where(available, terms, 0).sum((-1, -2)))
    return {
        "kl": kl,
        "harl": harl,
        "ratio": harl / kl,
        "available": mean(available.sum((-1, -2)) * 1.0),
        "entropy": mean(distributions.entropy(old, layout)),
    }


if __name__ == "__main__":
    main()
