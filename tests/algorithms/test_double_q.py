"""HAD3QN, MAD3QN and ID3QN: their updates equal those of `reference_double_q.py`, choices, exploration, and games."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest
import reference_double_q as reference
from flax.traverse_util import flatten_dict

import hajax
from hajax.core.off_policy.choices import TeamChoices, choices_of
from hajax.envs.games import hasac_payoff, trap_of_heterogeneity_payoff
from hajax.nn.dueling import Dueling
from hajax.nn.layers import MLP
from hajax.spaces import Discrete, MultiDiscrete

TRIO = (Discrete(3), MultiDiscrete((2, 2)), Discrete(2))
SIZES = (3, 2, 4)
CASES: dict[str, dict[str, Any]] = {
    "had3qn, one agent": {"spaces": [Discrete(4)]},
    "had3qn, random order": {"spaces": TRIO, "sizes": SIZES},
    "had3qn, epochs, n steps, some dead": {
        "spaces": TRIO,
        "sizes": SIZES,
        "epochs": 3,
        "n_step": 4,
        "inactive": 0.3,
        "policy_delay": 2,
    },
    "had3qn, replayed, layer norm": {
        "spaces": TRIO,
        "others": "replay",
        "layer_norm": True,
        "agent_id": True,
        "head_sizes": (4, 3),
    },
    "had3qn, groups": {"spaces": (Discrete(3),) * 3, "sharing": (0, 1, 0), "inactive": 0.3, "order": "fixed"},
    "had3qn, no heads": {"spaces": TRIO, "sizes": SIZES, "head_sizes": ()},
    "mad3qn": {"spaces": TRIO, "sizes": SIZES, "epochs": 2},
    "mad3qn, shared": {"spaces": (Discrete(3),) * 3, "sharing": "all", "inactive": 0.3},
    "id3qn, one agent": {"spaces": [MultiDiscrete((2, 3))]},
    "id3qn, some dead": {"spaces": TRIO, "sizes": SIZES, "epochs": 2, "n_step": 3, "policy_delay": 2, "inactive": 0.4},
    "id3qn, own rewards, groups": {
        "spaces": (Discrete(3),) * 3,
        "sharing": (0, 1, 0),
        "reward": "individual",
        "inactive": 0.4,
    },
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def make(name: str, spec, **settings):
    return off_policy_problems.make_algorithm(name, spec, **({"head_sizes": (4,)} | settings))


@functools.cache
def problem(name: str):
    """The algorithm, a random state, and the compiled `update`, which also returns the order that was drawn."""
    case = CASES[name]
    options = {k: v for k, v in case.items() if k not in ("spaces", "sizes", "reward", "inactive")}
    spec = problems.make_spec(case["spaces"], case.get("sizes"), reward=case.get("reward", "team"))
    algo = make(name.split(",")[0], spec, **options)
    return algo, off_policy_problems.random_state(algo, 3), off_policy_problems.Recorder(algo)


def own_entries(algo, agent: int):
    """As `problems.own_entries`, with the outputs of the agent's choices."""
    count = len(reference.choices(algo.spec.agents[agent].action_space.choices))

    def index(name, shape):
        entries = problems.own_entries(name, shape, algo.spec, algo.settings.agent_id, agent)
        if name.startswith("advantage/"):
            entries = np.ix_(*(x.ravel() for x in entries[:-1]), np.arange(count))
        return entries

    return index


def views(algo, state) -> tuple[list[problems.View], problems.View | None]:
    """Views of the groups' learners, and of the joint critic."""
    groups = problems.groups_of(algo.spec, algo.settings.sharing)
    own = [problems.View(state.actors, g, own_entries(algo, members[0])) for g, members in enumerate(groups)]
    if state.critics is None:
        return own, None
    everything = functools.partial(problems.own_entries, spec=algo.spec, agent_id=False, agent=None)
    return own, problems.View(state.critics, (0, 0), everything)  # type: ignore[arg-type]


def read(algo, state) -> reference.Team:
    """The state without padding."""
    own, critic = views(algo, state)

    def parameters(view, tree):
        flat = {name: np.asarray(x)[view.group] for name, x in flatten_dict(tree, sep="/").items()}
        return {name: x[view.own(name, x.shape)] for name, x in flat.items()}

    return reference.Team(
        [view.read() for view in own],
        critic and critic.read(),
        [parameters(view, state.target_actors) for view in own] if state.target_actors else [],
        critic and parameters(critic, state.target_critics),
    )


