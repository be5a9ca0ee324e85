"""With one agent HADDPG, HATD3 and HASAC are DDPG, TD3 and SAC, implemented here with autodiff and optax.

The expected values use neither the library nor the other references. Parameters and targets are compared after three
updates in float64. (D3QN: `test_double_q.py`; PPO, TRPO and A2C: `test_exactness.py` and others.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import optax
import problems
import pytest

from hajax.spaces import Box

LOW, HIGH = np.array((-1.0, 0.0)), np.array((2.0, 0.5))
NUMBERS = {
    "discount": 0.9,
    "target_rate": 0.3,
    "target_noise": 0.7,
    "target_noise_clip": 0.4,
    "target_entropy": -0.7,
    "temperature_lr": 3e-2,
}
ACTOR_LR, CRITIC_LR, MAX_GRAD_NORM, ADAM_EPS = 1e-2, 2e-2, 0.3, 1e-4


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def adam(rate: float) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adam(rate, eps=ADAM_EPS))


def network(params: Any, head: str, x: jax.Array) -> jax.Array:
    for layer in ("Dense_0", "Dense_1"):
        x = jax.nn.relu(x @ params["torso"][layer]["kernel"] + params["torso"][layer]["bias"])
    return x @ params[head]["kernel"] + params[head]["bias"]


def deterministic(params: Any, observation: jax.Array) -> jax.Array:
    """The action, in units in which the bounds are ±1."""
    return jnp.tanh(network(params, "mean", observation))


def stochastic(params: Any, observation: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The action in units of ±1, and the log-density of the native action, of a squashed Gaussian."""
    mean, std = network(params, "mean", observation), jnp.exp(network(params, "log_std", observation).clip(-20, 2))
    squashed = jnp.tanh(mean + std * noise)
    density = jax.scipy.stats.norm.logpdf(mean + std * noise, mean, std)
    return squashed, jnp.sum(density - jnp.log((1 - squashed**2) * (HIGH - LOW) / 2), -1)


def value(params: Any, state: jax.Array, action: jax.Array) -> jax.Array:
    return network(params, "value", jnp.concatenate([state, action], -1))[:, 0]


