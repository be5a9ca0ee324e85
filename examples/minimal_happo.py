"""HAPPO in one file: the whole method and a toy problem in plain JAX.

Kuba et al. (ICLR 2022), Algorithm 3 and Eq. 11, https://arxiv.org/abs/2109.11251; comments refer to its lines.

    T steps    E environments    N agents    A actions    O, S widths of an observation and of the state
    […] the parameters of one network    [N, …] those of all agents, stacked
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Config(NamedTuple):
    num_envs: int = 32  # E
    rollout_length: int = 32  # T
    iterations: int = 60
    hidden_size: int = 32
    epochs: int = 5
    learning_rate: float = 5e-3
    clip: float = 0.2  # ε
    discount: float = 0.99  # γ
    gae_lambda: float = 0.95  # λ


# The problem: agents start in one cell of a line and move to the posts. The reward is −1 per step, the optimum −33/7.
CELLS, POSTS = 7, (0, 3, 6)
NUM_AGENTS, NUM_ACTIONS = len(POSTS), 3  # left, stay, right


def reset(key: jax.Array) -> jax.Array:
    return jnp.full(NUM_AGENTS, jax.random.randint(key, (), 0, CELLS))  # the agents' cells


def move(cells: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The agents' next cells `[N]`, the team's reward, and whether the episode has terminated."""
    cells = jnp.clip(cells + action - 1, 0, CELLS - 1)
    return cells, jnp.array(-1.0), (cells == jnp.array(POSTS)[:, None]).any(-1).all()


class Learner(NamedTuple):
    params: list[tuple[jax.Array, jax.Array]]  # the layers' kernels and biases
    moments: Any  # Adam's


class Team(NamedTuple):
    actors: Learner  # [N, …]
    critic: Learner  # […]


class Rollout(NamedTuple):
    observation: jax.Array  # [T, E, N, O]
    state: jax.Array  # [T, E, S]
    action: jax.Array  # [T, E, N]
    reward: jax.Array  # [T, E]
    terminated: jax.Array  # [T, E]
    next_state: jax.Array  # [T, E, S], after the step and before any reset


def init_learner(key: jax.Array, config: Config, inputs: int, outputs: int) -> Learner:
    shapes, kernel = [(inputs, config.hidden_size), (config.hidden_size, outputs)], jax.nn.initializers.lecun_normal()
    params = [(kernel(k, shape), jnp.zeros(shape[1])) for k, shape in zip(jax.random.split(key), shapes, strict=True)]
    return Learner(params, optax.adam(config.learning_rate).init(params))


def network(params: list, x: jax.Array) -> jax.Array:
    """An agent's logits, `[…, O] -> […, A]`, or the critic's value, `[…, S] -> […, 1]`."""
    for kernel, bias in params:
        output = x @ kernel + bias
        x = jnp.tanh(output)
    return output


def minimize(loss: Callable[[list], jax.Array], learner: Learner, config: Config) -> Learner:
    def epoch(_, learner: Learner) -> Learner:
        gradient = jax.grad(loss)(learner.params)
        change, moments = optax.adam(config.learning_rate).update(gradient, learner.moments)
        return Learner(optax.apply_updates(learner.params, change), moments)

    return jax.lax.fori_loop(0, config.epochs, epoch, learner)


def collect(key: jax.Array, config: Config, actors: list) -> Rollout:
    """Runs T steps of E environments from new episodes. Episodes of more than T steps are truncated, not terminated."""

    def step(cells: jax.Array, key: jax.Array) -> tuple[jax.Array, Rollout]:
        action_key, reset_key = jax.random.split(key)
        observation = jax.nn.one_hot(cells, CELLS)  # an agent observes its cell, the critic all cells
        action = jax.random.categorical(action_key, jax.vmap(network)(actors, observation))
        moved, reward, terminated = move(cells, action)
        next_state = jax.nn.one_hot(moved, CELLS).ravel()
        rollout = Rollout(observation, observation.ravel(), action, reward, terminated, next_state)
        return jnp.where(terminated, reset(reset_key), moved), rollout

    keys = jax.random.split(key, (config.rollout_length + 1, config.num_envs))
    return jax.lax.scan(jax.vmap(step), jax.vmap(reset)(keys[0]), keys[1:])[1]


