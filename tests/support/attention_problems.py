"""Teams, random states and batches of algorithms with the attention critic, and what tests compute of them in loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import hajax
from hajax.core.actors import TeamActors, policy_torso
from hajax.core.groups import make_groups

AGENTS = (
    hajax.AgentSpec("a", (3,), hajax.Discrete(4)),
    hajax.AgentSpec("b", (5,), hajax.MultiDiscrete((2, 3))),
    hajax.AgentSpec("c", (2,), hajax.Discrete(2)),
)
NUMBERS = {
    "actor_lr": 1e-2, "critic_lr": 2e-2, "discount": 0.9, "target_rate": 0.3, "max_grad_norm": 0.05, "adam_eps": 1e-3,
    "reward_scale": 3.0, "critic_max_grad_norm": 0.2, "critic_l2": 0.1, "attention_penalty": 0.3, "logit_penalty": 0.4,
}  # fmt: skip
SIZES = {"hidden_sizes": (6,), "attention_width": 8, "attention_heads": 2, "normalize_observations": False}
B = 5
# Of learning in a game of one step: seconds, and enough to find the optimum.
TO_LEARN = {
    "hidden_sizes": (16,), "attention_width": 16, "attention_heads": 2, "batch_size": 64, "buffer_size": 4_000,
    "warmup_steps": 200, "actor_lr": 5e-3, "critic_lr": 5e-3, "target_rate": 0.02,
}  # fmt: skip


def made(name, spec, **settings):
    return hajax.make_algorithm(name, spec, **(SIZES | NUMBERS | settings))


def team(*agents):
    return hajax.EnvSpec("team", agents, 4, 10, reward="individual")


def actors_of(algo):
    spec, settings = algo.spec, algo.settings
    torso = policy_torso(spec, settings, None)
    return TeamActors(spec, make_groups(spec, settings.sharing), torso, False, True, settings.output_gain)


def random_state(algo, key):
    """A learner state with random numbers in place of zeros and orthogonal matrices."""
    state = algo.init(key)

    def noisy(tree, key):
        leaves, structure = jax.tree.flatten(tree)
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            structure, [0.5 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
        )

    keys = jax.random.split(key, 4)
    return state._replace(
        actors=state.actors._replace(params=noisy(state.actors.params, keys[0])),
        critics=state.critics._replace(params=noisy(state.critics.params, keys[1])),
        target_actors=noisy(state.target_actors, keys[2]),
        target_critics=noisy(state.target_critics, keys[3]),
    )


def random_batch(spec, key, n=2):
    keys = iter(jax.random.split(key, 12))
    rows = (1, B)
    choices = spec.action_layout.choices
    mask = jax.random.bernoulli(next(keys), 0.7, (2, *rows, *choices.shape)) | (jnp.arange(choices.shape[-1]) == 0)
    final_mask, mask = mask
    available = jnp.where(mask & choices, 0.0, -jnp.inf)
    action = jnp.where(spec.action_layout.discrete, jax.random.categorical(next(keys), available), 0).astype(float)
    if spec.has_continuous:
        drawn = jax.random.normal(jax.random.fold_in(key, 1), action.shape)
        action = jnp.where(spec.action_layout.continuous, drawn, action)
    shown = jax.random.normal(next(keys), (2, *rows, spec.num_agents, spec.observation_size)) * spec.observation_mask
    return hajax.off_policy_batch(
        spec,
        observation=shown[0],
        state=jnp.zeros((*rows, 4)),
        action=action,
        reward=jax.random.normal(next(keys), (*rows, n, spec.num_agents)),
        final_observation=shown[1],
        final_state=jnp.zeros((*rows, 4)),
        steps=jnp.array([[2, 1, 2, 2, 1]]),
        terminated=jnp.array([[False, True, False, False, True]]),
        action_mask=mask,
        active=jnp.ones((*rows, spec.num_agents), bool).at[0, 0, 1:2].set(False).at[0, 3, 2:].set(False),
        final_action_mask=final_mask,
        final_active=jnp.ones((*rows, spec.num_agents), bool).at[0, 0, 1:2].set(False).at[0, 2, 0].set(False),
    )


def listed(agent):
    """The joint choices of an agent in order, as tuples of components."""
    return list(itertools.product(*(range(n) for n in agent.action_space.choices)))


def features(spec, action, active):
    """Features of actions `[B, N, D]`, zeros for inactive agents and missing components.

    They are one-hot choices, D · C, and then reals, D, in units in which their bounds are ±1, and clipped to these.
    """
    choices = spec.num_components * spec.num_choices if spec.has_discrete else 0
    out = np.zeros((B, spec.num_agents, choices + (spec.num_components if spec.has_continuous else 0)))
    for b, (i, agent) in itertools.product(range(B), enumerate(spec.agents)):
        space = agent.action_space
        if not active[b, i]:
            continue
        if isinstance(space, hajax.Box):
            low, high = np.array(space.low), np.array(space.high)
            own = np.clip(2 * (action[b, i, : len(low)] - low) / (high - low) - 1, -1, 1)
            out[b, i, choices : choices + len(low)] = own
            continue
        for d in range(len(space.choices)):
            out[b, i, spec.num_choices * d + int(action[b, i, d])] = 1
    return jnp.asarray(out)


def chances(logits, agent):
    """π of all joint choices of one agent `[M]`, from its logits `[D, C]`."""
    parts = [jax.nn.softmax(logits[d, :n]) for d, n in enumerate(agent.action_space.choices)]
    return jnp.array([jnp.prod(jnp.array([parts[d][c] for d, c in enumerate(choice)])) for choice in listed(agent)])


def adam_once(params, gradient, rate, most, l2=0.0):
    """The first step of Adam, on a gradient clipped to norm `most`, plus L2."""
    params, gradient = (jax.tree.map(np.asarray, tree) for tree in (params, gradient))
    norm = np.sqrt(sum(float(np.sum(x**2)) for x in jax.tree.leaves(gradient)))
    gradient = jax.tree.map(lambda g, p: g * min(1, most / norm) + l2 * p, gradient, params)
    return jax.tree.map(lambda p, g: p - rate * g / (np.abs(g) + NUMBERS["adam_eps"]), params, gradient), norm
