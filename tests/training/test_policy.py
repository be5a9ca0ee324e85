"""Acting outside hajax: dictionaries in, native actions out; loading a run; evaluating it."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny import TINY_OFF_POLICY

import hajax
from hajax.cli import main
from hajax.envs import base
from hajax.training.policy import Policy

AGENTS = (
    hajax.AgentSpec("scout", (2, 3), hajax.Discrete(4)),
    hajax.AgentSpec("arm", (9,), hajax.Box(low=(-1.0, 0.0), high=(1.0, 0.1))),
    hajax.AgentSpec("crane", (1,), hajax.MultiDiscrete((2, 3, 5))),
)
SPEC = hajax.EnvSpec("mixed", AGENTS, state_size=4, max_steps=10)
ALGO = hajax.make_algorithm("happo", SPEC, hidden_sizes=(8,), std_scale=2.0)  # wide enough to be clipped
STATE = jax.jit(ALGO.init)(jax.random.key(0))

pytestmark = pytest.mark.usefixtures("shared_programs")


def observations(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {agent.name: rng.normal(size=agent.observation_shape) for agent in AGENTS}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(ALGO, STATE)


def test_a_state_with_a_seed_axis_is_refused():
    several = jax.tree.map(lambda x: x[None].repeat(3, 0), STATE)
    with pytest.raises(ValueError, match="state has 3 seeds; allowed: that of one"):
        Policy(ALGO, several)


def test_actions_are_native(policy):
    actions, memory = policy(observations(), policy.initial_memory())
    assert memory == ()
    assert list(actions) == ["scout", "arm", "crane"]
    assert type(actions["scout"]) is int
    assert actions["arm"].dtype == np.float32
    assert actions["arm"].shape == (2,)
    assert actions["crane"].dtype == np.int64
    assert actions["crane"].shape == (3,)
    assert 0 <= actions["scout"] < 4
    assert np.all((actions["crane"] >= 0) & (actions["crane"] < (2, 3, 5)))


@pytest.mark.parametrize("key", [None, jax.random.key(5)], ids=["mode", "sample"])
def test_it_acts_as_the_algorithm_does(policy, key):
    given = observations()
    padded = base.pad_observations(SPEC, [given[agent.name].astype(np.float32) for agent in AGENTS])
    shown = base.timestep(SPEC, padded, np.zeros(4, np.float32))
    expected, _, _ = ALGO.act(jax.random.key(0) if key is None else key, STATE, shown, (), key is None)
    expected = np.asarray(base.clip_action(SPEC, expected))
    actions, _ = policy(given, key=key)
    assert actions["scout"] == expected[0, 0]
    np.testing.assert_allclose(actions["arm"], expected[1, :2], rtol=1e-6)
    np.testing.assert_array_equal(actions["crane"], expected[2])


def test_without_a_key_it_repeats_itself_and_with_keys_it_explores(policy):
    first, again = policy(observations())[0], policy(observations())[0]
    np.testing.assert_equal(first, again)
    drawn = {policy(observations(), key=jax.random.key(k))[0]["scout"] for k in range(30)}
    assert drawn == {0, 1, 2, 3}


def test_box_actions_stay_within_their_bounds(policy):
    arms = np.array([policy(observations(), key=jax.random.key(k))[0]["arm"] for k in range(200)])
    assert arms[:, 0].min() >= -1
    assert arms[:, 0].max() <= 1
    assert arms[:, 1].min() == 0  # clipped: the Gaussian is wider than this dimension
    assert arms[:, 1].max() == np.float32(0.1)


def test_observations_may_be_flat_or_float32(policy):
    flat = {name: x.ravel().astype(np.float32) for name, x in observations().items()}
    np.testing.assert_equal(policy(flat)[0], policy(observations())[0])


def test_absent_agents_are_omitted_and_change_nothing_for_the_others(policy):
    given = observations()
    everyone, _ = policy(given)
    some, _ = policy({name: given[name] for name in ("crane", "scout")})
    assert set(some) == {"crane", "scout"}
    assert some["scout"] == everyone["scout"]
    np.testing.assert_array_equal(some["crane"], everyone["crane"])


def test_masks_are_obeyed(policy):
    for only in range(4):
        mask = {"scout": np.eye(4)[only], "crane": (np.array([0, 1]), np.array([1, 0, 1]), np.eye(5)[only])}
        for key in (None, *jax.random.split(jax.random.key(1), 5)):
            actions, _ = policy(observations(), action_mask=mask, key=key)
            assert actions["scout"] == only
            assert actions["crane"][0] == 1
            assert actions["crane"][1] != 1
            assert actions["crane"][2] == only
    joined = {"crane": np.array([0, 1, 0, 1, 0, 0, 0, 0, 0, 1])}
    np.testing.assert_array_equal(policy(observations(), action_mask=joined)[0]["crane"], [1, 1, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observations": {"scot": np.zeros(6)}}, r"unknown agent 'scot'; did you mean scout\?; allowed: scout, arm"),
        ({"observations": {"arm": np.zeros(8)}}, r"observation of arm has 8 entries; allowed: 9"),
        ({"observations": {}, "state": np.zeros(3)}, r"state has 3 entries; allowed: 4"),
        ({"observations": {}, "action_mask": {"scout": np.ones(5)}}, r"action_mask of scout has 5 entries; allowed: 4"),
        ({"observations": {}, "action_mask": {"scout": np.zeros(4)}}, r"action_mask of scout leaves no choice"),
    ],
)
def test_what_does_not_fit_is_named(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        policy(**arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training of a team whose agents differ, on an environment that mpe2 has too."""
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = ["env=mpe/simple_speaker_listener", "num_seeds=2", "seed=3", "total_steps=4000", "num_envs=8"]
    small = ["rollout_length=50", "algo.hidden_sizes=[16]", "eval.episodes=20", "eval_interval=2000"]
    assert main(["train", *settings, *small, "algo.epochs=2", f"out_dir={path}", "progress=false"]) == 0
    return path