class Agent:
    """A textbook agent: an actor, critics, their targets, and one Adam state for each."""

    def __init__(self, state: Any, twins: int):
        def alone(tree, *index):
            return jax.tree.map(lambda x: x[index], tree)

        self.actor = alone(state.actors.params, 0)
        self.critics = [alone(state.critics.params, 0, i) for i in range(twins)]
        self.target_critics = [alone(state.target_critics, 0, i) for i in range(twins)]
        self.target_actor = None if state.target_actors is None else alone(state.target_actors, 0)
        self.log_alpha = None if state.temperatures is None else state.temperatures.params[0]
        self.rules = {"actor": adam(ACTOR_LR), "critic": adam(CRITIC_LR)}
        self.rules["alpha"] = optax.adam(NUMBERS["temperature_lr"], eps=ADAM_EPS)
        self.moments = {"actor": self.rules["actor"].init(self.actor)}
        self.moments |= {f"critic {i}": self.rules["critic"].init(p) for i, p in enumerate(self.critics)}
        if self.log_alpha is not None:
            self.moments["alpha"] = self.rules["alpha"].init(self.log_alpha)

    def step(self, name: str, params: Any, loss: Any) -> Any:
        change, self.moments[name] = self.rules[name.split()[0]].update(jax.grad(loss)(params), self.moments[name])
        return optax.apply_updates(params, change)

    def fit_critics(self, rows: dict[str, jax.Array], next_value: jax.Array) -> None:
        target = rows["reward"] + NUMBERS["discount"] * (1 - rows["terminated"]) * next_value
        self.critics = [
            self.step(
                f"critic {i}",
                params,
                lambda p: jnp.mean((value(p, rows["state"], rows["action"]) - target) ** 2),
            )
            for i, params in enumerate(self.critics)
        ]

    def least(self, critics: list[Any], state: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(jnp.stack([value(p, state, action) for p in critics]), 0)

    def follow(self) -> None:
        """Moves targets by `target_rate` toward their networks."""

        def towards(old, new):
            return jax.tree.map(lambda a, b: a + NUMBERS["target_rate"] * (b - a), old, new)

        self.target_critics = [towards(*pair) for pair in zip(self.target_critics, self.critics, strict=True)]
        if self.target_actor is not None:
            self.target_actor = towards(self.target_actor, self.actor)


def rows_of(batch: Any, p: int) -> dict[str, jax.Array]:
    """The p-th minibatch of the only agent, with actions in units in which the bounds are ±1."""
    return {
        "observation": batch.observation[p, :, 0],
        "state": batch.state[p],
        "action": (batch.action[p, :, 0] - (HIGH + LOW) / 2) / ((HIGH - LOW) / 2),
        "reward": batch.reward[p, :, 0, 0],
        "terminated": batch.terminated[p],
        "next_observation": batch.final_observation[p, :, 0],
        "next_state": batch.final_state[p],
    }


def ddpg(agent: Agent, minibatches: list[Any], noise: list[np.ndarray]) -> None:
    (rows,) = minibatches
    action = deterministic(agent.target_actor, rows["next_observation"])
    agent.fit_critics(rows, value(agent.target_critics[0], rows["next_state"], action))
    climb(agent, rows)


def climb(agent: Agent, rows: dict[str, jax.Array]) -> None:
    """A step of the deterministic policy gradient on the first critic, and of the targets."""

    def loss(p):
        return -jnp.mean(value(agent.critics[0], rows["state"], deterministic(p, rows["observation"])))

    agent.actor = agent.step("actor", agent.actor, loss)
    agent.follow()


def td3(agent: Agent, minibatches: list[Any], noise: list[np.ndarray]) -> None:
    """Two steps of the critics on smoothed target actions, then one of the actor."""
    for rows, drawn in zip(minibatches, noise, strict=True):
        limit = NUMBERS["target_noise_clip"]
        smoothing = jnp.clip(NUMBERS["target_noise"] * drawn[:, 0], -limit, limit)
        action = jnp.clip(deterministic(agent.target_actor, rows["next_observation"]) + smoothing, -1, 1)
        agent.fit_critics(rows, agent.least(agent.target_critics, rows["next_state"], action))
    climb(agent, minibatches[-1])


def sac(agent: Agent, minibatches: list[Any], noise: list[np.ndarray]) -> None:
    """The temperature is adapted to new actions of the updated policy. The second draw is that of the other agents."""
    (rows,), (of_target, _, of_actor, of_temperature) = minibatches, noise
    alpha = jnp.exp(agent.log_alpha)
    action, log_prob = stochastic(agent.actor, rows["next_observation"], of_target[:, 0])
    soft = agent.least(agent.target_critics, rows["next_state"], action) - alpha * log_prob
    agent.fit_critics(rows, soft)

    def loss(p):
        action, log_prob = stochastic(p, rows["observation"], of_actor[0])
        return jnp.mean(alpha * log_prob - agent.least(agent.critics, rows["state"], action))

    agent.actor = agent.step("actor", agent.actor, loss)
    _, log_prob = stochastic(agent.actor, rows["observation"], of_temperature[0])
    # Two components, each `target_entropy` in units of ±1, in native ones.
    target = 2 * NUMBERS["target_entropy"] + np.log((HIGH - LOW) / 2).sum()
    agent.log_alpha = agent.step("alpha", agent.log_alpha, lambda x: jnp.exp(x) * jnp.mean(-log_prob - target))
    agent.follow()


@pytest.mark.parametrize(
    ("name", "textbook", "twins", "delay"), [("haddpg", ddpg, 1, 1), ("hatd3", td3, 2, 2), ("hasac", sac, 2, 1)]
)
def test_one_agent_is_the_algorithm_for_one_agent(name, textbook, twins, delay):
    spec = problems.make_spec([Box(tuple(LOW), tuple(HIGH))])
    algo = off_policy_problems.make_algorithm(name, spec)
    assert algo.settings.policy_delay == delay
    numbers = {key: x for key, x in NUMBERS.items() if hasattr(algo.hyperparameters, key)}
    assert set(numbers) >= {"discount", "target_rate"}
    algo = off_policy_problems.make_algorithm(name, spec, **numbers)
    state, update = off_policy_problems.random_state(algo, 3), off_policy_problems.Recorder(algo)
    agent = Agent(state, twins)
    for i in range(3):
        batch = off_policy_problems.random_batch(algo, 10 + i)
        (state, _), noise, _ = update(jax.random.key(i), state, batch)
        textbook(agent, [rows_of(batch, p) for p in range(delay)], noise)
        found = Agent(state, twins)
        for part in ("actor", "critics", "target_critics", "target_actor", "log_alpha"):
            ours, theirs = (jax.tree.leaves(getattr(x, part)) for x in (found, agent))
            assert len(ours) == len(theirs)
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(one, other, 0, 1e-10, err_msg=part)
