"""The interface of an algorithm, tested for every registered one."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest

import hajax
import hajax.algorithms
from hajax.algorithms import find_algorithm
from hajax.core.algorithm import Algorithm
from hajax.spaces import Box, Discrete, MultiDiscrete

ALGORITHMS = hajax.list_algorithms()
DETERMINISTIC = ("haddpg", "maddpg", "hatd3", "matd3")
DISCRETE = ("had3qn", "mad3qn", "id3qn")  # for discrete actions
SAMPLED = ("maac", "mamd", "mamt")  # their reals are Gaussian, and clipped by the environment, as on-policy ones
OFF_POLICY = (*DETERMINISTIC, *DISCRETE, "hasac", "masac", *SAMPLED)
# Settings for a team of different agents. The default sharing of each algorithm is tested on a team of equal agents.
CASES = [
    (name, kind)
    for name in ALGORITHMS
    for kind in ("mixed team", "team of equals", *(() if name in (*OFF_POLICY, "lola") else ("team with memory",)))
]
# The problems whose updates are compiled and run in `make test`, beside all with the mixed team. The others, which are
# those of similar algorithms up to order and sharing, are traced there and run in `make test-evidence`.
RUN = {(name, "team of equals") for name in ("mappo", "ippo", "hatrpo", "matd3", "mad3qn", "masac")}
RUN |= {(name, "team with memory") for name in ("happo", "ippo")}
# Baselines, which have the initial state of their sequential algorithm.
STARTED_ALIKE = ("mappo", "maa2c", "maddpg", "matd3", "mad3qn", "masac")
BOXES = (Box((-1.0, 0.0), (2.0, 5.0)), Box((-np.inf,), (np.inf,)), Box((-1.0,), (4.0,)))
CHOICES = (Discrete(3), MultiDiscrete((2, 4)), Discrete(2))
MIXTURES = dict.fromkeys(DETERMINISTIC, BOXES) | dict.fromkeys(DISCRETE, CHOICES)


def build(name: str, kind: str) -> Algorithm:
    if name in OFF_POLICY:
        mixed = problems.make_spec(MIXTURES.get(name, problems.MIXED))
        equals = problems.make_spec([Discrete(4) if name in DISCRETE else Box((-2.0,), (3.0,))] * 3)
        return off_policy_problems.make_algorithm(name, mixed if kind == "mixed team" else equals)
    if kind == "mixed team":
        return problems.make_algorithm(name, problems.make_spec(problems.MIXED, problems.MIXED_SIZES), sharing="none")
    if kind == "team with memory":
        return problems.make_algorithm(name, problems.make_spec([Discrete(3)] * 2), memory="gru", chunk_length=3)
    return problems.make_algorithm(name, problems.make_spec([Box((-2.0,), (3.0,))] * 3))


def batch_for(algo: Algorithm):
    """A random batch for the algorithm's kind."""
    if algo.kind == "off_policy":
        return off_policy_problems.random_batch(algo, 0)
    return problems.random_batch(algo, problems.random_state(algo, 0), 0)


def floating(batch):
    """The batch with floating-point numbers of JAX's precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, float) if x.dtype.kind == "f" else x, batch)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case), scope="module")
def problem(request):
    """An algorithm, a state, a batch, and whether the update is to run."""
    name, kind = request.param
    algo, runs = build(name, kind), kind == "mixed team" or request.param in RUN
    random_state = off_policy_problems.random_state if name in OFF_POLICY else problems.random_state
    starts = kind == "mixed team" and name not in STARTED_ALIKE
    state = jax.jit(algo.init)(jax.random.key(0)) if starts else random_state(algo, 0)
    return algo, state, floating(batch_for(algo)), runs


def test_the_name_is_given_and_hyperparameters_are_validated(problem):
    algo, *_ = problem
    assert algo.name in ALGORITHMS
    with pytest.raises(ValueError, match=r"discount=1\.5; allowed: a number >= 0 and <= 1"):
        algo.init(jax.random.key(0), algo.hyperparameters.replace(discount=1.5))


def test_update_is_pure_traced_once_and_keeps_the_states_types(problem):
    algo, state, batch, runs = problem
    if runs:
        check_update(algo, state, batch)
    else:
        new, _ = jax.eval_shape(algo.update, jax.random.key(1), state, batch)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)


@pytest.mark.evidence
@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[1] != "mixed team" and case not in RUN])
def test_the_other_updates_run_too(name, kind):
    """From their initial state."""
    algo = build(name, kind)
    check_update(algo, jax.jit(algo.init)(jax.random.key(0)), floating(batch_for(algo)))


@pytest.mark.evidence
@pytest.mark.parametrize("name", STARTED_ALIKE)
def test_baselines_start_too(name):
    algo = build(name, "mixed team")
    check_update(algo, jax.jit(algo.init)(jax.random.key(0)), floating(batch_for(algo)))


def check_update(algo, state, batch):
    """It is pure, traced once, keeps the state's types, gives finite info and changes the actors."""
    chex.clear_trace_counter()  # counts by name, and every algorithm's function is called `update`
    update = jax.jit(chex.assert_max_traces(algo.update, n=1))
    first, info = update(jax.random.key(1), state, batch)
    again, _ = update(jax.random.key(1), state, batch)
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal_shapes_and_dtypes(first, state)
    second, _ = update(jax.random.key(2), first, batch)
    assert int(second.updates) == 2
    for name, value in info.items():
        assert np.all(np.isfinite(value)), name
    moved = jax.tree.map(lambda a, b: np.any(np.asarray(a) != np.asarray(b)), first.actors.params, state.actors.params)
    assert any(jax.tree.leaves(moved))