def transitions(algo, batch, p: int) -> reference.Transitions:
    """The p-th minibatch without padding."""
    spec, one = algo.spec, jax.tree.map(lambda x: np.asarray(x)[p], batch)
    agents = range(spec.num_agents)
    sizes = [agent.action_space.choices for agent in spec.agents]

    def allowed(mask):
        return [
            [{a for a in reference.choices(sizes[i]) if all(row[i, d, c] for d, c in enumerate(a))} for row in mask]
            for i in agents
        ]

    return reference.Transitions(
        observation=[problems.own_input(algo, one.observation, i) for i in agents],
        state=one.state,
        action=[[tuple(int(x) for x in row[: len(sizes[i])]) for row in one.action[:, i]] for i in agents],
        available=allowed(one.action_mask),
        active=[one.active[:, i] for i in agents],
        reward=one.reward,
        steps=one.steps,
        terminated=one.terminated,
        final_observation=[problems.own_input(algo, one.final_observation, i) for i in agents],
        final_state=one.final_state,
        final_available=allowed(one.final_action_mask),
        final_active=[one.final_active[:, i] for i in agents],
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_update_equals_the_reference(name):
    """All parameters, Adam's moments and targets after each of three updates, and no gradient in any padding."""
    algo, state, update = problem(name)
    spec, settings = algo.spec, algo.settings
    groups, sizes = problems.groups_of(spec, settings.sharing), [a.action_space.choices for a in spec.agents]
    for i in range(3):
        batch = off_policy_problems.random_batch(algo, 10 + i, CASES[name].get("inactive", 0.0))
        (new, _), _, orders = update(jax.random.key(i), state, batch)
        rows = [transitions(algo, batch, p) for p in range(settings.policy_delay)]
        team, hp = read(algo, state), off_policy_problems.numbers_of(state)
        if algo.name == "id3qn":
            expected = reference.independent_update(team, groups, sizes, rows, settings.epochs, spec.reward, hp)
        else:
            order = {"simultaneous": None, "fixed": range(len(groups))}.get(
                settings.order, orders[0] if orders else [0]
            )
            expected = reference.update(team, groups, sizes, rows, order, settings.others, settings.epochs, hp)
        own, critic = views(algo, new)
        for view, learner in zip(own, expected.actors, strict=True):
            view.assert_equals(learner, state.actors, 1e-10)
        if critic is not None:
            critic.assert_equals(expected.critic, state.critics, 1e-10)
        found = read(algo, new)
        wanted = [*expected.target_actors, expected.target_critic or {}]
        for one, other in zip([*found.target_actors, found.target_critic or {}], wanted, strict=True):
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_allclose(one[key], other[key], 0, 1e-10, err_msg=key)
        state = new


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["had3qn", "id3qn"])
def test_one_agent_is_d3qn(name):
    """ID3QN's agent is D3QN. HAD3QN's critic is, if the agent observes the state and has the critic's values."""
    spec = problems.make_spec([Discrete(4)], [4])
    algo = make(name, spec, **({"actor_lr": 1e-2} if name == "id3qn" else {"critic_lr": 1e-2}))
    state = off_policy_problems.random_state(algo, 0)
    if name == "had3qn":
        state = state._replace(actors=state.actors._replace(params=jax.tree.map(lambda x: x[0], state.critics.params)))
    for i in range(3):
        batch = off_policy_problems.random_batch(algo, i)
        batch = batch._replace(state=batch.observation[..., 0, :], final_state=batch.final_observation[..., 0, :])
        team, hp = read(algo, state), off_policy_problems.numbers_of(state)
        learner, old = (team.critic, team.target_critic) if team.critic else (team.actors[0], team.target_actors[0])
        expected = reference.d3qn(learner, old, reference.choices([4]), transitions(algo, batch, 0), 1e-2, hp)
        state, _ = jax.jit(algo.update)(jax.random.key(i), state, batch)
        found = read(algo, state)
        actual = found.critic or found.actors[0]
        for key, value in expected.params.items():
            np.testing.assert_allclose(actual.params[key], value, 0, 1e-10, err_msg=key)
        if name == "had3qn":  # its individual values, which D3QN does not have
            params = jax.tree.map(lambda x: x[0], state.critics.params)
            state = state._replace(actors=state.actors._replace(params=params))