def play(policy: Policy, seeds: range) -> np.ndarray:
    """Returns of episodes in mpe2's own environment, the sum over agents, `[episodes]`."""
    from mpe2 import simple_speaker_listener_v4

    returns = []
    env = simple_speaker_listener_v4.parallel_env(max_cycles=25)
    for seed in seeds:
        given, _ = env.reset(seed=seed)
        memory, total = policy.initial_memory(), 0.0
        while env.agents:
            actions, memory = policy(given, memory)
            given, rewards, *_ = env.step(actions)
            total += sum(rewards.values())
        returns.append(total)
    return np.array(returns)


def test_it_acts_for_several_environments_as_for_each_alone(policy):
    algo = hajax.make_algorithm("happo", SPEC, hidden_sizes=(8,), memory="gru")
    state = jax.jit(algo.init)(jax.random.key(1))
    alone, together = Policy(algo, state), Policy(algo, state, num_envs=3)
    rows = [{name: x for name, x in observations(k).items() if name != "arm"} for k in range(3)]
    masks = [
        {"scout": np.eye(4, dtype=bool)[k], "crane": ([True, True], [True, False, True], [True] * 5)} for k in range(3)
    ]
    memories, memory = [None] * 3, None
    for _ in range(2):
        given = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        parts = tuple(np.stack([mask["crane"][d] for mask in masks]) for d in range(3))
        stacked = {"scout": np.stack([mask["scout"] for mask in masks]), "crane": parts}
        actions, memory = together(given, memory, action_mask=stacked)
        assert list(actions) == ["scout", "crane"]
        assert (actions["scout"].tolist(), actions["crane"].shape) == ([0, 1, 2], (3, 3))
        for k in range(3):
            own, memories[k] = alone(rows[k], memories[k], action_mask=masks[k])
            np.testing.assert_array_equal(actions["crane"][k], own["crane"])
            jax.tree.map(lambda x, y, k=k: np.testing.assert_allclose(x[k], y, atol=1e-6), memory, memories[k])
    with pytest.raises(ValueError, match=r"observation of scout has shape \(2, 3\); allowed: \(3, …\), for num_envs"):
        together({"scout": rows[0]["scout"]})
    seen, states = lambda state: jax.numpy.tile(state[:3], (3, 3)), np.arange(12.0).reshape(3, 4)
    whole = [Policy(algo, state, seen)(state=row)[0] for row in states]
    for name, every in Policy(algo, state, seen, num_envs=3)(state=states)[0].items():
        np.testing.assert_allclose(every, [actions[name] for actions in whole], rtol=1e-5)
    with pytest.raises(ValueError, match="num_envs=0; allowed"):
        Policy(algo, state, num_envs=0)


def test_a_loaded_policy_scores_in_mpe2_what_it_scores_here(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "200", "--seed", "4"]) == 0
    assert "200 episodes per seed, deterministic" in capsys.readouterr().out
    report = json.loads((run / "evaluation.json").read_text())
    here = np.array(report["episode_returns"][0])
    there = play(hajax.load_policy(run, seed=4), range(200))
    assert report["seeds"] == [4]
    assert here.shape == there.shape == (200,)
    difference = there.mean() - here.mean()
    error = np.sqrt(there.var(ddof=1) / 200 + here.var(ddof=1) / 200)
    assert abs(difference) < 1.96 * error
    assert error < 0.1 * abs(here.mean())  # the interval says something