def test_act_scores_its_own_action_on_any_batch_axes(problem):
    algo, state, batch, _ = problem
    timestep = problems.timestep_of(batch)
    memory, act = algo.initial_memory(timestep.first.shape), jax.jit(algo.act, static_argnums=4)
    action, extras, _ = act(jax.random.key(3), state, timestep, memory)
    assert action.shape == batch.action.shape[1:]
    if algo.kind == "on_policy":
        assert extras.log_prob.shape == batch.log_prob.shape[1:]
    for space, column in zip((agent.action_space for agent in algo.spec.agents), range(action.shape[1]), strict=True):
        own = np.asarray(action[:, column, : space.num_components])
        if not isinstance(space, Box):
            choices = np.array(space.choices)
            assert np.all((own >= 0) & (own < choices) & (own == own.astype(int))), space
        elif algo.kind == "off_policy" and algo.name not in SAMPLED:
            assert np.all((own >= space.low) & (own <= space.high)), space
    deterministic = [act(jax.random.key(k), state, timestep, memory, True)[0] for k in (4, 5)]
    chex.assert_trees_all_equal(*deterministic)
    alone = jax.tree.map(lambda x: x[0], timestep)
    chex.assert_trees_all_close(
        act(jax.random.key(4), state, alone, algo.initial_memory(()), True)[0], deterministic[0][0], rtol=1e-5
    )