@pytest.mark.usefixtures("float64")
def test_dueling_gradients_against_finite_differences():
    rng = np.random.default_rng(0)
    module = Dueling(MLP((5,), layer_norm=False), 3, (4,))
    x = rng.normal(size=(6, 4))
    params = jax.tree.map(lambda p: 0.5 * rng.normal(size=p.shape), module.init(jax.random.key(0), x)["params"])
    flat = {name: np.asarray(p) for name, p in flatten_dict(params, sep="/").items()}
    values, backward = reference.dueling(flat, x)
    np.testing.assert_allclose(values, module.apply({"params": params}, x), 0, 1e-12)
    g = rng.normal(size=values.shape)
    for name, gradient in backward(g).items():
        direction = rng.normal(size=gradient.shape)
        ends = [(reference.dueling(flat | {name: flat[name] + h * direction}, x)[0] * g).sum() for h in (1e-6, -1e-6)]
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-6, 1e-6, 1e-8)


# Choices.


def test_the_numbering_of_choices():
    spec = problems.make_spec(TRIO)
    team = TeamChoices(spec)
    assert (team.num_joint, team.counts.tolist()) == (24, [3, 4, 2])
    own = [reference.choices(agent.action_space.choices) for agent in spec.agents]
    actions = np.zeros((24, 3, 2))
    for row, joint in enumerate(itertools.product(*own)):
        for i, choice in enumerate(joint):
            actions[row, i, : len(choice)] = choice
    number = team.indices(jnp.asarray(actions))
    np.testing.assert_array_equal(team.joint(number), np.arange(24))
    np.testing.assert_array_equal(team.action(number), actions)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(24, 24)))
    for agent, choices in enumerate(own):
        found = np.asarray(team.along(values, number, jnp.asarray(agent)))
        for row, joint in enumerate(itertools.product(*own)):
            for m, choice in enumerate(choices):
                other = list(itertools.product(*own)).index((*joint[:agent], choice, *joint[agent + 1 :]))
                assert found[row, m] == values[row, other]


def test_choices_are_available_if_all_their_components_are():
    table = jax.tree.map(lambda x: x[0], choices_of(problems.make_spec([MultiDiscrete((2, 3))]), [0]))
    mask = jnp.asarray([[True, False, True], [True, True, False]])
    np.testing.assert_array_equal(table.available(mask), [True, True, False, False, False, False])


def test_a_component_without_a_choice_gets_its_own_back_and_no_other_does():
    """As in `nn.networks.available_choices`; padded components and choices are ignored."""
    spec = problems.make_spec([Discrete(3), MultiDiscrete((2, 2))])
    algo = make("had3qn", spec, epsilon=1.0)
    state = off_policy_problems.random_state(algo, 0)
    mask = np.zeros((2, 2, 3), bool)  # [N, D, C]
    mask[0, 0, 2] = mask[1, 0, 1] = True
    ts = hajax.make_env("games/hasac_matrix").reset(jax.random.key(0))[1]
    ts = ts._replace(observation=jnp.ones((2, 3)), action_mask=jnp.asarray(mask))
    random = jax.jit(jax.vmap(lambda key: algo.act(key, state, ts, ())[0]))(jax.random.split(jax.random.key(0), 200))
    greedy = algo.act(jax.random.key(0), state, ts, (), True)[0]
    for action in (np.asarray(random), np.asarray(greedy)[None]):
        assert {tuple(a) for a in action[:, 0]} == {(2, 0)}
        assert {tuple(a) for a in action[:, 1]} <= {(1, 0), (1, 1)}
    assert len(np.unique(np.asarray(random)[:, 1, 1])) == 2


