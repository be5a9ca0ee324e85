"""Compares the returns of a policy in hajax and in the original environment, with an interval of the difference.

    python benchmarks/transfer.py RUN_DIR [RUN_DIR ...] [--episodes 200] [--draw 0] [--output FILE.json]

For each seed of each run, `--episodes` fresh episodes in hajax's environment, and as many in the parallel environment
of the same name of mpe2, or of gymnasium-robotics for MAMuJoCo, whose physics is MuJoCo's C. Policies are loaded with
`hajax.load_policy` and act deterministically. Every seed has its own episodes there, because shared ones would make
differences dependent. Policies of several runs with the same seed share episodes; another `--draw` gives other episodes
in both.
"""

from __future__ import annotations

import argparse
import json
import zlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.progress import track

import hajax
from hajax.envs import mamujoco
from hajax.runs.loading import LoadedRun, load_run
from hajax.training.policy import Policy

MPE2 = {
    "mpe/simple_spread": "simple_spread_v3",
    "mpe/simple_reference": "simple_reference_v3",
    "mpe/simple_speaker_listener": "simple_speaker_listener_v4",
}
# gymnasium-robotics lacks the other partitions, or has other joints under the same name (docs/mamujoco.md).
COUNTERPARTS = {
    "half_cheetah": ("2x3", "6x1"),
    "ant": ("2x4", "4x2"),
    "hopper": ("3x1",),
    "walker2d": ("2x3",),
    "humanoid": ("9|8",),
    "humanoid_standup": ("9|8",),
    "swimmer": ("2x1",),
    "reacher": ("2x1",),
    "many_agent_swimmer": ("10x2",),
}


def returns_in_hajax(loaded: LoadedRun, seed: int, episodes: int, draw: int = 0) -> np.ndarray:
    """`[episodes]` team returns, from other episodes than those of the run's evaluations."""
    evaluate = hajax.make_evaluate(loaded.team.env, loaded.team.algorithm, num_episodes=episodes)
    key = jax.random.fold_in(jax.random.key(seed), 2 + draw)
    return np.asarray(jax.jit(evaluate)(key, loaded.state(seed))["episode_return"])


class Elsewhere(NamedTuple):
    """Another package's parallel environment."""

    package: str
    env: Any
    by_state: bool  # the policy observes the whole state
    shared: bool  # every agent receives the team's reward, not a part of it


def elsewhere(settings: dict[str, Any]) -> Elsewhere:
    """The counterpart of the environment in a run's settings."""
    name = settings["name"]
    if name in MPE2:
        make = import_module(f"mpe2.{MPE2[name]}").parallel_env
        continuous = settings["actions"] == "continuous"
        return Elsewhere("mpe2", make(max_cycles=settings["max_steps"], continuous_actions=continuous), False, False)
    known = mamujoco.NAMES.get(name.removeprefix("mamujoco/"))
    if known is None or known[1] not in COUNTERPARTS.get(known[0], ()) or settings["version"] != "v5":
        named = f"env={name}" + (f" of version {settings['version']}" if "version" in settings else "")
        shared = ", ".join(
            f"{robot}_{each}".replace("|", "_") for robot, every in COUNTERPARTS.items() for each in every
        )
        raise SystemExit(f"{named} has no counterpart; allowed: {', '.join(MPE2)}, and of version v5 mamujoco/{shared}")
    import mujoco_oracle

    robot, partition = known
    with mujoco_oracle.quietly():
        env = import_module("gymnasium_robotics").mamujoco_v1.parallel_env(
            mujoco_oracle.ROBOTICS[robot], partition, agent_obsk=settings["k"]
        )
    return Elsewhere("gymnasium-robotics", env, settings["obs"] == "full", True)


def returns_elsewhere(policy: Policy, other: Elsewhere, seed: int, episodes: int, draw: int = 0) -> np.ndarray:
    """`[episodes]` sums over steps of the other environment's team reward."""
    env, returns = other.env, []
    start = zlib.crc32(policy.spec.name.encode())
    for episode in track(range(episodes), f"seed {seed} in {other.package}", transient=True):
        episode_seed = np.random.SeedSequence([start, seed, episode, *[draw] * (draw > 0)]).generate_state(1)[0]
        observations, _ = env.reset(seed=int(episode_seed))
        memory, total = policy.initial_memory(), 0.0
        while env.agents:
            if other.by_state:
                actions, memory = policy(memory=memory, state=env.state())
            else:
                actions, memory = policy(observations, memory)
            observations, rewards, *_ = env.step(actions)
            total += sum(rewards.values()) / (len(rewards) if other.shared else 1)
        returns.append(total)
    return np.array(returns)


def compare(run_dir: Path, episodes: int, draw: int = 0) -> dict[str, Any]:
    """Both returns of every seed and of all seeds together, and the intervals of their differences."""
    loaded = load_run(run_dir)
    settings = loaded.settings
    other = elsewhere(settings.env)
    package = other.package
    here = {seed: returns_in_hajax(loaded, seed, episodes, draw) for seed in loaded.seeds}
    policies = {seed: hajax.load_policy(run_dir, seed, loaded.step) for seed in loaded.seeds}
    there = {seed: returns_elsewhere(policies[seed], other, seed, episodes, draw) for seed in loaded.seeds}
    played = {str(seed): difference(package, [here[seed]], [there[seed]]) for seed in loaded.seeds}
    return {
        "algo": settings.algo["name"],
        "env": settings.env["name"],
        **{option: settings.env[option] for option in ("actions", "physics", "obs") if option in settings.env},
        "elsewhere": package,
        "step": loaded.step,
        "seeds": played,
        "all": difference(package, list(here.values()), list(there.values())),
    }


def difference(package: str, here: list[np.ndarray], there: list[np.ndarray]) -> dict[str, Any]:
    """Their mean minus hajax's over some policies, with its 95% interval over episodes, which are independent."""
    mean_here, mean_there = np.mean(here), np.mean(there)
    variances = [returns.var(ddof=1) / returns.size for returns in (*here, *there)]
    half_width = 1.96 * np.sqrt(sum(variances)) / len(here)
    interval = [mean_there - mean_here - half_width, mean_there - mean_here + half_width]
    return {
        "hajax": round(float(mean_here), 3),
        package: round(float(mean_there), 3),
        "difference": round(float(mean_there - mean_here), 3),
        "interval": [round(float(x), 3) for x in interval],
        "contains_zero": bool(interval[0] <= 0 <= interval[1]),
        "within_five_percent": bool(max(map(abs, interval)) <= 0.05 * abs(mean_here)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", nargs="+", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--draw", type=int, default=0, help="the set of episodes; another number selects others")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs = [compare(path, arguments.episodes, arguments.draw) for path in arguments.run_dirs]
    for run in runs:
        print(f"{run['algo']} on {run['env']}, {run['step']:,} steps, {arguments.episodes} episodes in each")
        for name, row in [*run["seeds"].items(), ("all", run["all"])]:
            low, high = row["interval"]
            print(
                f"  seed {name}: hajax {row['hajax']:.2f}, {run['elsewhere']} {row[run['elsewhere']]:.2f}, "
                f"difference {row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
            )
    if arguments.output:
        names = {"jax", *(run["elsewhere"] for run in runs)}
        if "gymnasium-robotics" in names:
            names |= {"gymnasium", "mujoco", "mujoco-mjx"}
        versions = {name: version(name) for name in sorted(names)}
        report = {"episodes": arguments.episodes, "draw": arguments.draw, "versions": versions, "runs": runs}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
