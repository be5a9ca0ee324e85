"""Finite games in NumPy, from the definitions by loops, as the reference for `hajax.tabular`; and batches of games."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from hajax import tabular


def games_and_policies(number, policies=1, first=0, **ranges):
    """`number` random games, and the requested number of joint policies of each, all batched."""

    def draw(index):
        keys = jax.random.split(jax.random.key(index), policies + 1)
        game = tabular.random_game(keys[0], **ranges)
        return game, *(tabular.random_policy(key, game) for key in keys[1:])

    return jax.jit(jax.vmap(draw))(jnp.arange(first, first + number))


def one(batch, index):
    return jax.tree.map(lambda x: x[index], batch)


class ByHand:
    """One game without its padding, and a joint policy of it (`[N][S, A_i]`)."""

    def __init__(self, game, *policies):
        mask = np.asarray(game.action_mask)
        self.states = int(game.state_mask.sum())
        self.widths = mask.sum(1)
        self.discount = float(game.discount)
        self.initial = np.asarray(game.initial)[: self.states]
        inside = (slice(self.states), *(slice(width) for width in self.widths))
        self.reward = np.asarray(game.reward)[inside]
        self.transition = np.asarray(game.transition)[(*inside, slice(self.states))]
        self.policies = [
            [np.exp(np.asarray(own))[: self.states, :width] for own, width in zip(policy, self.widths, strict=True)]
            for policy in policies
        ]

    @property
    def joint_actions(self):
        return list(itertools.product(*(range(width) for width in self.widths)))

    def probability(self, policy, s, action, agents=None):
        agents = range(len(policy)) if agents is None else agents
        return np.prod([policy[i][s, action[i]] for i in agents])

    def entropies(self, policy, s):
        return -sum(own[s] @ np.log(own[s]) for own in policy)

    def values(self, policy, alpha=0.0):
        """V, Q, J and ρ by a dense solve."""
        reward, transition = np.zeros(self.states), np.zeros((self.states, self.states))
        for s, action in itertools.product(range(self.states), self.joint_actions):
            probability = self.probability(policy, s, action)
            reward[s] += probability * self.reward[(s, *action)]
            transition[s] += probability * self.transition[(s, *action)]
        if alpha:
            reward += [alpha * self.entropies(policy, s) for s in range(self.states)]
        system = np.eye(self.states) - self.discount * transition
        value = np.linalg.solve(system, reward)
        q = self.reward + self.discount * self.transition @ value
        return value, q, self.initial @ value, np.linalg.solve(system.T, self.initial)

    def multi_agent_q(self, policy, q, agents, s, own):
        """Q^{i_1:m}(s, a^{i_1:m}): the sum over all joint actions that agree with `own` (agent -> action)."""
        total = 0.0
        for action in self.joint_actions:
            if all(action[i] == own[i] for i in agents):
                rest = [i for i in range(len(policy)) if i not in agents]
                total += self.probability(policy, s, action, rest) * q[(s, *action)]
        return total

    def advantage(self, policy, q, given, agents, s, action):
        """A^{i_1:m}(s, a^{j_1:k}, a^{i_1:m})."""
        both = [*given, *agents]
        return self.multi_agent_q(policy, q, both, s, action) - self.multi_agent_q(policy, q, given, s, action)

    def mirror_gain(self, old, new, q, order, m, s, divergence=0.0, alpha=0.0):
        """Kuba et al., 2022b, Inequality (5) for the m-th of `order`: its operator at the new policy minus the old."""
        agent, earlier = order[m], list(order[:m])
        operator = []
        for policy in (new[agent], old[agent]):
            total = -alpha * policy[s] @ np.log(policy[s]) if alpha else 0.0
            for own in itertools.product(*(range(self.widths[i]) for i in [*earlier, agent])):
                action = dict(zip([*earlier, agent], own, strict=True))
                weight = np.prod([new[i][s, action[i]] for i in earlier]) * policy[s, action[agent]]
                total += weight * self.advantage(old, q, earlier, [agent], s, action)
            operator.append(total)
        return operator[0] - operator[1] - divergence
