"""Action-value critics of the joint action, one for the team or one per agent, single or twin; and their regression."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.batches import CriticInput, OffPolicyBatch, critic_input, example_critic_input
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.optimization import Learner, adam_step
from hajax.nn.checks import check_team_critic
from hajax.nn.networks import JointCritic, TeamCritic, init_params
from hajax.spec import EnvSpec


class Critics(Protocol):
    """Critics of the joint action, and how they are regressed; `value` evaluates one of their networks."""

    def value(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        """One network's values `[B]` of joint actions `[B, N, F]`."""

    def of_networks(self, target: jax.Array) -> jax.Array:
        """The targets of each network, from those of all critics `[V, B]`."""
        return target

    def loss(
        self, params: Any, inputs: CriticInput, joint: jax.Array, target: jax.Array, hyperparameters: Any
    ) -> tuple[jax.Array, jax.Array]:
        """One network's loss for its targets y, mean (y − Q(s, a))², and its mean value."""
        value = self.value(params, inputs, joint)
        return jnp.mean(jnp.square(target - value)), value.mean()

    def limits(self, hyperparameters: Any) -> tuple[jax.Array, jax.Array | float]:
        """The largest norm of a network's gradient, and its L2 coefficient."""
        return hyperparameters.max_grad_norm, 0.0


@dataclasses.dataclass(frozen=True)
class ActionValues(Critics):
    """Static description of V critics with `copies` networks each. V = 1 for the team reward, or N for individual ones.

    Parameters are stacked `[V, copies, …]`. Every network may read the actions of all agents.
    """

    spec: EnvSpec
    actions: JointActions
    module: TeamCritic
    per_agent: bool
    copies: int

    @property
    def num_critics(self) -> int:
        """The number of critics, V."""
        return self.spec.num_agents if self.per_agent else 1

    def init(self, key: jax.Array) -> Any:
        """Parameters stacked `[V, copies, …]`, initialized with a separate key per network."""
        keys = jax.random.split(key, (self.num_critics, self.copies))
        read = self.read(example_critic_input(self.spec), jnp.zeros(self.actions.own.shape))

        def init(key):
            return init_params(self.module, key, *read)

        return jax.vmap(jax.vmap(init))(keys)

    def read(self, inputs: CriticInput, joint: jax.Array) -> list[jax.Array]:
        """The arguments of the networks, in the order of `reads`."""
        return [joint if name == "action" else getattr(inputs, name) for name in self.module.reads]

    def value(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        """One network's values `[…]` of joint actions `[…, N, F]`."""
        return cast(jax.Array, self.module.apply({"params": params}, *self.read(inputs, joint)))

    def values(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        """All networks' values, `[V, copies, …]`."""
        of_copies = jax.vmap(self.value, in_axes=(0, None, None))
        return jax.vmap(of_copies, in_axes=(0, None, None))(params, inputs, joint)


def action_values(
    spec: EnvSpec,
    actions: JointActions,
    settings: Any,
    critic: nn.Module | None,
    *,
    copies: int,
    per_agent: bool = False,
) -> ActionValues:
    """The critics with a user's `TeamCritic`, a user's torso, or the default MLP of the settings.

    Raises:
      ValueError: the critic or torso does not suit (see `check_team_critic` and `check_torso`).
    """
    if isinstance(critic, TeamCritic):
        check_team_critic(critic, spec, action_size=actions.own.shape[-1])
        module = critic
    else:
        module = JointCritic(settings.torso("critic", critic, spec.state_size + actions.size), actions.columns)
    return ActionValues(spec, actions, module, per_agent, copies)


def check_minibatches(policy_delay: int, batch: OffPolicyBatch) -> None:
    """Raises ValueError unless the batch has `policy_delay` minibatches, one per critic step of an update."""
    found = batch.observation.shape[0]
    if found != policy_delay:
        raise ValueError(
            f"batch of {found} minibatches [P, B, …]; allowed with policy_delay={policy_delay}: {policy_delay}"
        )


def regress(
    critics: Critics,
    learners: Learner,
    inputs: CriticInput,
    joint: jax.Array,
    target: jax.Array,
    learning_rate: jax.Array,
    hyperparameters: Any,
) -> tuple[Learner, dict[str, jax.Array]]:
    """One Adam step of every network on its loss, with joint actions `[B, N, F]` and targets y `[V, B]`."""
    max_grad_norm, l2 = critics.limits(hyperparameters)

    def step(learner, target):
        of_network = functools.partial(critics.loss, inputs=inputs, joint=joint, target=target)
        loss = functools.partial(of_network, hyperparameters=hyperparameters)
        (value_loss, value), gradient = jax.value_and_grad(loss, has_aux=True)(learner.params)
        learner, norm = adam_step(learner, gradient, learning_rate, max_grad_norm, hyperparameters.adam_eps, l2)
        return learner, {"value_loss": value_loss, "value": value, "critic_grad_norm": norm}

    return jax.vmap(jax.vmap(step, in_axes=(0, None)))(learners, critics.of_networks(target))


def fit_critics(
    critics: Critics,
    learners: Learner,
    batch: OffPolicyBatch,
    taken: jax.Array,
    target_values: Callable[[jax.Array, OffPolicyBatch], jax.Array],
    keys: jax.Array,
    learning_rate: jax.Array,
    hyperparameters: Any,
) -> tuple[Learner, dict[str, jax.Array]]:
    """One step of every network per minibatch, on the targets Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) · value.

    Args:
      taken: the joint actions of the minibatches, `[P, B, N, F]`.
      target_values: `(key, minibatch) -> [V, B]`, the values of the transitions' final states.
      keys: one key per minibatch, `[P]`.

    Returns:
      The new learners, and diagnostics averaged over the minibatches, by name.
    """

    def step(learners: Learner, inputs):
        key, minibatch, taken = inputs
        target = discounted(minibatch, target_values(key, minibatch), hyperparameters.discount)
        return regress(critics, learners, critic_input(minibatch), taken, target, learning_rate, hyperparameters)

    learners, info = lax.scan(step, learners, (keys, batch, taken))
    return learners, {name: x.mean() for name, x in info.items()}


def discounted(batch: OffPolicyBatch, value: jax.Array, discount: float | jax.Array) -> jax.Array:
    """The n-step targets Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) · `value`, `[V, B]`, of one minibatch `[B, …]`.

    `value` `[V, B]` is the value after the k-th step. V = N uses individual rewards; V = 1 uses the team reward, which
    every agent receives.
    """
    powers = jnp.power(discount, jnp.arange(batch.reward.shape[-2]))
    reward = jnp.einsum("bkv,k->vb", batch.reward[..., : len(value)], powers)
    return reward + jnp.power(discount, batch.steps) * jnp.where(batch.terminated, 0, value)