def gae(rollout: Rollout, value: jax.Array, next_value: jax.Array, config: Config) -> jax.Array:
    """Advantages `[T, E]` (Schulman et al., 2016, Eq. 16); truncation bootstraps with V, termination with 0."""
    discount = config.discount * (1 - rollout.terminated)
    delta = rollout.reward + discount * next_value - value

    def step(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, discount = now
        advantage = delta + discount * config.gae_lambda * later
        return advantage, advantage

    return jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, discount), reverse=True)[1]


def update(config: Config, order: jax.Array, team: Team, rollout: Rollout) -> Team:
    """One iteration of HAPPO: updates the agents one after another, in `order`, int `[N]`, and then the critic."""
    value, next_value = (network(team.critic.params, s)[..., 0] for s in (rollout.state, rollout.next_state))
    advantage = gae(rollout, value, next_value, config)  # line 7
    standardized = (advantage - advantage.mean()) / (advantage.std() + 1e-5)  # line 9: the first agent's M

    def improve(m: jax.Array, agent: tuple[Learner, jax.Array, jax.Array]) -> tuple[jax.Array, Learner]:
        """Updates one agent. M, `[T, E]`, is the advantage times the ratios of all agents updated before."""
        learner, observation, action = agent

        def ratio(params: list) -> jax.Array:  # π_new(a|o) / π_old(a|o), [T, E]; π_old collected the rollout
            new, old = (jax.nn.log_softmax(network(p, observation)) for p in (params, learner.params))
            return jnp.exp(jnp.take_along_axis(new - old, action[..., None], -1)[..., 0])

        def loss(params: list) -> jax.Array:  # Eq. 11
            r = ratio(params)
            return -jnp.minimum(r * m, jnp.clip(r, 1 - config.clip, 1 + config.clip) * m).mean()

        improved = minimize(loss, learner, config)  # line 11
        return ratio(improved.params) * m, improved  # line 12: the next agent's M

    agents = (team.actors, jnp.moveaxis(rollout.observation, 2, 0), jnp.moveaxis(rollout.action, 2, 0))
    _, actors = jax.lax.scan(improve, standardized, jax.tree.map(lambda x: x[order], agents))  # lines 10–13
    actors = jax.tree.map(lambda x: x[jnp.argsort(order)], actors)  # back in the order of the agents

    def value_loss(critic: list) -> jax.Array:
        return jnp.square(network(critic, rollout.state)[..., 0] - (advantage + value)).mean() / 2

    return Team(actors, minimize(value_loss, team.critic, config))  # lines 14–15


def make_train(config: Config) -> Callable[[jax.Array], tuple[Team, jax.Array]]:
    """`train(key)` returns the trained team and the mean return of every iteration, `[iterations]`."""

    def iterate(team: Team, key: jax.Array) -> tuple[Team, jax.Array]:
        rollout_key, order_key = jax.random.split(key)
        rollout = collect(rollout_key, config, team.actors.params)
        order = jax.random.permutation(order_key, NUM_AGENTS)  # line 8
        first = jnp.cumsum(rollout.terminated, 0) == rollout.terminated  # the first episode in every environment
        return update(config, order, team, rollout), (first * rollout.reward).sum(0).mean()

    def train(key: jax.Array) -> tuple[Team, jax.Array]:
        actors_key, critic_key, key = jax.random.split(key, 3)
        init_actor = jax.vmap(init_learner, in_axes=(0, None, None, None))
        actors = init_actor(jax.random.split(actors_key, NUM_AGENTS), config, CELLS, NUM_ACTIONS)
        critic = init_learner(critic_key, config, NUM_AGENTS * CELLS, 1)
        return jax.lax.scan(iterate, Team(actors, critic), jax.random.split(key, config.iterations))

    return train


if __name__ == "__main__":
    train = jax.jit(jax.vmap(make_train(Config())))
    _, returns = train(jax.random.split(jax.random.key(0), 4))  # [seeds, iterations]
    for seed, curve in enumerate(returns):
        print(f"seed {seed}:", *(f"{mean_return:6.1f}" for mean_return in curve[::5]))
