"""Single mistakes, put one at a time into a copy of the library, and whether the tests notice each.

    python tests/mutations.py                     all of them; writes the table to tests/mutations.md
    python tests/mutations.py -k replay           those whose name or file holds a word; prints the table only
    python tests/mutations.py --again             those that the table does not have as caught; the other rows are kept
    python tests/mutations.py --jobs 2            several at once
    python tests/mutations.py --check             only that each text to replace is in the library, exactly once

A mutation is an exact replacement of text, with the tests that should fail: the quickest of those that do. It is
caught if one of them fails; a copy that cannot be imported, or tests that are not found, are an error of this list and
not a catch. A mutation that survives means a missing test.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".md")
TIMEOUT = 900  # seconds; a mutant that runs longer has been noticed
LAST = re.compile(r"^(?:FAILED|ERROR) (\S+?::.*?)(?: - |$)", re.MULTILINE)


class Mutation(NamedTuple):
    """A mistake: what it is, the file in `src/hajax`, the text there, the text in its place, and arguments for pytest.

    Tests are node identifiers below `tests/`.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Result(NamedTuple):
    """What became of a mutation."""

    mutation: Mutation
    outcome: str  # "caught", "survived" or "error"
    by: str  # the test that failed first, or the last line of what pytest said
    seconds: float


def updates_of(*names: str) -> tuple[str, ...]:
    """The comparisons of on-policy updates with the reference, of these cases."""
    return tuple(f"algorithms/test_exactness.py::test_update_equals_the_reference[{name}]" for name in names)


def off_policy_updates_of(*names: str) -> tuple[str, ...]:
    """The same of HADDPG, HATD3 and their baselines."""
    return tuple(f"algorithms/test_off_policy_exactness.py::test_update_equals_the_reference[{name}]" for name in names)


def double_q_updates_of(*names: str) -> tuple[str, ...]:
    """The same of HAD3QN, MAD3QN and ID3QN."""
    return tuple(f"algorithms/test_double_q.py::test_update_equals_the_reference[{name}]" for name in names)


def soft_updates_of(*names: str) -> tuple[str, ...]:
    """The same of HASAC and MASAC."""
    return tuple(f"algorithms/test_hasac.py::test_update_equals_the_reference[{name}]" for name in names)


ADVANTAGES = ("core/on_policy/test_advantages.py",)
TRUST_REGION = "algorithms/test_hatrpo.py::"
REPLAY = ("training/test_replay.py::test_samples_are_the_transitions_of_a_naive_list",)
CHECKPOINTS = "training/test_checkpoints.py::"
RESUME = "runs/test_resume.py::"
HAML = "core/on_policy/test_haml.py::"
UPDATES, VALUES = "tabular/test_updates.py::", "tabular/test_values.py::"

