"""Presets in Python: the arguments of `hajax.train` and `hajax.make_train`."""

from __future__ import annotations

from typing import Any

from hajax.runs.config import compose
from hajax.runs.settings import validate
from hajax.runs.team import make_members

SCHEDULE = ("num_envs", "rollout_length", "lr_decay")


def preset(name: str, *overrides: str) -> dict[str, Any]:
    """The environment, the algorithm and the schedule of a preset.

        hajax.train(**hajax.preset("harl/mpe"), total_steps=300_000)
        hajax.make_train(**hajax.preset("harl/mpe", "algo=mappo", "env.num_agents=5"), total_steps=300_000)

    Args:
        name: one of the presets that `hajax list` shows.
        overrides: settings as at the command line, such as `algo.clip=0.1`.

    Returns:
        `env`, `algo`, `num_envs`, `rollout_length` and `lr_decay`.

    Raises:
        ValueError: the preset or a setting is unknown, or the preset is for another algorithm or environment.
    """
    for override in overrides:
        if override.partition("=")[0].partition(".")[0] not in ("algo", "env", *SCHEDULE):
            allowed = f"settings of algo and env, {', '.join(SCHEDULE)}; others are arguments of hajax.train"
            raise ValueError(f"override={override}; allowed: {allowed}")
    settings = validate(compose([f"preset={name}", *overrides]))
    env, algo = make_members(settings)
    return {"env": env, "algo": algo, **{name: getattr(settings, name) for name in SCHEDULE}}
