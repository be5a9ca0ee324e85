"""Which diagnostics get a column of their own, and under whose name."""

import jax.numpy as jnp
import pytest

import hajax
from hajax.runs.team import axis_names
from hajax.runs.totals import scalars

METRICS = {
    "entropy": jnp.array([1.0, 2.0, 6.0]),
    "actor_grad_norm": jnp.array([3.0, 5.0]),
    "policy_loss": jnp.array([1.0, 4.0]),
    "effective_samples": jnp.array([1.0, 0.5]),
    "order": jnp.array([1, 0]),
    "value": jnp.array(7.0),
    "attention": jnp.array([[0.0, 0.2, 0.8], [0.3, 0.0, 0.7], [0.4, 0.6, 0.0]]),
}


def test_diagnostics_are_named_after_the_agents_or_groups_whose_they_are():
    """Agents 0 and 2 share parameters: entropies may be of agents, as HASAC's, and gradients are of groups."""
    env = hajax.make_env("mpe/simple_spread")
    axes = axis_names(hajax.make_algorithm("hasac", env, sharing=[0, 1, 0]))
    assert axes == (("agent_0", "agent_1", "agent_2"), ("group_0", "agent_1"))
    found = {name: float(x) for name, x in scalars(METRICS, axes).items()}
    assert found == {
        "entropy": 3.0,
        "entropy_of_agent_0": 1.0,
        "entropy_of_agent_1": 2.0,
        "entropy_of_agent_2": 6.0,
        "actor_grad_norm": 4.0,
        "actor_grad_norm_of_group_0": 3.0,
        "actor_grad_norm_of_agent_1": 5.0,
        "policy_loss": 2.5,
        "effective_samples_1": 1.0,
        "effective_samples_2": 0.5,
        "value": 7.0,
        "attention_of_agent_0_to_agent_1": pytest.approx(0.2),
        "attention_of_agent_0_to_agent_2": pytest.approx(0.8),
        "attention_of_agent_1_to_agent_0": pytest.approx(0.3),
        "attention_of_agent_1_to_agent_2": pytest.approx(0.7),
        "attention_of_agent_2_to_agent_0": pytest.approx(0.4),
        "attention_of_agent_2_to_agent_1": pytest.approx(0.6),
    }


def test_what_belongs_to_nobody_alone_has_no_column():
    env = hajax.make_env("mpe/simple_spread")
    alone = {"entropy": jnp.array([1.5])}
    assert set(scalars(alone, axis_names(hajax.make_algorithm("mappo", env)))) == {"entropy"}
    # Agents and groups of the same number in different orders: the array does not say which it follows.
    assert axis_names(hajax.make_algorithm("happo", env, sharing=[1, 0, 2])) == ()
    assert set(scalars(METRICS, ())) == {*METRICS, "effective_samples_1", "effective_samples_2"} - {
        "order",
        "effective_samples",
        "attention",
    }