MUTATIONS = (
    # Advantages and value normalization.
    Mutation(
        "a truncated step gets no bootstrap",
        "core/on_policy/advantages.py",
        "jnp.where(terminated, 0, next_value)",
        "jnp.where(terminated | truncated, 0, next_value)",
        ADVANTAGES,
    ),
    Mutation(
        "advantages look across a truncation",
        "core/on_policy/advantages.py",
        "jnp.where(terminated | truncated, 0, jnp.ones_like(delta))",
        "jnp.where(terminated, 0, jnp.ones_like(delta))",
        ADVANTAGES,
    ),
    Mutation(
        "λ is missing from GAE",
        "core/on_policy/advantages.py",
        "decay = discount * gae_lambda * ",
        "decay = discount * ",
        ADVANTAGES,
    ),
    Mutation(
        "the standard deviation counts samples without weight",
        "core/on_policy/advantages.py",
        "std = jnp.sqrt(weighted_mean(jnp.square(x - mean), weight))",
        "std = jnp.sqrt(jnp.square(x - mean).mean())",
        ADVANTAGES,
    ),
    Mutation(
        "value statistics are not debiased",
        "core/normalization.py",
        "mean = statistics.mean / weight",
        "mean = statistics.mean",
        ADVANTAGES,
    ),
    Mutation(
        "denormalized values lack their mean",
        "core/normalization.py",
        "return value * scale + mean",
        "return value * scale",
        updates_of("happo, one discrete agent"),
    ),
    Mutation(
        "the shift of the means is missing from running deviations",
        "core/normalization.py",
        "moments.deviation + deviation + jnp.square(shift) * moments.weight * fraction",
        "moments.deviation + deviation",
        ADVANTAGES,
    ),
    # On-policy updates.
    Mutation(
        "the compound ratio is that of the last group alone",
        "core/on_policy/guards.py",
        "return CompoundRatio(self.log + log_ratio, clipped)",
        "return CompoundRatio(log_ratio, clipped)",
        updates_of("happo, random order"),
    ),
    Mutation(
        "the compound ratio is of the parameters before the update",
        "core/on_policy/compound_ratio.py",
        "learner, info = improve(key, policy, learner, weighted, current)\n"
        '        if settings.order != "simultaneous":\n'
        "            info |= diagnostics(ratio, weights, samples.weight)\n"
        "        ratio = ratio.times(policy.log_ratio(learner.params, samples), current.clip)",
        "old = learner\n"
        "        learner, info = improve(key, policy, learner, weighted, current)\n"
        '        if settings.order != "simultaneous":\n'
        "            info |= diagnostics(ratio, weights, samples.weight)\n"
        "        ratio = ratio.times(policy.log_ratio(old.params, samples), current.clip)",
        updates_of("happo, random order"),
    ),
    Mutation(
        "the advantage is not weighted by the guarded ratio",
        "core/on_policy/compound_ratio.py",
        "advantage=weights * advantage",
        "advantage=jnp.exp(ratio.log) * advantage",
        updates_of("happo, truncated"),
    ),
    Mutation(
        "the advantage is centered by the mean over all samples, also inactive ones",
        "core/on_policy/compound_ratio.py",
        "weighted_mean((weights - 1) * advantage, samples.weight) if",
        "((weights - 1) * advantage).mean() if",
        updates_of("happo, centered"),
    ),
    Mutation(
        "the guard clips the product instead of every agent's ratio",
        "core/on_policy/guards.py",
        "clipped = clipped * jnp.clip(jnp.exp(log_ratio), jnp.maximum(1 - clip, 0), 1 + clip)",
        "clipped = jnp.clip(clipped * jnp.exp(log_ratio), jnp.maximum(1 - clip, 0), 1 + clip)",
        updates_of("happo, clipped"),
    ),
    Mutation(
        "the mean of the ratio includes inactive samples",
        "core/on_policy/guards.py",
        "mean = weighted_mean(jnp.broadcast_to(relative, share.shape), share)",
        "mean = relative.mean()",
        updates_of("hatrpo, normalized"),
    ),
    Mutation(
        "a group's divergence counts once, however many agents it has",
        "core/on_policy/compound_ratio.py",
        'spent + size * info.get("kl", 0)',
        'spent + info.get("kl", 0)',
        updates_of("hatrpo, unspent budget"),
    ),
    Mutation(
        "A2PO's traces are cut by the ratio of the same step instead of the next",
        "core/on_policy/advantages.py",
        "return trace * advantage, advantage",
        "return advantage, delta + trace * decay * after",
        updates_of("a2po, mixed team, some inactive"),
    ),
    Mutation(
        "the trace with a memory is not in the order of time",
        "core/on_policy/samples.py",
        "log_ratio.T if sequences else",
        "log_ratio.reshape(steps, envs) if sequences else",
        updates_of("a2po, gru"),
    ),
    Mutation(
        "A2PO clips the agent's own ratio alone",
        "algorithms/a2po.py",
        "joint = change.ratio * change.preceding\n    clipped",
        "joint = change.ratio\n    clipped",
        updates_of("a2po, mixed team, some inactive"),
    ),
    Mutation(
        "A2PO's clip counts the agents before, without the group itself",
        "algorithms/a2po.py",
        "(position.before + position.agents) / position.num_agents",
        "(position.before + 1) / position.num_agents",
        updates_of("a2po, groups of two and one, minibatches"),
    ),
    Mutation(
        "the greedy order takes the worst group first",
        "core/sequential.py",
        "jnp.where(left, ranked, -jnp.inf).max())",
        "jnp.where(left, ranked, jnp.inf).min())",
        updates_of("hatrpo, greedy"),
    ),
    Mutation(
        "a group's gain is not divided by the length of the step",
        "core/on_policy/compound_ratio.py",
        "/ jnp.sqrt(jnp.where(square > 0, square, 1))",
        "",
        updates_of("happo, semi-greedy", "happo, gru, truncated, greedy"),
    ),
    Mutation(
        "stale log-probabilities: the ratio is of the policy to itself",
        "core/on_policy/compound_ratio.py",
        "log_prob - samples.log_prob, 0)",
        "log_prob - jax.lax.stop_gradient(log_prob), 0)",
        updates_of("happo, one discrete agent"),
    ),
    Mutation(
        "the entropy bonus has the wrong sign",
        "core/on_policy/compound_ratio.py",
        'return -surrogate - getattr(self.hyperparameters, "entropy_coef", 0) * entropy, info',
        'return -surrogate + getattr(self.hyperparameters, "entropy_coef", 0) * entropy, info',
        updates_of("happo, one discrete agent"),
    ),
    Mutation(
        "the baselines update one after another",
        "core/sequential.py",
        'if order == "simultaneous":\n        return None',
        'if order == "simultaneous":\n        return jnp.arange(num_groups)',
        updates_of("mappo, unshared"),
    ),
    Mutation(
        "new parameters stay in the order of the permutation",
        "core/sequential.py",
        "jnp.zeros_like(x).at[permutation].set(x)",
        "x",
        ("core/on_policy/test_sequential.py::test_sequential_update_hands_the_carry_from_group_to_group",),
    ),
    Mutation(
        "the value clip takes the smaller loss",
        "core/losses.py",
        "return jnp.maximum(loss(value), ",
        "return jnp.minimum(loss(value), ",
        updates_of("happo, one discrete agent"),
    ),
    Mutation(
        "inactive agents are in the critics' loss",
        "core/on_policy/template.py",
        "return weighted_mean(error, samples.weight)",
        "return error.mean()",
        updates_of("ippo, a team's reward, some dead"),
    ),
    Mutation(
        "the group's padding is a member",
        "core/on_policy/samples.py",
        "return (active & members).astype(dtype)",
        "return active.astype(dtype)",
        updates_of("happo, groups of two and one"),
    ),
    Mutation(
        "the statistics of observations are updated before they are used",
        "core/observation_moments.py",
        "units = moments if update_first else state.moments",
        "units = moments",
        updates_of("ippo, groups, normalized observations"),
    ),
    Mutation(
        "λ is not 1 where a step led to an agent's death",
        "core/on_policy/critics.py",
        "return jnp.where(final_active, gae_lambda, 1)",
        "return gae_lambda",
        ("algorithms/test_agent_states.py::test_the_step_of_a_death_is_judged_without_the_dead_agent_s_value",),
    ),
    Mutation(
        "gradients are not clipped",
        "core/optimization.py",
        "scale = jnp.where(norm > max_norm, ",
        "scale = jnp.where(norm < 0, ",
        updates_of("happo, one discrete agent"),
    ),
    Mutation(
        "learning rates decay one update early",
        "core/optimization.py",
        "jnp.maximum(1 - updates / decay_updates, 0)",
        "jnp.maximum(1 - (updates + 1) / decay_updates, 0)",
        updates_of("happo, other losses"),
    ),
    Mutation(
        "all epochs have the same minibatches",
        "core/optimization.py",
        "index = shuffle(key, size)",
        "index = shuffle(jax.random.key(0), size)",
        ("algorithms/test_exactness.py::test_minibatches_partition_the_samples_anew_in_every_pass",),
    ),
    # Drifts.
    Mutation(
        "the clip is twice as wide above",
        "core/drifts.py",
        "1 + hyperparameters.clip)",
        "1 + 2 * hyperparameters.clip)",
        (HAML + "test_the_clip_s_drift_makes_the_clipped_surrogate",),
    ),
    Mutation(
        "one KL drift is the other",
        "core/drifts.py",
        "distributions.kl_divergence(change.old, change.new, change.layout)",
        "distributions.kl_divergence(change.new, change.old, change.layout)",
        ("core/test_drift_pairs.py::test_the_exact_drift_is_the_sampled_one_s_mean",),
    ),
    Mutation(
        "Tsallis' drift lacks its middle term",
        "core/drifts.py",
        "jnp.expm1(q * change.log_ratio) - q * jnp.expm1(change.log_ratio)",
        "jnp.expm1(q * change.log_ratio)",
        (HAML + "test_sampled_drifts_are_drifts_sample_by_sample",),
    ),
    Mutation(
        "the adaptive coefficient halves where it should double",
        "core/neighborhoods.py",
        "jnp.where(kl > 1.5 * given.kl_target, 2.0, jnp.where(kl < given.kl_target / 1.5, 0.5, 1.0))",
        "jnp.where(kl > 1.5 * given.kl_target, 0.5, jnp.where(kl < given.kl_target / 1.5, 2.0, 1.0))",
        (HAML + "test_an_adaptive_coefficient_doubles_halves_or_stays",),
    ),
    # The KL ball.
    Mutation(
        "the step reaches half the radius",
        "core/trust_region.py",
        "jnp.sqrt(2 * radius / ",
        "jnp.sqrt(radius / ",
        (TRUST_REGION + "test_the_longest_step_reaches_the_radius_to_second_order",),
    ),
    Mutation(
        "damping has the wrong sign",
        "core/trust_region.py",
        "product + damping * x",
        "product - damping * x",
        updates_of("hatrpo, one discrete agent"),
    ),
    Mutation(
        "the line search does not look at the KL divergence",
        "core/trust_region.py",
        "enough & (improvement > 0) & (kl <= radius * (1 + tolerance))",
        "enough & (improvement > 0)",
        (TRUST_REGION + "test_line_search_takes_the_first_candidate_that_gains_enough_within_the_radius",),
    ),
    Mutation(
        "a rejected step is taken",
        "core/trust_region.py",
        "jnp.where(last.accepted, new, old)",
        "new",
        (TRUST_REGION + "test_a_rejected_step_leaves_the_agent_exactly_as_it_was",),
    ),
    # Off-policy updates.
    Mutation(
        "targets bootstrap after a termination",
        "core/off_policy/joint_critics.py",
        "jnp.where(batch.terminated, 0, value)",
        "value",
        off_policy_updates_of("haddpg, one agent"),
    ),
    Mutation(
        "γ instead of γᵏ before the bootstrap",
        "core/off_policy/joint_critics.py",
        "jnp.power(discount, batch.steps)",
        "discount",
        ("training/test_replay.py::test_targets_equal_a_naive_sum",),
    ),
    Mutation(
        "targets are by the current policies",
        "core/off_policy/deterministic.py",
        "u = self.units(state.target_actors, minibatch.final_observation)",
        "u = self.units(state.actors.params, minibatch.final_observation)",
        off_policy_updates_of("hatd3, one agent"),
    ),
    Mutation(
        "targets are by the larger of the twins",
        "core/off_policy/deterministic.py",
        "final_critic_input(minibatch), joint).min(1)",
        "final_critic_input(minibatch), joint).max(1)",
        off_policy_updates_of("hatd3, one agent"),
    ),
    Mutation(
        "the noise on target actions is not clipped",
        "core/off_policy/deterministic.py",
        "noise = jnp.clip(noise, -hyperparameters.target_noise_clip, hyperparameters.target_noise_clip)",
        "noise = jnp.asarray(noise)",
        off_policy_updates_of("hatd3, one agent"),
    ),
    Mutation(
        "target critics step away",
        "core/off_policy/template.py",
        "polyak_average(state.target_critics, state.critics.params, rate)",
        "polyak_average(state.critics.params, state.target_critics, rate)",
        off_policy_updates_of("haddpg, one agent"),
    ),
    Mutation(
        "later groups see the replay's actions of the earlier ones",
        "core/off_policy/joint_sequence.py",
        "return learner, replaced(joint, samples.slot, blank(features, samples.weight)), info",
        "return learner, joint, info",
        off_policy_updates_of("haddpg, random order"),
    ),
    Mutation(
        "an agent learns from another's critic",
        "core/off_policy/joint_sequence.py",
        "others = replaced(joint, samples.slot, lax.stop_gradient(own))",
        "others = replaced(joint, samples.slot, own)",
        off_policy_updates_of("maddpg, a critic each, groups"),
    ),
    Mutation(
        "exploration leaves the bounds",
        "core/off_policy/deterministic.py",
        "            u = clip_to_bounds(layout, u + noise)\n        return native(layout, u), memory",
        "            u = u + noise\n        return native(layout, u), memory",
        ("core/off_policy/test_off_policy.py::test_exploration_stays_within_bounds",),
    ),
    Mutation(
        "exploration noise goes on in the next episode",
        "core/off_policy/deterministic.py",
        "before = jnp.where(timestep.first[..., None, None], 0, memory)",
        "before = memory",
        ("core/off_policy/test_off_policy.py::test_the_ou_process_remembers_and_forgets_at_the_end_of_an_episode",),
    ),
    Mutation(
        "entropies lower the targets' log-probabilities with the wrong sign",
        "core/off_policy/mehaml.py",
        "return value - jnp.sum(log_prob, -1)",
        "return value + jnp.sum(log_prob, -1)",
        soft_updates_of("masac, mixed team"),
    ),
    Mutation(
        "the temperature follows the entropy in the wrong direction",
        "core/off_policy/mehaml.py",
        "-log_prob - self.target_entropy(minibatch, hyperparameters)",
        "log_prob - self.target_entropy(minibatch, hyperparameters)",
        soft_updates_of("masac, mixed team"),
    ),
    Mutation(
        "the target entropy of choices counts unavailable ones",
        "core/off_policy/mehaml.py",
        "available = available_choices(layout, minibatch.action_mask).sum(-1)",
        "available = jnp.asarray(layout.choices).sum(-1)",
        soft_updates_of("masac, mixed team"),
    ),
    Mutation(
        "log-probabilities lack the squashing",
        "nn/squashing.py",
        "density - log_squash_slope(layout, x)",
        "density",
        ("algorithms/test_hasac.py::test_squashed_log_probabilities_are_those_of_a_density",),
    ),
    Mutation(
        "no gradient goes through a choice",
        "nn/squashing.py",
        "jax.lax.stop_gradient(soft)",
        "soft",
        ("algorithms/test_hasac.py::test_gumbel_gradients_are_those_of_the_exact_expectation",),
    ),
    Mutation(
        "the joint critic is its own target",
        "core/off_policy/double_q.py",
        "params = jax.tree.map(lambda x: x[0, 0], state.target_critics)",
        "params = jax.tree.map(lambda x: x[0, 0], state.critics.params)",
        double_q_updates_of("had3qn, one agent"),
    ),
    Mutation(
        "no double Q: the online network evaluates its own choice",
        "core/off_policy/double_q.py",
        "values = own.team_values(state.target_actors, minibatch.final_observation)",
        "values = own.team_values(state.actors.params, minibatch.final_observation)",
        double_q_updates_of("id3qn, one agent"),
    ),
    Mutation(
        "advantages are centered over choices that do not exist",
        "nn/dueling.py",
        "jnp.mean(advantage, -1, keepdims=True, where=exists)",
        "jnp.mean(advantage, -1, keepdims=True)",
        double_q_updates_of("had3qn, random order"),
    ),
    Mutation(
        "the best choice may be unavailable",
        "core/off_policy/own_values.py",
        "jnp.argmax(jnp.where(available, values, -jnp.inf), -1)",
        "jnp.argmax(values, -1)",
        double_q_updates_of("id3qn, some dead"),
    ),
    Mutation(
        "one coin decides whether the whole team explores",
        "core/off_policy/own_values.py",
        "jax.random.uniform(coin_key, greedy.shape)",
        "jax.random.uniform(coin_key, (*greedy.shape[:-1], 1))",
        ("algorithms/test_double_q.py::test_every_agent_in_every_environment_throws_its_own_coin",),
    ),
    Mutation(
        "statistics of observations count inactive agents",
        "core/observation_moments.py",
        "update_moments)(moments.observation, seen, active)",
        "update_moments)(moments.observation, seen, jnp.ones_like(active))",
        ("core/test_observation_moments.py::test_an_update_sees_what_it_drew_in_units_of_all_draws_so_far",),
    ),
    Mutation(
        "what an inactive agent observes reaches the update",
        "core/inactive.py",
        '"observation": blank(given.observation, given.active),',
        '"observation": given.observation,',
        ("algorithms/test_inputs.py::test_what_is_shown_of_an_inactive_agent_does_not_matter",),
    ),
    # Replay and rollouts.
    Mutation(
        "n-step returns go on in the next episode",
        "training/replay.py",
        "jnp.cumprod(~ends[..., :-1], axis=-1, dtype=bool)",
        "jnp.ones_like(ends[..., :-1])",
        REPLAY,
    ),
    Mutation(
        "the final observation is not stored",
        "training/replay.py",
        "after.final._asdict())",
        '{"observation": after.observation})',
        REPLAY,
    ),
    Mutation(
        "rows that were written over are sampled",
        "training/replay.py",
        "<= head - capacity).any()",
        "<= head - 2 * capacity).any()",
        REPLAY,
    ),
    Mutation(
        "steps are sampled before the n-th has followed",
        "training/replay.py",
        "replay.steps - num_steps + 1)",
        "replay.steps)",
        REPLAY,
    ),
    Mutation(
        "the first step of an episode is not marked",
        "envs/batching.py",
        "last._replace(**shown, first=done)",
        "last._replace(**shown)",
        ("envs/test_envs.py::test_automatic_reset_shows_the_new_episode_and_keeps_the_end_of_the_old",),
    ),
    Mutation(
        "after an automatic reset the old state goes on",
        "envs/batching.py",
        "jax.tree.map(lambda a, b: jnp.where(done, a, b), reset_state, next_state)",
        "next_state",
        ("envs/test_envs.py::test_automatic_reset_shows_the_new_episode_and_keeps_the_end_of_the_old",),
    ),
    Mutation(
        "an evaluation counts what comes after its episode",
        "training/evaluation.py",
        "jnp.where(running, reward, 0)",
        "reward",
        ("training/test_training.py::test_evaluation_counts_nothing_after_an_episode_while_others_go_on",),
    ),
    # Memory.
    Mutation(
        "a GRU remembers the episode before",
        "nn/memory.py",
        "memory = jax.tree.map(functools.partial(where, first), module.initial_memory(first.shape), memory)",
        "memory = memory",
        updates_of("haa2c, gru"),
    ),
    Mutation(
        "a GRU's memory goes on while the agent is inactive",
        "nn/memory.py",
        "new = jax.tree.map(functools.partial(where, active), new, memory)",
        "new = new",
        ("algorithms/test_recurrence.py::test_who_is_not_alive_remembers_what_it_did",),
    ),
    Mutation(
        "a chunk begins with the memory of one step later",
        "core/on_policy/samples.py",
        "after[:, :, length - 1 : -1 : length]",
        "after[:, :, length::length]",
        updates_of("haa2c, gru"),
    ),
    # Padding and distributions.
    Mutation(
        "LayerNorm counts padding",
        "nn/layers.py",
        "count = x.shape[-1] if mask is None else jnp.maximum(mask.sum(), 1)",
        "count = x.shape[-1]",
        ("algorithms/test_padding.py::test_padded_update_equals_the_unpadded_one",),
    ),
    Mutation(
        "fresh kernels are orthogonal with their padded rows",
        "nn/layers.py",
        "orthogonal(gain, mask if layer == 0 else None)",
        "orthogonal(gain)",
        ("algorithms/test_padding.py::test_fresh_kernels_of_padded_agents_are_orthogonal_on_their_own_inputs",),
    ),
    Mutation(
        "densities are in scaled units",
        "nn/distributions.py",
        "_gaussian(parameters).log_prob(u) - jnp.log(scale)",
        "_gaussian(parameters).log_prob(u)",
        ("nn/test_distributions.py",),
    ),
    Mutation(
        "the Fisher information of σ is that of the mean",
        "nn/distributions.py",
        "2 * precision * v_std",
        "precision * v_std",
        (TRUST_REGION + "test_fisher_product_is_that_of_the_explicit_hessian",),
    ),
    # Checkpoints, resuming, refusals.
    Mutation(
        "damaged arrays are restored",
        "training/checkpoints.py",
        'if sha256(arrays[name]) != entries[name]["sha256"]:',
        "if False:",
        (CHECKPOINTS + "test_an_array_that_is_restored_wrongly_is_noticed",),
    ),
    Mutation(
        "one checkpoint more than asked for is kept",
        "training/checkpoints.py",
        "_step_directories(directory)[:-keep]",
        "_step_directories(directory)[: -keep - 1]",
        (CHECKPOINTS + "test_only_the_last_are_kept",),
    ),
    Mutation(
        "a checkpoint of another format is read",
        "training/manifest.py",
        "if isinstance(version, int) and version != FORMAT:",
        "if False:",
        (CHECKPOINTS + "test_another_format_is_refused",),
    ),
    Mutation(
        "a run is resumed with other settings",
        "runs/resume.py",
        "if old != new:",
        "if False:",
        (RESUME + "test_changed_settings_are_refused_by_name[algo.clip=0.3]",),
    ),
    Mutation(
        "a run is resumed to fewer steps",
        "runs/resume.py",
        "if after < before:",
        "if False:",
        (RESUME + "test_changed_settings_are_refused_by_name[total_steps=96]",),
    ),
    Mutation(
        "agents of other groups push each other",
        "envs/spread_3.py",
        "touching=same, own_reward=own_reward",
        "own_reward=own_reward",
        ("envs/test_spread_3.py::test_only_agents_of_a_group_push_and_reward_each_other",),
    ),
    Mutation(
        "landmarks of other groups count in Spread-3",
        "envs/spread_3.py",
        "return -jnp.where(same, nearest[None], 0).sum(1) - touched",
        "return -nearest.sum() - touched",
        ("envs/test_spread_3.py::test_rewards_are_those_of_the_groups",),
    ),
    Mutation(
        "a rover hears the tower of its own number",
        "envs/rover_tower.py",
        "heard = world.message[tower_of]",
        "heard = world.message",
        ("envs/test_rover_tower.py::test_every_step_is_that_of_the_description",),
    ),
    Mutation(
        "the bonus of a rover is for another distance",
        "envs/rover_tower.py",
        "BONUS * (away < CLOSE) - away",
        "BONUS * (jnp.sqrt(away) < CLOSE) - away",
        ("envs/test_rover_tower.py::test_every_step_is_that_of_the_description",),
    ),
    Mutation(
        "both players see the round from the side of the first",
        "envs/iterated_games.py",
        "own, other = state.last, state.last[::-1]",
        "own, other = state.last[[0, 0]], state.last[[1, 1]]",
        ("envs/test_iterated_games.py::test_rewards_and_what_each_agent_remembers",),
    ),
    Mutation(
        "diagnostics of groups are named after the first agents",
        "runs/totals.py",
        "next((names for names in axes if len(names) == len(value)), ())",
        "axes[0] if axes else ()",
        ("runs/test_totals.py",),
    ),
    Mutation(
        "all of a run's profile is weighted by seeds instead of tasks",
        "training/statistics.py",
        "np.full(task.size, 1 / (len(tasks) * task.size))",
        "np.full(task.size, 1 / len(pooled))",
        ("training/test_statistics.py::test_performance_profile_by_hand",),
    ),
    Mutation(
        "a slice of the next evaluation is trained before this one",
        "runs/stages.py",
        "iterations = min(iterations, target - done)",
        "iterations = iterations",
        ("session/test_session.py::test_it_is_hajax_train_number_for_number",),
    ),
    Mutation(
        "a new replay is of the random steps that filled the first",
        "runs/runner.py",
        "its = jax.vmap(jax.random.fold_in, (0, None))(keys, done) if done else keys",
        "its = keys",
        (RESUME + "test_a_checkpoint_without_the_replay_goes_on_with_a_new_one",),
    ),
    Mutation(
        "the clock of a resumed run starts anew",
        "runs/clock.py",
        "return cls(time.perf_counter() - wall_seconds, train_seconds, eval_seconds)",
        "return cls(time.perf_counter(), train_seconds, eval_seconds)",
        (RESUME + "test_more_steps",),
    ),
    Mutation(
        "rows newer than the checkpoint stay",
        "runs/tables.py",
        'self.rows = [row for row in rows if keep(row["step"])]',
        "self.rows = list(rows)",
        (RESUME + "test_rows_newer_than_the_checkpoint_are_dropped",),
    ),
    Mutation(
        "a choice is not looked up",
        "validation.py",
        "if not isinstance(value, str) or value not in names:",
        "if not isinstance(value, str):",
        ("algorithms/test_conformance.py::test_refusals_name_the_setting_the_value_and_what_is_allowed",),
    ),
    Mutation(
        "an open range includes its end",
        "validation.py",
        "number > low if open_low else number >= low",
        "number >= low",
        ("algorithms/test_conformance.py::test_refusals_name_the_setting_the_value_and_what_is_allowed",),
    ),
    Mutation(
        "a joint advantage takes individual rewards",
        "core/on_policy/template.py",
        "if spec.reward not in settings.rewards:",
        "if False:",
        ("algorithms/test_conformance.py::test_a_joint_advantage_needs_the_teams_reward",),
    ),
    # Environments.
    Mutation(
        "particles attract each other",
        "envs/mpe.py",
        "offset = position[:, None] - position[None]",
        "offset = position[None] - position[:, None]",
        ("envs/test_mpe.py::test_every_episode_is_that_of_mpe2",),
    ),
    Mutation(
        "MPE's episodes are one step longer",
        "envs/mpe.py",
        "truncated=inner.step >= max_steps",
        "truncated=inner.step > max_steps",
        ("envs/test_mpe.py::test_every_episode_is_that_of_mpe2",),
    ),
    Mutation(
        "SMAX's weapons need no cooldown",
        "envs/smax_world.py",
        "alive[target] & (cooldown <= 0)",
        "alive[target]",
        ("envs/test_smax.py::test_no_weapon_fires_twice_in_a_step", "envs/test_smax.py::TestAgainstJaxmarl"),
    ),
    Mutation(
        "SMAX does not reward the win",
        "envs/smax_world.py",
        " / self.num_opponents + self.won(after)",
        " / self.num_opponents",
        ("envs/test_smax.py::test_a_win_and_the_reset_after_it",),
    ),
    Mutation(
        "MAMuJoCo's agents see one joint further",
        "envs/mamujoco/factorization.py",
        "for _ in range(k):",
        "for _ in range(k + 1):",
        ("envs/mamujoco/test_factorization.py::test_distances_of_the_humanoid_s_right_elbow",),
    ),
    Mutation(
        "a MAMuJoCo agent drives all its joints by its first component",
        "envs/mamujoco/factorization.py",
        "{actuator: (i, j) for",
        "{actuator: (i, 0 * j) for",
        ("envs/mamujoco/test_factorization.py::test_an_agent_s_action_is_felt_by_its_own_joints_alone",),
    ),
    Mutation(
        "MuJoCo's solver starts anew in every step",
        "envs/mamujoco/in_c.py",
        "mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_WARMSTART)",
        "mjSTATE_FULLPHYSICS)",
        (
            "envs/mamujoco/test_in_c.py::test_whole_episodes_of_a_program_in_single_precision_are_mujoco_s_to_the_last_bit",
        ),
    ),
    Mutation(
        "a robot's contact forces are those of an earlier step",
        "envs/mamujoco/in_c.py",
        "                if self._forces:\n",
        "                if not self._forces:\n",
        ("envs/mamujoco/test_in_c.py::test_a_step_is_mujoco_s_to_the_last_bit[ant_4x2-v5]",),
    ),
    Mutation(
        "every episode of a robot begins as the one before",
        "envs/mamujoco/in_c.py",
        "jnp.where(first, new, old)",
        "jnp.where(first, old, new)",
        (
            "envs/mamujoco/test_in_c.py::test_whole_episodes_of_a_program_in_single_precision_are_mujoco_s_to_the_last_bit",
        ),
    ),
    Mutation(
        "a shared reward of jaxmarl is counted once for every agent",
        "envs/from_jaxmarl.py",
        "own = own / len(theirs) if rules.shared else own",
        "pass",
        ("envs/test_jaxmarl.py::test_the_riddle_ends_when_someone_tells_and_is_cut_when_nobody_does",),
    ),
    Mutation(
        "jumanji's time limit is an end",
        "envs/from_jumanji.py",
        '{"time_limit": limit + 1}',
        '{"time_limit": limit}',
        ("envs/test_jumanji.py::test_a_time_limit_that_jumanji_calls_an_end_truncates",),
    ),
    # The tabular theory.
    Mutation(
        "exact values are not discounted",
        "tabular/values.py",
        "return game.reward + game.discount * (game.transition * value).sum(-1)",
        "return game.reward + (game.transition * value).sum(-1)",
        (VALUES + "test_values_are_those_of_the_definitions",),
    ),
    Mutation(
        "the exact surrogate averages over earlier agents",
        "tabular/surrogate.py",
        "later = ~updated & ",
        "later = updated & ",
        (UPDATES + "test_gains_are_inequality_5_by_its_definition[clip-0.0]",),
    ),
    Mutation(
        "exact updates do not tell the next agent of the new policy",
        "tabular/mirror.py",
        "(policies.at[agent].set(new), updated.at[agent].set(True))",
        "(policies, updated.at[agent].set(True))",
        (UPDATES + "test_gains_are_inequality_5_by_its_definition",),
    ),
    Mutation(
        "the exact KL ball is twice as large",
        "tabular/neighborhoods.py",
        "log_step = tilts.step_of_divergence(old, gap, radius)",
        "log_step = tilts.step_of_divergence(old, gap, 2 * radius)",
        (UPDATES + "test_trust_region_and_ball_are_greedy_within_them",),
    ),
    # Simulators.
    Mutation(
        "what followed a step in the other half is put beside it",
        "training/rollout.py",
        "jnp.concatenate([x[1:], last[None]])",
        "jnp.concatenate([x[:-1], last[None]])",
        ("envs/test_simulators.py::TestPrograms::test_rollout_whose_halves_overlap_is_a_rollout",),
    ),
    Mutation(
        "a half whose step is not under way is counted",
        "training/rollout.py",
        "jnp.where(under_way, x, y)",
        "x",
        ("envs/test_simulators.py::TestPrograms::test_rollout_whose_halves_overlap_is_a_rollout",),
    ),
    Mutation(
        "an episode that was lost with its worker goes on",
        "envs/simulators/pool.py",
        "            self._truncate(gone)\n",
        "",
        (
            "envs/test_simulators.py::TestWorkers::"
            "test_killed_worker_truncates_each_of_its_episodes_once_while_steps_overlap",
        ),
    ),
    Mutation(
        "the first episode is repeated, not the one under way",
        "envs/simulators/host.py",
        "pool.reset(past.seed, past.episode)",
        "pool.reset(past.seed)",
        ("runs/test_simulators.py::test_resumed_run_is_the_uninterrupted_one_bit_for_bit",),
    ),
    Mutation(
        "the actions of an episode that is over are kept",
        "envs/simulators/bridge.py",
        "jnp.where(over, 0, past.step)",
        "past.step",
        ("runs/test_simulators.py::test_resumed_run_is_the_uninterrupted_one_bit_for_bit",),
    ),
    Mutation(
        "simulators that come to something else are taken for resumed",
        "envs/simulators/host.py",
        "if name in repeated and not",
        "if False and not",
        ("runs/test_simulators.py::test_simulators_that_cannot_repeat_episodes_begin_new_ones",),
    ),
    # Trust regions.
    Mutation(
        "the distance to the old policy is multiplied by the radius",
        "core/off_policy/mirror_descent.py",
        "change / data.radius[:, None]",
        "change * data.radius[:, None]",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "the old policy is the current one",
        "core/off_policy/mirror_descent.py",
        "data = MirrorData(state.extra.actors,",
        "data = MirrorData(state.actors.params,",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "the old policy is copied in every update",
        "core/off_policy/mirror_descent.py",
        "due = (state.updates + 1) % self.settings.old_policy_interval == 0",
        "due = True",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "coordination coefficients sum to 1 over the other index",
        "core/off_policy/decomposition.py",
        "total = weight.sum(-2, keepdims=True)",
        "total = weight.sum(-1, keepdims=True)",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "the non-stationarity is that of the farthest partner",
        "core/off_policy/decomposition.py",
        "partner = jnp.argmax(total, -1)",
        "partner = jnp.argmin(total, -1)",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "the radii get no gradient of the policies' objectives, as in the public code",
        "core/off_policy/decomposition.py",
        "jnp.sum(found.divergence / radii) +",
        "0 *",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "the modeling policies are not trained, as in the public code",
        "core/off_policy/decomposition.py",
        "network=network, modeling=modeling)",
        "network=network)",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "agents do not hear themselves in the graph convolution, as in the public code",
        "nn/decomposition.py",
        "(jnp.where(edges, weights, 0) + loops)",
        "jnp.where(edges, weights, 0)",
        ("algorithms/test_mirror_descent.py",),
    ),
    Mutation(
        "the probability of a padded member's action counts",
        "core/off_policy/counterfactual.py",
        "jnp.where(samples.weight > 0, log_probability(parameters, layout, self.action), 0)",
        "log_probability(parameters, layout, self.action)",
        ("algorithms/test_maac.py",),
    ),
    Mutation(
        "densities are in native units",
        "core/off_policy/counterfactual.py",
        "jnp.where(layout.continuous, scale, 0).sum(-1)",
        "0",
        ("algorithms/test_maac.py",),
    ),
    Mutation(
        "the baseline reads the agents' joint actions instead of alternatives",
        "core/off_policy/attention_values.py",
        "mine = jnp.concatenate([mine, self.features(own, inputs.active)])",
        "mine = jnp.concatenate([mine, jnp.broadcast_to(mine, (len(own), *mine.shape[1:]))])",
        ("algorithms/test_maac.py",),
    ),
    # Statistics.
    Mutation(
        "the interquartile mean cuts a third",
        "training/statistics.py",
        "cut = num_scores // 4",
        "cut = num_scores // 3",
        ("training/test_statistics.py",),
    ),
    # Opponents, and runs of one's own environment.
    Mutation(
        "LOLA's other gradient is not held fixed",
        "tabular/opponents.py",
        'jnp.einsum("ij...,j...->ij", first, steps)',
        'jnp.einsum("ij...,j...->ij", derivatives(parameters), steps)',
        ("tabular/test_opponents.py",),
    ),
    Mutation(
        "an agent anticipates its own step too",
        "tabular/opponents.py",
        "others = 1 - jnp.eye(parameters.shape[0])",
        "others = jnp.ones(2 * parameters.shape[:1])",
        ("tabular/test_opponents.py",),
    ),
    Mutation(
        "a NaN of the environment is taken for one of the update",
        "runs/programs.py",
        "found = from_environment(team.env.spec, train_state.actors, metrics) | found",
        "found = found | from_environment(team.env.spec, train_state.actors, metrics)",
        ("runs/test_resume.py::TestNonFinite::test_stops_and_names_it",),
    ),
    Mutation(
        "an option of the run's own environment is not compared with the run's",
        "runs/resume.py",
        "elif old != value:",
        "elif False:",
        ("cli/test_cli.py::test_environment_of_one_s_own_from_the_working_directory",),
    ),
    Mutation(
        "the best of a population are replaced by the worst",
        "population.py",
        "jnp.argsort(scores, descending=True)",
        "jnp.argsort(scores)",
        ("runs/test_grid.py::TestSelection",),
    ),
    Mutation(
        "a member whose score is NaN may be a parent",
        "population.py",
        "jnp.clip(finite.sum(), 1, count)",
        "count",
        ("runs/test_grid.py::TestSelection",),
    ),
    Mutation(
        "members that are kept are perturbed too",
        "population.py",
        "jnp.where(changed, moved, values)",
        "moved",
        ("runs/test_grid.py::TestSelection",),
    ),
    Mutation(
        "a copy has the random numbers of its parent",
        "runs/trials.py",
        "jnp.where(changed, other, state.train.key)",
        "state.train.key",
        ("runs/test_grid.py::test_a_copy_goes_on_as_its_parent_with_random_numbers_of_its_own",),
    ),
    Mutation(
        "points and seeds change places",
        "runs/trials.py",
        "jnp.repeat(jnp.array(xs, float), len(seeds), axis=0)",
        "jnp.tile(jnp.array(xs, float), len(seeds))",
        ("runs/test_grid.py::test_a_point_is_its_single_run",),
    ),
)


