"""Simulators driven directly, step by step, for comparison with the library's adapter."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hajax.spaces import Box
from hajax.spec import EnvSpec


class Shown(NamedTuple):
    """What a simulator shows after a reset or a step, by agent: only agents that are to act have observations."""

    observations: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    state: np.ndarray | None
    rewards: dict[str, float]
    terminated: bool
    truncated: bool
    metrics: dict[str, float]


class Parallel:
    """A `ParallelEnv`."""

    def __init__(self, env: Any, has_state: bool):
        self.env, self.has_state = env, has_state
        self.ids = list(env.possible_agents)

    def reset(self, seed: int) -> Shown:
        observations, infos = self.env.reset(seed=seed)
        return self.shown(observations, infos, self.env.agents)

    def step(self, actions: dict[str, Any]) -> Shown:
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        alive = list(self.env.agents)
        cut = [agent for agent, value in truncations.items() if value and not terminations[agent]]
        shown = self.shown(observations, infos, alive or cut)
        return shown._replace(
            rewards={str(agent): float(value) for agent, value in rewards.items()},
            terminated=not alive and not cut,
            truncated=not alive and bool(cut),
        )

    def shown(self, observations: dict, infos: dict, acting: list) -> Shown:
        seen, masks = {}, {}
        for agent in acting:
            value, mask = observations[agent], infos.get(agent, {}).get("action_mask")
            if isinstance(value, dict):
                value, mask = value["observation"], value["action_mask"]
            seen[str(agent)] = flat(self.observed(agent), value)
            if mask is not None:
                masks[str(agent)] = np.concatenate([np.ravel(part) for part in mask]).astype(bool)
        state = np.ravel(np.asarray(self.env.state(), float)) if self.has_state and acting else None
        return Shown(seen, masks, state, {}, False, False, {})

    def space(self, agent: str) -> Any:
        return next(self.env.action_space(own) for own in self.ids if str(own) == agent)

    def observed(self, agent: Any) -> Any:
        return self.env.observation_space(agent)

    def key(self, agent: str) -> Any:
        return next(own for own in self.ids if str(own) == agent)


class TakingTurns(Parallel):
    """An `AECEnv`, in which the agent whose turn it is acts."""

    def reset(self, seed: int) -> Shown:
        self.env.reset(seed=seed)
        return self.now({})

    def step(self, actions: dict[str, Any]) -> Shown:
        self.env.step(actions[self.env.agent_selection])
        return self.now({str(agent): float(value) for agent, value in self.env.rewards.items()})

    def now(self, rewards: dict[str, float]) -> Shown:
        over = {agent: self.env.terminations[agent] or self.env.truncations[agent] for agent in self.env.agents}
        done = all(over.values())
        turn = [] if done else [self.env.agent_selection]
        shown = self.shown({agent: self.env.observe(agent) for agent in turn}, self.env.infos, turn)
        return shown._replace(rewards=rewards, terminated=done)


class Single(Parallel):
    """An `Env` of Gymnasium."""

    def __init__(self, env: Any, has_state: bool):
        self.env, self.ids, self.has_state = env, ["agent"], False

    def reset(self, seed: int) -> Shown:
        observation, info = self.env.reset(seed=seed)
        return self.shown({"agent": observation}, {"agent": info}, ["agent"])

    def step(self, actions: dict[str, Any]) -> Shown:
        observation, reward, terminated, truncated, info = self.env.step(actions["agent"])
        acting = [] if terminated else ["agent"]
        shown = self.shown({"agent": observation}, {"agent": info}, acting)
        return shown._replace(
            rewards={"agent": float(reward)}, terminated=bool(terminated), truncated=bool(truncated and not terminated)
        )

    def space(self, agent: str) -> Any:
        return self.env.action_space

    def observed(self, agent: Any) -> Any:
        return self.env.observation_space


def directly(env: Any, has_state: bool) -> Parallel:
    """The simulator with one interface."""
    kind = TakingTurns if hasattr(env, "agent_iter") else Parallel if hasattr(env, "possible_agents") else Single
    return kind(env, has_state)


def flat(space: Any, value: Any) -> np.ndarray:
    """An observation as a vector: choices as a 1 among zeros, the parts of a composite one after the other."""
    kind = type(space).__name__
    if kind == "Discrete":
        return np.eye(space.n)[int(value) - space.start]
    if kind == "Tuple":
        return np.concatenate([flat(part, own) for part, own in zip(space.spaces, value, strict=True)])
    return np.ravel(value).astype(float)


def native(space: Any, own: Any, action: np.ndarray) -> Any:
    """A joint action's row as the simulator's own action."""
    values = action[: own.num_components]
    if isinstance(own, Box):
        low, high = np.broadcast_to(space.low, space.shape), np.broadcast_to(space.high, space.shape)
        return np.minimum(np.maximum(values.reshape(space.shape), low), high).astype(space.dtype)
    start = np.ravel(getattr(space, "start", 0))
    whole = (values.astype(int) + start).astype(int)
    return int(whole[0]) if space.shape == () else whole.reshape(space.shape).astype(space.dtype)


def compare(timestep: Any, shown: Shown, spec: EnvSpec, *, final: bool, tolerance: float = 1e-6) -> None:
    """Asserts that one environment's timestep, or its final step, is what the simulator shows."""
    fields = timestep.final if final else timestep
    for i, agent in enumerate(spec.agents):
        acts = agent.name in shown.observations
        assert bool(fields.active[i]) == acts, agent.name
        seen = np.zeros(spec.observation_size)
        choices = np.array(spec.action_layout.choices[i])
        if acts:
            seen[: agent.observation_size] = shown.observations[agent.name]
            mask = shown.masks.get(agent.name)
            ends = np.cumsum(agent.action_space.choices)
            for d, n in enumerate(agent.action_space.choices if mask is not None else ()):
                choices[d, :n] = mask[ends[d] - n : ends[d]]
        np.testing.assert_allclose(fields.observation[i], seen, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(fields.action_mask[i], choices)
    if not spec.state_from_observations and shown.observations:
        np.testing.assert_allclose(fields.state, shown.state, rtol=tolerance, atol=tolerance)


def play_both(env: Any, make: Any, *, copies: int, steps: int, seed: int = 0, tolerance: float = 1e-6) -> int:
    """Random play both ways; asserts equality in every step, and returns the number of episodes that ended.

    `env` is the library's batch of what `make()` makes.
    """
    import jax

    from hajax.envs.simulators.team import episode_seed
    from hajax.training.off_policy import random_action

    spec = env.spec
    key = jax.random.key(seed)
    keys = jax.random.split(key, copies)
    seeds = [int(jax.random.bits(one, (), np.uint32)) for one in keys]
    twins = [directly(make(), not spec.state_from_observations) for _ in range(copies)]
    step, act = jax.jit(env.step), jax.jit(lambda key, mask: random_action(spec, key, mask))
    state, timestep = jax.jit(env.reset)(keys)
    lengths, episodes, ended = np.zeros(copies, int), np.ones(copies, int), 0
    shown = [twin.reset(episode_seed(seeds[i], 0)) for i, twin in enumerate(twins)]
    for i in range(copies):
        compare(jax.tree.map(lambda x, i=i: np.asarray(x[i]), timestep), shown[i], spec, final=False)
    for t in range(steps):
        action = act(jax.random.fold_in(key, t), timestep.action_mask)
        state, timestep = step(jax.random.split(key, copies), state, action)
        every = jax.tree.map(np.asarray, timestep)
        for i, twin in enumerate(twins):
            actions = {}
            for j, agent in enumerate(spec.agents):
                if agent.name in shown[i].observations:
                    chosen = native(twin.space(agent.name), agent.action_space, np.asarray(action[i, j], float))
                    actions[twin.key(agent.name)] = chosen
            shown[i] = twin.step(actions)
            lengths[i] += 1
            one = jax.tree.map(lambda x, i=i: x[i], every)
            rewards = np.array([shown[i].rewards.get(agent.name, 0.0) for agent in spec.agents])
            expected = np.full(len(rewards), rewards.sum()) if spec.reward == "team" else rewards
            np.testing.assert_allclose(one.reward, expected, rtol=tolerance, atol=10 * tolerance)
            out_of_time = spec.max_steps == lengths[i] and not shown[i].terminated
            assert bool(one.terminated) == shown[i].terminated, (t, i)
            assert bool(one.truncated) == (shown[i].truncated or out_of_time), (t, i)
            compare(one, shown[i], spec, final=True, tolerance=tolerance)
            if shown[i].terminated or shown[i].truncated or out_of_time:
                shown[i] = twin.reset(episode_seed(seeds[i], int(episodes[i])))
                episodes[i], lengths[i], ended = episodes[i] + 1, 0, ended + 1
            compare(one, shown[i], spec, final=False, tolerance=tolerance)
            assert bool(one.first) == (lengths[i] == 0)
    return ended