def test_seeds_and_checkpoints_are_chosen(run):
    given = {"speaker_0": np.eye(3)[0], "listener_0": np.linspace(-1, 1, 11)}

    def parameters(**chosen):
        policy = hajax.load_policy(run, **chosen)
        assert set(policy(given)[0]) == {"speaker_0", "listener_0"}
        return policy.state.actors.params

    first, other, early = parameters(), parameters(seed=4), parameters(checkpoint=2000)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, parameters(seed=3, checkpoint="last")))
    for different in (other, early):
        assert not jax.tree.all(jax.tree.map(np.array_equal, first, different))


def test_statistics_of_observations_are_loaded_with_the_policy(tmp_path):
    """An off-policy run's: the policy is that of the plain algorithm, shown what was seen in their units."""
    path = tmp_path / "run"
    settings = [*TINY_OFF_POLICY, "total_steps=104", "algo.normalize_observations=true", f"out_dir={path}"]
    assert main(["train", *settings]) == 0
    policy = hajax.load_policy(path, seed=1)
    moments = policy.state.moments.observation
    mean, std = moments.mean, np.sqrt(moments.deviation / moments.weight[:, None] + 1e-8)
    plain = Policy(
        hajax.make_algorithm("hatd3", policy.spec, hidden_sizes=(8,), batch_size=16, buffer_size=400),
        policy.state._replace(moments=None),
    )
    seen = np.random.default_rng(0).normal(size=mean.shape)
    names = [agent.name for agent in policy.spec.agents]
    actions, _ = policy(dict(zip(names, seen, strict=True)))
    expected, _ = plain(dict(zip(names, (seen - mean) / std, strict=True)))
    as_it_is, _ = plain(dict(zip(names, seen, strict=True)))
    for name in names:
        np.testing.assert_allclose(actions[name], expected[name], rtol=1e-4, atol=1e-5)
        assert np.abs(actions[name] - as_it_is[name]).max() > 1e-3


def test_evaluating_again_gives_the_same_and_every_seed(run, tmp_path, capsys):
    for name in ("a.json", "b.json"):
        assert main(["evaluate", str(run), "--episodes=5", "--stochastic", f"--output={tmp_path / name}"]) == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["seeds"], report["step"], report["deterministic"]) == ([3, 4], 4000, False)
    assert np.shape(report["episode_returns"]) == (2, 5)
    np.testing.assert_allclose(report["return"]["per_seed"], np.mean(report["episode_returns"], axis=1))
    assert report["episode_length"] == [25, 25]


REFUSALS = {
    "no directory": (["evaluate"], "0 directories given", "1 directory"),
    "two directories": (["evaluate", "{run}", "{run}"], "2 directories given", "1 directory"),
    "not a run": (["evaluate", "{tmp}"], "holds no run", "a directory that `hajax train` wrote"),
    "unknown seed": (["evaluate", "{run}", "--seed", "5"], "seed=5", "3, 4"),
    "unknown checkpoint": (["evaluate", "{run}", "--checkpoint", "17"], "checkpoint=17", "last, 0, 2000, 4000"),
    "no episodes": (["evaluate", "{run}", "--episodes", "0"], "--episodes=0", "a whole number >= 1"),
    "words": (["evaluate", "{run}", "--episodes", "many"], "--episodes=many", "a whole number >= 1"),
    "unknown flag": (["evaluate", "{run}", "--episode", "4"], "--episode is not a flag", "did you mean --episodes"),
    "no such place": (["evaluate", "{run}", "--output", "{tmp}/no/x.json"], "there is no directory", "one that exists"),
    "value left out": (["evaluate", "{run}", "--seed"], "--seed has no value", "--seed VALUE"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, run, tmp_path, capsys):
    arguments, given, allowed = REFUSALS[case]
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    assert main([text.format(run=run, tmp=tmp_path) for text in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("hajax evaluate: ")
    assert given in err
    assert allowed in err
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*")) == before


def test_a_damaged_checkpoint_is_not_loaded(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    arrays = tmp_path / "copy" / "checkpoints" / f"{4000:012d}" / "arrays"
    largest = max((file for file in arrays.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        hajax.load_policy(tmp_path / "copy")
    assert hajax.load_policy(tmp_path / "copy", checkpoint=2000).spec.num_agents == 2


@pytest.mark.parametrize(
    ("state", "given"), [(None, "no state"), (np.zeros(4), "a state; .* does not say what agents")]
)
def test_there_must_be_something_to_observe(policy, state, given):
    with pytest.raises(ValueError, match=f"observations=None, and {given}.*allowed: each agent's observation"):
        policy(state=state)