def text_of(mutation: Mutation) -> str:
    """The file to change; SystemExit unless what is to be replaced is there exactly once."""
    text = (ROOT / "src" / "hajax" / mutation.file).read_text(encoding="utf-8")
    if (found := text.count(mutation.old)) != 1:
        raise SystemExit(f"{mutation.what}: the text is {found} times in {mutation.file}; allowed: once")
    return text


def run(mutation: Mutation) -> Result:
    """Makes a copy of the library with the mistake in it, and runs the tests that should notice."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "conf").symlink_to(ROOT / "conf")
        changed = copy / "src" / "hajax" / mutation.file
        changed.write_text(text_of(mutation).replace(mutation.old, mutation.new), encoding="utf-8")
        environment = os.environ | {
            "PYTHONPATH": str(copy / "src"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "hypothesis"),
        }
        options = ["-x", "-q", "-p", "no:cacheprovider", "--disable-warnings", "--tb=line"]
        tests = [str(ROOT / "tests" / test) for test in mutation.tests]
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Result(mutation, "caught", "they did not end", TIMEOUT)
        seconds = time.perf_counter() - began
    failed = LAST.findall(done.stdout)
    if done.returncode == 1 and failed:
        return Result(mutation, "caught", failed[0].removeprefix("tests/"), seconds)
    if done.returncode == 0:
        return Result(mutation, "survived", "", seconds)
    last = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
    return Result(mutation, "error", last[-1], seconds)


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    caught = sum(result.outcome == "caught" for result in results)
    rows = [f"Written by `python tests/mutations.py`: {caught} of {len(results)} mutations caught.", ""]
    rows += ["| | mistake | file | outcome | by | seconds |", "|---:|---|---|---|---|---:|"]
    for number, (mutation, outcome, by, seconds) in enumerate(results, 1):
        shown = f"`{by}`" if by else ""
        rows.append(f"| {number} | {mutation.what} | `{mutation.file}` | {outcome} | {shown} | {seconds:.0f} |")
    return "\n".join(rows) + "\n"


def kept() -> dict[tuple[str, str], Result]:
    """The results in the table of mutations that were caught, by what they are and their file."""
    found = {}
    known = {(mutation.what, f"`{mutation.file}`"): mutation for mutation in MUTATIONS}
    for line in TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else ():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 6 and cells[3] == "caught" and (mutation := known.get((cells[1], cells[2]))):
            found[mutation.what, mutation.file] = Result(mutation, "caught", cells[4].strip("`"), float(cells[5]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", metavar="WORD", default="", help="only mutations whose name or file holds this word")
    parser.add_argument("--again", action="store_true", help="only mutations that the table does not have as caught")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--check", action="store_true", help="only look whether every text is found once")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.k in f"{mutation.what} {mutation.file}"]
    for mutation in chosen:
        text_of(mutation)
    if arguments.check:
        return 0
    results = kept() if arguments.again else {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(run, [mutation for mutation in chosen if mutation[:2] not in results]):
            results[result.mutation[:2]] = result
            print(f"{result.outcome:8s} {result.seconds:5.0f} s  {result.mutation.what}  {result.by}", flush=True)
    results = [results[mutation[:2]] for mutation in chosen]
    if not arguments.k:
        TABLE.write_text(table(results), encoding="utf-8")
    print(f"\n{table(results)}")
    return int(not results or any(result.outcome != "caught" for result in results))


if __name__ == "__main__":
    sys.exit(main())
