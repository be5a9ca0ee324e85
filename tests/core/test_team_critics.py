"""Critics that read a team agent by agent: reduction to the default critics, alternatives, and refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest

import hajax
from hajax.core.batches import critic_input
from hajax.core.off_policy.choices import TeamChoices
from hajax.core.off_policy.double_q import TeamCriticValues
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import action_values
from hajax.nn import MLP, TeamCritic
from hajax.nn.initializers import orthogonal
from hajax.nn.layers import dense
from hajax.spaces import Box, Discrete, MultiDiscrete

CHOICES = (Discrete(3), MultiDiscrete((2, 2)), Discrete(2))
MIXED = (Discrete(3), Box((-1.0, 0.0), (2.0, 5.0)), Discrete(2))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


class OfState(TeamCritic):
    """The default critic of on-policy algorithms."""

    torso: nn.Module
    reads = ("state",)

    @nn.compact
    def __call__(self, state):
        return dense(1, orthogonal(1.0), self.torso(state), "value")[..., 0]


class OfTeam(TeamCritic):
    """The default critic of off-policy algorithms, for agents whose features are not padded."""

    torso: nn.Module
    reads = ("action", "state")

    @nn.compact
    def __call__(self, action, state):
        x = jnp.concatenate([state, action.reshape(*action.shape[:-2], -1)], -1)
        return dense(1, orthogonal(1.0), self.torso(x), "value")[..., 0]


def assert_same_update(problem, one, other):
    """From one state, on one batch in which some agents are inactive."""
    state = problem.random_state(one, 0)
    given = (state,) if problem is problems else ()
    batch = problem.random_batch(one, *given, 0, inactive=0.3)
    updates = [jax.jit(algo.update, compiler_options=problems.QUICK) for algo in (one, other)]
    results = [update(jax.random.key(0), state, batch) for update in updates]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, 0, 1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_one_that_reads_the_state_is_the_default_of_happo(normalize):
    spec = problems.make_spec(MIXED)
    settings = {"hidden_sizes": (6, 5), "order": "fixed", "normalize_observations": normalize}
    default = hajax.make_algorithm("happo", spec, **settings)
    assert_same_update(problems, default, hajax.make_algorithm("happo", spec, critic=OfState(MLP((6, 5))), **settings))


def test_one_that_reads_state_and_actions_is_the_default_of_hasac():
    spec = problems.make_spec((Discrete(3), Discrete(3)))
    settings = {"hidden_sizes": (6, 5), "batch_size": 20}
    own = OfTeam(MLP((6, 5), layer_norm=False))
    default, other = (hajax.make_algorithm("hasac", spec, critic=critic, **settings) for critic in (None, own))
    assert_same_update(off_policy_problems, default, other)


def test_the_alternatives_of_an_agent_are_the_values_of_its_choices():
    class Products(TeamCritic):
        reads = ("action", "active", "observation")

        @nn.compact
        def __call__(self, action, active, observation):
            tokens = nn.tanh(nn.Dense(3)(jnp.concatenate([action, observation], -1))) * active[..., None]
            return jnp.prod(1 + tokens, -2).sum(-1)

    algo = hajax.make_algorithm("had3qn", problems.make_spec(CHOICES), critic=Products(), hidden_sizes=(4,))
    batch = jax.tree.map(lambda x: x[0], off_policy_problems.random_batch(algo, 0, inactive=0.2))
    choices = TeamChoices(algo.spec)
    values = action_values(algo.spec, JointActions(algo.spec), algo.settings, Products(), copies=1)
    critics, inputs = TeamCriticValues(choices, values), critic_input(batch)
    params = jax.tree.map(lambda x: x[0, 0], critics.init(jax.random.key(0)))
    joint = choices.indices(batch.action)[..., None]
    for slot, count in enumerate(choices.counts):
        found = critics.alternatives(params, inputs)(joint, jnp.asarray(slot))
        for choice in range(count):
            taken = joint.at[:, slot, 0].set(choice)
            np.testing.assert_allclose(found[:, choice], critics.value(params, inputs, taken), 0, 1e-12)
    active = np.asarray(batch.active)
    assert np.ptp(np.asarray(critics.alternatives(params, inputs)(joint, 0))[active[:, 0]], axis=1).min() > 1e-4
    assert not np.ptp(np.asarray(critics.alternatives(params, inputs)(joint, 0))[~active[:, 0]], axis=1).any()


class Faulty(TeamCritic):
    fault: str
    reads = ("state", "action")

    @nn.compact
    def __call__(self, state, action):
        if self.fault == "statistics":
            self.variable("batch_stats", "mean", jnp.zeros, ())
        if self.fault == "fails":
            return state @ jnp.ones(7777)
        return nn.Dense(1)(state)[..., 0] if self.fault != "shape" else nn.Dense(2)(state)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("statistics", r"Faulty\(...\) has variables batch_stats beside its parameters; allowed: parameters only"),
        ("fails", r"critic=Faulty\(...\) fails on inputs of shapes state \(\d+,\), action .*; allowed: values \(\)"),
        ("shape", r"Faulty\(...\) makes float64\[2\] of inputs of shapes .*; allowed: real values of shape \(\)"),
    ],
)
def test_a_critic_that_cannot_be_trained_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_algorithm("hasac", problems.make_spec(MIXED), critic=Faulty(fault))


def test_a_critic_of_the_team_is_centralized_and_its_input_exists():
    spec = problems.make_spec(MIXED)
    message = r"centralized=False of happo with critic=OfState\(...\); allowed: True, which defines it"
    with pytest.raises(ValueError, match=message):
        hajax.make_algorithm("happo", spec, critic=OfState(MLP((4,))), centralized=False)
    with pytest.raises(ValueError, match=r"critic=Faulty\(...\) reads action; allowed: state, observation, active"):
        hajax.make_algorithm("happo", spec, critic=Faulty(""))