def test_unavailable_actions_are_never_taken(problem):
    algo, state, batch, _ = problem
    if not algo.spec.has_discrete:
        assert all(isinstance(agent.action_space, Box) for agent in algo.spec.agents)
        return
    timestep = problems.timestep_of(batch)
    keys = jax.random.split(jax.random.key(6), 300)
    actions = jax.jit(jax.vmap(lambda key: algo.act(key, state, timestep, algo.initial_memory((3,)))[0]))(keys)
    discrete = algo.spec.action_layout.discrete
    index = np.where(discrete, np.asarray(actions), 0).astype(int)
    available = np.broadcast_to(timestep.action_mask, (*index.shape, algo.spec.num_choices))
    assert np.take_along_axis(available, index[..., None], -1)[..., 0][..., discrete].all()


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "lola"])  # whose agents share nothing
@pytest.mark.parametrize("sharing", ["none", "type", [0, 0, 1]])
def test_every_form_of_sharing(name, sharing):
    deterministic = name in DETERMINISTIC
    spec = problems.make_spec([BOXES[0] if deterministic else Discrete(3)] * 3)
    make = off_policy_problems.make_algorithm if name in OFF_POLICY else problems.make_algorithm
    algo = make(name, spec, sharing=sharing, agent_id=True)
    groups = {"none": 3, "type": 1}.get(sharing if isinstance(sharing, str) else "", 2)
    params = jax.eval_shape(algo.init, jax.random.key(0)).actors.params
    assert {x.shape[0] for x in jax.tree.leaves(params)} == {groups}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("happ", {}, r"unknown algorithm 'happ'; did you mean .*happo.*\?; allowed: happo, hatrpo, haa2c, "),
        ("happo", {"epoch": 3}, r"unknown setting epoch=3 of happo; did you mean epochs"),
        ("happo", {"epochs": 0}, r"epochs=0; allowed: a whole number >= 1"),
        ("happo", {"actor_lr": -1.0}, r"actor_lr=-1\.0; allowed: a number >= 0"),
        ("happo", {"order": "reverse"}, r"order='reverse'; allowed: random, fixed, simultaneous"),
        ("happo", {"memory": "lstm"}, r"memory='lstm'; allowed: none, gru"),
        ("happo", {"chunk_length": 0}, r"chunk_length=0; allowed: a whole number >= 1"),
        ("happo", {"sharing": "all"}, r"sharing='all' puts agent_0 and agent_1 in one group, but their spaces differ"),
        ("a2po", {"order": "simultaneous"}, r"order='simultaneous' of a2po; allowed: random, fixed, greedy"),
        ("a2po", {"guard": "none"}, r"guard='none' of a2po; allowed: interval, which defines it"),
        ("a2po", {"clip": 2.0}, r"clip=2\.0; allowed: a number > 0 and <= 1"),
        ("mappo", {"order": "fixed", "sharing": "none"}, r"order='fixed' of mappo; allowed: simultaneous"),
        ("ippo", {"centralized": True, "sharing": "none"}, r"centralized=True of ippo; allowed: False"),
        ("haddpg", {}, r"action_space=Discrete\(n=3\) of agent_0 does not suit haddpg, .*; allowed: Box"),
        ("hatd3", {"others": "target"}, r"others='target'; allowed: replay, policy"),
        ("hatd3", {"exploration": "epsilon"}, r"exploration='epsilon'; allowed: gaussian, ou"),
        ("hatd3", {"updates_per_step": 0}, r"updates_per_step=0; allowed: a number > 0"),
        ("hatd3", {"target_rate": 0.0}, r"target_rate=0\.0; allowed: a number > 0 and <= 1"),
        ("had3qn", {"epsilon": 1.5}, r"epsilon=1\.5; allowed: a number >= 0 and <= 1"),
        ("mad3qn", {"order": "random"}, r"order='random' of mad3qn; allowed: simultaneous"),
        ("id3qn", {"order": "fixed"}, r"order='fixed' of id3qn; allowed: simultaneous"),
        ("masac", {"order": "random"}, r"order='random' of masac; allowed: simultaneous"),
        ("maac", {"reward_scale": 0.0}, r"reward_scale=0\.0; allowed: a number > 0"),
        ("hasac", {"gumbel_temperature": 0.0}, r"gumbel_temperature=0\.0; allowed: a number > 0"),
        ("hasac", {"expectation": "exact"}, r"expectation='exact' of hasac, but agent_2 has a Box; allowed: sampled"),
        ("maddpg", {"order": "random"}, r"order='random' of maddpg; allowed: simultaneous"),
    ],
)
def test_refusals_name_the_setting_the_value_and_what_is_allowed(name, settings, message):
    spaces = MIXTURES.get(name, problems.MIXED) if settings else problems.MIXED
    with pytest.raises(ValueError, match=message):
        hajax.make_algorithm(name, problems.make_spec(spaces), **settings)


@pytest.mark.parametrize(("name", "allowed"), [("happo", False), ("mappo", False), ("ippo", True)])
def test_a_joint_advantage_needs_the_teams_reward(name, allowed):
    spec = problems.make_spec([Discrete(2)] * 2, reward="individual")
    if allowed:
        assert hajax.make_algorithm(name, spec).spec.reward == "individual"
    else:
        with pytest.raises(ValueError, match=rf"reward='individual' of random does not suit {name}.*allowed: team"):
            hajax.make_algorithm(name, spec)


def test_registering_an_algorithm(monkeypatch):
    """The defaults are those of the function's signature."""
    monkeypatch.setattr(hajax.algorithms, "_registered", {})
    happo, usual, numbers = find_algorithm("happo")
    other = dataclasses.replace(usual, epochs=9), numbers.replace(clip=0.1)

    def mine(spec, settings=other[0], hyperparameters=other[1], **networks):
        return happo(spec, settings, hyperparameters, name="mine", **networks)

    hajax.register_algorithm("mine", mine)
    hajax.register_algorithm("mine", mine)  # as when a notebook cell is run again
    assert "mine" in hajax.list_algorithms()
    made = hajax.make_algorithm("mine", problems.make_spec([Discrete(2)]), minibatches=7)
    assert (made.name, made.settings.epochs, made.settings.minibatches, made.hyperparameters.clip) == (
        "mine",
        9,
        7,
        0.1,
    )
    with pytest.raises(ValueError, match="name='happo' is an algorithm of the library; allowed: any name but happo"):
        hajax.register_algorithm("happo", happo)
    for wrong in ("module:function", lambda spec, settings=usual: None, lambda spec, settings, hyperparameters: None):
        with pytest.raises(TypeError, match=r"allowed: a function .* whose two defaults are instances of dataclasses"):
            hajax.register_algorithm("other", wrong)


def test_a_compound_ratio_needs_the_teams_reward_whatever_the_critics():
    spec = problems.make_spec([Discrete(2)] * 2, reward="individual")
    with pytest.raises(ValueError, match=r"reward='individual' of random does not suit happo.*allowed: team"):
        hajax.make_algorithm("happo", spec, centralized=False)
