"""Returns of fixed controllers on MPE's communication tasks: to the middle of the landmarks, or to the right one.

    python benchmarks/mpe_controllers.py [--episodes 10000] [--mpe2 EPISODES] [--output FILE.json]

`middle` is the best position for an agent without a message; `goal` knows its landmark, as if it had received the
message before the first step. Both extrapolate their velocity; discrete ones move along the longer axis. They are not
optimal, but a policy must score more than the first before it can be said to use messages.

`--mpe2` also runs `middle` for that many episodes of mpe2's environments, more than is practical for policies.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.progress import track
from transfer import elsewhere

import hajax

NUM_STEPS = 25
LEAD = 0.3  # steps by which the velocity is extrapolated; the best of 0.3, 0.5 and 0.8


def wanted(task: str, observation: jax.Array, knows: bool) -> jax.Array:
    """Every agent's target relative to its position, `[N, 2]`; zeros for an agent that cannot move."""
    landmarks = observation[:, 2:8].reshape(-1, 3, 2)
    if task == "simple_speaker_listener":  # the speaker observes the color of the landmark
        goal = jnp.array([0, jnp.argmax(observation[0, :3])])
        landmarks = landmarks.at[0].set(0)
    else:  # each observes the other's color
        goal = jnp.argmax(observation[::-1, 8:11], -1)
    place = landmarks[jnp.arange(2), goal] if knows else landmarks.mean(1)
    velocity = observation[:, :2] * (jnp.array([0, 1]) if task == "simple_speaker_listener" else jnp.ones(2))[:, None]
    return place - LEAD * velocity


def action(env: Any, offset: jax.Array) -> jax.Array:
    """Forces towards `offset` `[N, 2]`, and no message."""
    if env.spec.has_discrete:
        axis = jnp.argmax(jnp.abs(offset), -1)
        along = jnp.take_along_axis(offset, axis[:, None], -1)[:, 0]
        move = jnp.where(jnp.abs(along) < 0.05, 0, 1 + 2 * axis + (along > 0))
        return move[:, None].astype(float)
    force = jnp.clip(3 * offset, -1, 1)
    pushes = jnp.stack([-force[:, 0], force[:, 0], -force[:, 1], force[:, 1]], -1)
    blank = jnp.zeros((env.spec.num_agents, env.spec.num_components))
    return blank.at[:, 1:5].set(jnp.clip(pushes, 0, 1)[:, : env.spec.num_components - 1])


def returns(task: str, actions: str, knows: bool, episodes: int) -> jax.Array:
    """`[episodes]` team returns."""
    env = hajax.make_env(f"mpe/{task}", actions=actions)

    def episode(key):
        def step(carry, _):
            state, shown, total = carry
            state, shown = env.step(key, state, action(env, wanted(task, shown.observation, knows)))
            return (state, shown, total + shown.reward[0]), None

        state, shown = env.reset(key)
        return lax.scan(step, (state, shown, jnp.zeros(())), None, NUM_STEPS)[0][2]

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes))


def returns_in_mpe2(task: str, actions: str, episodes: int, together: int = 100) -> np.ndarray:
    """`[episodes]` team returns of `middle` in mpe2, rounded up to a multiple of the parallel episodes."""
    spec = (env := hajax.make_env(f"mpe/{task}", actions=actions)).spec
    act = jax.jit(jax.vmap(lambda observation: action(env, wanted(task, observation, False))))
    settings = {"name": f"mpe/{task}", "actions": actions, "max_steps": NUM_STEPS}
    envs = [elsewhere(settings).env for _ in range(together)]
    returns = []
    for batch in track(range(-(-episodes // together)), f"{task}, {actions} in mpe2", transient=True):
        seeds = np.random.SeedSequence([zlib.crc32(spec.name.encode()), batch]).generate_state(together)
        shown = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)]
        total = np.zeros(together)
        for _ in range(NUM_STEPS):
            seen = np.zeros((together, spec.num_agents, spec.observation_size), np.float32)
            for i, agent in enumerate(spec.agents):
                seen[:, i, : agent.observation_size] = [observations[agent.name] for observations in shown]
            for k, chosen in enumerate(np.asarray(act(seen))):
                given = {
                    agent.name: int(row[0]) if spec.has_discrete else row[: agent.action_space.num_components]
                    for agent, row in zip(spec.agents, chosen, strict=True)
                }
                shown[k], rewards, *_ = envs[k].step(given)
                total[k] += sum(rewards.values())
        assert not any(env.agents for env in envs)
        returns.append(total)
    return np.concatenate(returns)


def summary(found: Any) -> dict[str, float]:
    return {"mean": float(found.mean()), "standard_error": float(found.std() / len(found) ** 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--mpe2", type=int, default=0, metavar="EPISODES")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {"episodes": given.episodes, "returns": {}, "episodes_mpe2": given.mpe2, "mpe2": {}}
    for task in ("simple_speaker_listener", "simple_reference"):
        for actions in ("continuous", "discrete"):
            for name, knows in (("middle", False), ("goal", True)):
                row = summary(returns(task, actions, knows, given.episodes))
                report["returns"][f"{task}, {actions}, {name}"] = row
                print(f"{task}, {actions}, {name}: {row['mean']:.2f} ± {row['standard_error']:.2f}", flush=True)
            if given.mpe2:
                row = summary(returns_in_mpe2(task, actions, given.mpe2))
                report["mpe2"][f"{task}, {actions}, middle"] = row
                print(f"{task}, {actions}, middle, mpe2: {row['mean']:.2f} ± {row['standard_error']:.2f}", flush=True)
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