@pytest.mark.parametrize(
    ("name", "spaces", "message"),
    [
        ("had3qn", [Discrete(22)] * 3, r"had3qn .* 22 x 22 x 22 = 10648 joint choices; allowed: at most 10000"),
        (
            "mad3qn",
            [MultiDiscrete((20, 20))],
            r"mad3qn .*agent_0 has 400 joint choices, more than 256; allowed: discrete",
        ),
        (
            "id3qn",
            problems.MIXED,
            r"id3qn has a value for every choice of an agent, but agent_2 has a Box; allowed: di",
        ),
    ],
)
def test_too_many_choices_are_refused(name, spaces, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_algorithm(name, problems.make_spec(spaces))
    if name == "had3qn":
        assert hajax.make_algorithm("id3qn", problems.make_spec(spaces)).name == "id3qn"


def test_id3qn_has_no_critic_to_replace():
    with pytest.raises(ValueError, match=r"critic=.* of id3qn, which has none; allowed: None"):
        hajax.make_algorithm("id3qn", problems.make_spec([Discrete(2)]), critic=MLP())


@pytest.mark.parametrize("sizes", [0, "8", (0,), (2.5,)])
def test_head_sizes(sizes):
    with pytest.raises(ValueError, match=r"head_sizes=.*; allowed: "):
        hajax.make_algorithm("had3qn", problems.make_spec([Discrete(2)]), head_sizes=sizes)


# Acting.


def test_every_agent_in_every_environment_throws_its_own_coin():
    spec = problems.make_spec([Discrete(4), Discrete(3)])
    algo = make("had3qn", spec, epsilon=0.3)
    state, num = off_policy_problems.random_state(algo, 0), 40_000
    env = hajax.make_env("games/hasac_matrix")
    mask = jnp.broadcast_to(jnp.asarray(spec.action_layout.choices), (num, 2, 1, 4)).at[:, 0, 0, 1].set(False)
    ts = env.reset(jax.random.key(0))[1]._replace(observation=jnp.ones((num, 2, 3)), action_mask=mask)
    greedy, _, _ = algo.act(jax.random.key(1), state, ts, (), True)
    assert (np.asarray(greedy) == np.asarray(greedy)[0]).all()
    action, _, _ = jax.jit(algo.act)(jax.random.key(1), state, ts, ())
    other = np.asarray(action != greedy)[..., 0]
    # Of the random ones, 1 in 3 is the best choice again: three choices are available to both.
    np.testing.assert_allclose(other.mean(0), 0.3 * 2 / 3, atol=0.01)
    np.testing.assert_allclose((other[:, 0] & other[:, 1]).mean(), 0.2**2, atol=0.005)
    for agent, choices in ((0, (0, 2, 3)), (1, (0, 1, 2))):
        rest = [c for c in choices if c != int(greedy[0, agent, 0])]
        taken, counts = np.unique(np.asarray(action)[other[:, agent], agent, 0], return_counts=True)
        np.testing.assert_array_equal(taken, rest)
        np.testing.assert_allclose(counts / counts.sum(), 0.5, atol=0.02)


# Learning.


def q_values(algo, state):
    """The critic's values of all joint choices, at the state [1.]."""
    params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
    torso = MLP(algo.settings.hidden_sizes, layer_norm=False)
    count = TeamChoices(algo.spec).num_joint
    module = Dueling(torso, count, algo.settings.head_sizes)
    return np.asarray(module.apply({"params": params}, jnp.ones(algo.spec.state_size)))


def test_values_of_a_game_that_goes_on():
    """Three rounds that end in a truncation: Q(a) = r(a) + γ/(1 − γ) r(g), where g is the greedy joint choice.

    g is a Nash equilibrium, and an agent's individual values are Q at the other agent's choice in g.
    """
    env = hajax.make_env("games/hasac_matrix", max_steps=3)
    algo = hajax.make_algorithm(
        "had3qn",
        env,
        hidden_sizes=(16,),
        head_sizes=(),
        batch_size=64,
        buffer_size=4000,
        warmup_steps=500,
        discount=0.5,
        epsilon=0.3,
        actor_lr=5e-3,
        critic_lr=5e-3,
        target_rate=0.05,
    )
    loop = hajax.make_loop(env, algo, num_envs=10, rollout_length=20)
    init, iterate = jax.jit(loop.init), jax.jit(loop.iterate)
    train_state = init(jax.random.key(0))
    for _ in range(60):
        train_state, _ = iterate(train_state)
    state, timestep = train_state.algorithm, train_state.actors.timestep
    action, _, _ = algo.act(jax.random.key(0), state, timestep, (), True)
    one, other = (int(x) for x in action[0, :, 0])
    payoff = hasac_payoff()
    assert one == other  # all equilibria are on the diagonal
    values = q_values(algo, state).reshape(3, 3)
    np.testing.assert_allclose(values, payoff + payoff[one, one], atol=0.2)
    torso = MLP(algo.settings.hidden_sizes, layer_norm=False)
    for agent, its_slice in ((0, values[:, other]), (1, values[one])):
        params = jax.tree.map(lambda x, agent=agent: x[agent], state.actors.params)
        np.testing.assert_allclose(Dueling(torso, 3, ()).apply({"params": params}, jnp.ones(1)), its_slice, atol=0.3)


@pytest.mark.parametrize(("name", "ends"), [("had3qn", {2.0}), ("mad3qn", {0.0, -1.0})])
def test_sequential_replies_converge_and_simultaneous_ones_do_not(name, ends):
    """The trap of heterogeneity (Kuba et al., 2022b, Proposition 2), [[0, 2], [2, −1]], with a converged critic.

    In simultaneous updates both agents reply to the other's previous choice, and the reward alternates between −1 and
    0. In sequential updates they agree.
    """
    env = hajax.make_env("games/trap_of_heterogeneity")
    payoff = trap_of_heterogeneity_payoff()
    algo = hajax.make_algorithm(name, env, hidden_sizes=(8,), head_sizes=(), epochs=60, critic_lr=0.02, batch_size=4)
    joint = jnp.array([[[a], [b]] for a in (0.0, 1.0) for b in (0.0, 1.0)])
    reward = jnp.asarray(payoff.reshape(1, 4, 1))
    ones = jnp.ones((1, 4, 2, 1))
    batch = hajax.off_policy_batch(
        env.spec,
        observation=ones,
        state=ones[:, :, 0],
        action=joint[None],
        reward=reward,
        final_observation=ones,
        final_state=ones[:, :, 0],
        terminated=jnp.ones((1, 4), bool),
    )
    update = jax.jit(algo.update)
    numbers = algo.hyperparameters
    state = jax.jit(algo.init)(jax.random.key(0), numbers.replace(actor_lr=0.0))
    for i in range(300):
        state, _ = update(jax.random.key(i), state, batch)
    np.testing.assert_allclose(q_values(algo, state).reshape(2, 2), payoff, atol=0.05)
    state = state._replace(
        hyperparameters=state.hyperparameters.replace(actor_lr=jnp.asarray(0.05), critic_lr=jnp.asarray(0.0))
    )
    timestep = env.reset(jax.random.key(0))[1]
    earned = []
    for i in range(20):
        state, _ = update(jax.random.key(i), state, batch)
        action, _, _ = algo.act(jax.random.key(0), state, timestep, (), True)
        earned.append(payoff[tuple(np.asarray(action)[:, 0].astype(int))])
    assert set(earned[4:]) == ends


def test_independent_learners_average_over_the_others_choices():
    """The penalty game (Claus and Boutilier, 1998) without an end; all joint choices are equally often in the replay.

    qⁱ(a) = r̄(a) + γ/(1 − γ) max r̄, where r̄ is the mean over the other agent's choices. Both agents take the safe
    choice in the middle, with a reward of 2, although two joint choices have a reward of 10.
    """
    env = hajax.make_env("games/hasac_matrix")  # two agents, three choices each
    payoff = np.array([[10.0, 0.0, -100.0], [0.0, 2.0, 0.0], [-100.0, 0.0, 10.0]])
    joint = jnp.array([[[a], [b]] for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0)])
    ones = jnp.ones((1, 9, 2, 1))
    batch = hajax.off_policy_batch(
        env.spec,
        observation=ones,
        state=ones[:, :, 0],
        action=joint[None],
        reward=jnp.asarray(payoff.reshape(1, 9, 1)),
        final_observation=ones,
        final_state=ones[:, :, 0],
        terminated=jnp.zeros((1, 9), bool),
    )
    sizes = {"hidden_sizes": (8,), "head_sizes": (), "batch_size": 9, "actor_lr": 0.05, "discount": 0.5}
    algo = hajax.make_algorithm("id3qn", env, **sizes, target_rate=0.2, epochs=20)
    update = jax.jit(algo.update)
    state = jax.jit(algo.init)(jax.random.key(0))
    for i in range(300):
        state, _ = update(jax.random.key(i), state, batch)
    action, _, _ = algo.act(jax.random.key(0), state, env.reset(jax.random.key(0))[1], (), True)
    np.testing.assert_array_equal(action[:, 0], [1, 1])
    torso = MLP(algo.settings.hidden_sizes, layer_norm=False)
    mean = payoff.mean(1)
    for agent in range(2):
        params = jax.tree.map(lambda x, agent=agent: x[agent], state.actors.params)
        values = Dueling(torso, 3, ()).apply({"params": params}, jnp.ones(1))
        np.testing.assert_allclose(values, mean + mean.max(), atol=0.05)
