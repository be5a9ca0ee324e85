"""The benchmarks: every row runs and is reported, memory does not grow with a run, the yardstick is a correct PPO."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from hajax.runs import config

pytestmark = pytest.mark.evidence
ROOT = Path(__file__).resolve().parents[2]

import arithmetic  # noqa: E402
import attention_cost  # noqa: E402
import budget_runs  # noqa: E402
import environment_speeds  # noqa: E402
import foreign  # noqa: E402
import gpu  # noqa: E402
import ippo  # noqa: E402
import kept_runs  # noqa: E402
import mamujoco  # noqa: E402
import mamujoco_runs  # noqa: E402
import matd3  # noqa: E402
import mpe  # noqa: E402
import mpe_controllers  # noqa: E402
import mujoco_in_c  # noqa: E402
import off_policy  # noqa: E402
import rows  # noqa: E402
import simulators  # noqa: E402
import sisl_runs  # noqa: E402
import smax_runs  # noqa: E402
import tabulate  # noqa: E402
import transfer  # noqa: E402


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The numbers of the smallest run, and its table."""
    output = tmp_path_factory.mktemp("bench") / "throughput.json"
    command = [sys.executable, "benchmarks/throughput.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(output.read_text(encoding="utf-8")), run.stdout


def test_every_row_is_timed_and_reported(quick):
    result, table = quick
    assert result["device"]["platform"] == jax.devices()[0].platform
    assert set(result["versions"]) == {"jax", "jaxlib", "flax", "optax", "jaxmarl"}
    (cell,) = result["cells"]
    assert set(cell["rows"]) == {*rows.ROWS, "ippo_in_turn"}
    for row in cell["rows"].values():
        rate = row["steps_per_second"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert row["compile_seconds"] > 0
        assert row["program_bytes"]["total"] > 0
    assert all(cell["rows"][name]["gflop_per_iteration"] > 0 for name in ("happo", "haa2c", "mappo", "ippo"))
    assert cell["rows"]["random"]["gflop_per_iteration"] == 0
    against = cell["ratios"]["against"]
    medians = {name: cell["rows"][name]["steps_per_second"]["median"] for name in ("ippo", "ippo_in_turn")}
    assert medians[against] == max(medians.values())
    for name in ("happo_over_ippo", "mappo_over_ippo", "hatrpo_over_happo"):
        assert 0 < cell["ratios"][name]["min"] <= cell["ratios"][name]["median"] <= cell["ratios"][name]["max"]
    assert result["arithmetic"]["peak"] > 0
    header, line = next(
        (a, b) for a, b in zip(table.splitlines(), table.splitlines()[1:], strict=False) if "agents" in a
    )
    assert len(header) == len(line)
    assert f"{cell['rows']['happo']['steps_per_second']['median']:,.0f}" in line
    assert f" {cell['rows']['happo']['compile_seconds']}, " in line


def test_memory_is_flat_in_the_number_of_iterations(quick):
    short, long = quick[0]["memory"].values()
    assert long["program_bytes"]["temporaries"] == short["program_bytes"]["temporaries"]
    assert long["metrics_bytes"] == 100 * short["metrics_bytes"]  # 2 and 200 iterations
    growth = long["program_bytes"]["total"] - short["program_bytes"]["total"]
    assert growth == long["metrics_bytes"] - short["metrics_bytes"]
    assert long["metrics_bytes"] / 200 < 200  # bytes per iteration
    assert long["peak_growth_bytes"] < 8 * 2**20


def test_off_policy_rows_are_timed_and_reported(quick):
    result, table = quick
    (cell,) = result["off_policy"]
    assert set(cell["rows"]) == set(off_policy.ROWS)
    for row in cell["rows"].values():
        assert 0 < row["steps_per_second"]["min"] <= row["steps_per_second"]["median"] <= row["steps_per_second"]["max"]
    # The same products but for the rollouts': nothing of an update is missing where it is bare.
    for name in off_policy.BARE:
        whole, bare = (cell["rows"][row]["gflop_per_iteration"] for row in (name, f"{name}_bare"))
        assert 0.9 * whole < bare < whole
    assert f"hasac {cell['rows']['hasac']['steps_per_second']['median']:,.0f}" in table
    memory = result["replay_memory"]
    assert memory["stated_bytes"] == memory["array_bytes"] > 0
    assert memory["program_bytes"]["outputs"] - memory["array_bytes"] < 1000  # pointers


def test_off_policy_rates_and_ratios():
    """Of invented seconds: 100 steps and 10 steps of the critics in 2 s with its environment, in 1 s without."""

    def row(seconds):
        timed = types.SimpleNamespace(seconds=[seconds] * 3, compile_seconds=1.0, memory={})
        return off_policy.Measured(timed, 100, 10, 4_000_000_000)

    seconds = {"hatd3": 2.0, "hatd3_bare": 1.0, "matd3": 1.0, "hasac": 5.0, "hasac_bare": 4.0}
    seconds |= {"yardstick": 1.5, "yardstick_256": 3.0}
    report = off_policy.report({name: row(x) for name, x in seconds.items()}, 1)
    hatd3, ratios = report["rows"]["hatd3"], report["ratios"]
    assert (hatd3["steps_per_second"]["median"], hatd3["critic_steps_per_second"]["median"]) == (50, 5)
    assert (hatd3["gflop_per_iteration"], hatd3["gflop_per_second"]) == (4, 2)
    assert (ratios["hatd3_over_bare"]["median"], ratios["hasac_over_bare"]["median"]) == (0.5, 0.8)
    assert (ratios["hatd3_over_yardstick"]["median"], ratios["matd3_over_yardstick"]["median"]) == (0.75, 1.5)
    assert ratios["hasac_over_yardstick"]["median"] == 0.6
    assert ratios["over_pytorch"] == {"hatd3": round(50 / 400, 1), "hasac": round(20 / 150, 1)}
    assert "over_pytorch" not in off_policy.report({name: row(x) for name, x in seconds.items()}, 8)["ratios"]


class Walk(NamedTuple):
    """Where two agents stand."""

    place: jax.Array  # [2, 1]
    steps: jax.Array


def walk():
    """Two agents on a line that earn the more the nearer they are to −½ and ½; ten steps."""
    goal = jnp.array([[-0.5], [0.5]])

    def reset(key):
        place = jax.random.uniform(key, (2, 1), minval=-1, maxval=1)
        return Walk(place, jnp.zeros((), int)), place

    def step(key, state, action):
        place = jnp.clip(state.place + 0.3 * action, -1, 1)
        done = state.steps == 9
        after, shown = reset(key)
        reward = -jnp.square(place - goal).sum()
        kept = jax.tree.map(lambda x, y: jnp.where(done, x, y), after, Walk(place, state.steps + 1))
        return kept, jnp.where(done, shown, place), reward, done

    return matd3.Env(2, 1, 1, reset, step)


def test_the_off_policy_yardstick_learns():
    config = matd3.Config(
        num_envs=10,
        rollout_length=20,
        warmup_steps=500,
        buffer_size=5000,
        batch_size=64,
        hidden_sizes=(32,),
        actor_lr=3e-3,
        critic_lr=3e-3,
        discount=0.5,
        target_rate=0.05,
    )
    algo = matd3.make_matd3(walk(), config)
    state = jax.jit(lambda key: jax.lax.fori_loop(0, 60, lambda _, s: algo.iterate(s), algo.init(key)))(
        jax.random.key(0)
    )
    assert int(state.stored) == 500 + 60 * 200
    reward = np.asarray(state.ring.reward)
    assert reward.mean() > -0.2
    untrained = jax.jit(algo.init)(jax.random.key(0))
    assert np.asarray(untrained.ring.reward)[:500].mean() < -0.5  # of random actions


def test_the_off_policy_yardstick_s_targets_and_losses_are_matd3_s():
    """Against their formulas, written out in NumPy."""
    config = matd3.Config(
        num_envs=2,
        warmup_steps=8,
        buffer_size=8,
        hidden_sizes=(4,),
        discount=0.7,
        target_noise=0.6,
        target_noise_clip=0.3,
    )
    algo = matd3.make_matd3(walk(), config)
    state = jax.jit(algo.init)(jax.random.key(0))
    other = jax.jit(algo.init)(jax.random.key(1))
    state = state._replace(target_actors=other.actors, target_critics=other.critics)
    rng = np.random.default_rng(0)
    batch = jax.tree.map(np.asarray, state.ring)._replace(done=rng.random(8) < 0.5)
    noise = rng.normal(size=(8, 2, 1))
    assert 0 < batch.done.sum() < 8

    def network(params, which, x):
        layers = jax.tree.map(lambda p: np.asarray(p)[which], params)["params"]
        hidden = np.maximum(x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"], 0)
        return hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]

    def actions(params, observation):
        return np.stack([np.tanh(network(params, i, observation[:, i])) for i in range(2)], 1)

    def value(params, copy, observation, action):
        return network(params, copy, np.concatenate([observation.reshape(8, -1), action.reshape(8, -1)], -1))[:, 0]

    smoothed = np.clip(actions(state.target_actors, batch.next_observation) + np.clip(0.6 * noise, -0.3, 0.3), -1, 1)
    after = np.minimum(*(value(state.target_critics, copy, batch.next_observation, smoothed) for copy in (0, 1)))
    expected = batch.reward + 0.7 * np.where(batch.done, 0, after)
    np.testing.assert_allclose(algo.targets(state, batch, noise), expected, rtol=1e-5)
    own, loss = actions(state.actors, batch.observation), 0.0
    for agent in range(2):
        acting = np.where((np.arange(2) == agent)[:, None], own, batch.action)
        loss -= value(state.critics, 0, batch.observation, acting).mean()
    np.testing.assert_allclose(algo.actor_loss(state.actors, state.critics, batch), loss, rtol=1e-5)


def bandit(payoff):
    """One agent, one step per episode: the reward is the payoff of its action."""

    def observe():
        return jnp.ones((1, 1))

    def step(key, state, action):
        return state, observe(), jnp.asarray(payoff)[action], jnp.asarray(True)

    return ippo.Env(1, 1, len(payoff), lambda key: (jnp.zeros(()), observe()), step)


def test_the_yardstick_learns_the_best_arm():
    config = ippo.Config(num_envs=16, rollout_length=8, hidden_sizes=(8,), learning_rate=1e-2, anneal_updates=40)
    _, info = jax.jit(ippo.make_train(bandit([0.0, 0.5, 1.0]), config, 40))(jax.random.key(0))
    np.testing.assert_allclose(info["episode_return"][0], 0.5, atol=0.1)  # uniform at first
    assert info["episode_return"][-1] > 0.9
    assert info["value_loss"][-1] < info["value_loss"][0]


def test_the_yardstick_s_loss_is_ppo_s():
    """Against its formula, written out for one minibatch in NumPy."""
    config = ippo.Config(hidden_sizes=(4,))
    env = bandit([0.0, 1.0, 2.0])
    algo = ippo.make_ippo(env, config)
    params = algo.init(jax.random.key(0)).params
    rng = np.random.default_rng(0)
    batch, action = 32, rng.integers(3, size=32)
    observation, value, advantage, target = rng.normal(size=(batch, 1)), *rng.normal(size=(3, batch))
    old_log_prob = np.log(1 / 3) + 0.4 * rng.normal(size=batch)
    samples = ippo.Transition(observation, action, old_log_prob, value, None, None)
    total, info = algo.loss(params, samples, advantage, target)

    def forward(layers):
        hidden = np.tanh(observation @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
        return np.asarray(hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"], float)

    logits, new_value = forward(params["actor"]["params"]), forward(params["critic"]["params"])[:, 0]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ratio = np.exp(log_probs[np.arange(batch), action] - old_log_prob)
    assert np.mean(np.abs(ratio - 1) > 0.2) > 0.2  # the clip matters
    standard = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy_loss = -np.minimum(ratio * standard, np.clip(ratio, 0.8, 1.2) * standard).mean()
    clipped = value + np.clip(new_value - value, -0.2, 0.2)
    value_loss = 0.5 * np.maximum((new_value - target) ** 2, (clipped - target) ** 2).mean()
    entropy = -(np.exp(log_probs) * log_probs).sum(-1).mean()
    expected = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    for name, number in expected.items():
        np.testing.assert_allclose(info[name], number, rtol=1e-4)
    np.testing.assert_allclose(total, policy_loss + 0.5 * value_loss - 0.01 * entropy, rtol=1e-4)


def test_matrix_products_of_happo_are_counted_as_by_hand():
    schedule, num_agents = rows.jaxmarl_mpe(num_envs=2, rollout_length=4, hidden_size=8), 2
    happo = rows.make_row("happo", schedule, num_agents)
    counted = arithmetic.matmul_flops(happo.iterate, jax.eval_shape(happo.init, jax.random.key(0)))

    def forward(inputs, outputs):
        return 2 * (inputs * 8 + 8 * 8 + 8 * outputs)

    def gradient(inputs, outputs):  # weights like forward; inputs likewise, but not of the first layer
        return 3 * forward(inputs, outputs) - 2 * inputs * 8

    epochs, actor, critic = 4, (6 * num_agents, 5), (6 * num_agents**2, 1)
    actors = num_agents * (2 * forward(*actor) + epochs * gradient(*actor))  # to act, and for the compound ratio
    assert counted == schedule.steps * (actors + 2 * forward(*critic) + epochs * gradient(*critic))


def test_products_are_counted_inside_loops_and_branches():
    matrix = jnp.ones((3, 4))

    def looped(x):
        return jax.lax.scan(
            lambda x, _: (jax.lax.cond(x.sum() > 0, lambda x: x @ (matrix.T @ matrix), jnp.copy, x), None), x, None, 7
        )

    assert arithmetic.matmul_flops(looped, jnp.ones((2, 4))) == 7 * (2 * 4 * 3 * 4 + 2 * 2 * 4 * 4)
    with pytest.raises(ValueError, match="unknown length"):
        arithmetic.matmul_flops(
            lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x), jnp.ones((2, 2))
        )


def test_runs_are_tabulated_by_return_or_another_metric(tmp_path):
    values = {"mean": 0.75, "iqm": 0.75, "ci95": [0.5, 1.0], "per_seed": [0.5, 1.0]}
    summary = {"total_steps": 2000, "eval_return": values, "eval_metrics": {"win": values}}
    run = tmp_path / "happo"
    run.mkdir()
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert tabulate.row(run, "return") == "| `happo` | 2,000 | 0.5, 1.0 | 0.8 | 0.8 [0.5, 1.0] |"
    assert tabulate.row(run, "win") == "| `happo` | 2,000 | 0.500, 1.000 | 0.750 | 0.750 [0.500, 1.000] |"
    alone = summary | {"eval_return": {"mean": 0.5, "iqm": 0.5, "ci95": None, "per_seed": [0.5]}}
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "summary.json").write_text(json.dumps(alone), encoding="utf-8")
    assert tabulate.row(tmp_path / "alone", "return") == "| `alone` | 2,000 | 0.5 | 0.5 | 0.5 |"
    with pytest.raises(SystemExit, match=r"metric=wins of .*happo; allowed: return, win$"):
        tabulate.row(run, "wins")
    # Off-policy: the first evaluation, of what nobody has taught yet, comes after the warm-up.
    table = "step,seed,eval_return_mean,eval_win\n5,0,-9,0\n5,1,-9,0\n10,0,1,0.5\n10,1,2,1\n20,0,2,0.75\n20,1,4,1\n"
    (run / "metrics.csv").write_text(table, encoding="utf-8")
    assert tabulate.transfer_row(ROOT / "docs/results/spread_discrete/hasac") == (
        "| `hasac` | -51.26 | -50.82 | +0.44 [-1.22, +2.10] | -0.80, -0.34, +2.45 | 3 of 3 |"
    )
    assert tabulate.average_row(run, "return") == "| `happo` | 1.5, 3.0 | 2.2 |"
    assert tabulate.average_row(run, "win") == "| `happo` | 0.625, 1.000 | 0.812 |"
    assert tabulate.average_row(run, "return", 11) == "| `happo` | 2.0, 4.0 | 3.0 |"
    with pytest.raises(SystemExit, match=r"since=21, but .*happo ends before; allowed: at most the steps"):
        tabulate.average_row(run, "return", 21)
    with pytest.raises(SystemExit, match=r"metric=wins of .*happo: no column eval_wins in metrics.csv"):
        tabulate.average_row(run, "wins")


def test_the_replay_is_measured_beside_flashbax(tmp_path):
    output = tmp_path / "replay.json"
    command = [sys.executable, "benchmarks/replay.py", "--size", "400", "--envs", "2", "--batch", "8", "--repeats", "2"]
    run = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text(encoding="utf-8"))
    assert set(result["steps"]) == {"1", "20"}
    for found in result["steps"].values():
        assert found["flashbax / hajax, bytes per transition"] > 1.5
        for name in ("hajax", "flashbax"):
            assert found[name]["store_seconds"] > 0
            assert found[name]["sample_seconds"] > 0
        assert found["flashbax / hajax, sample"]["min"] <= found["flashbax / hajax, sample"]["max"]


def pages_of_results():
    """The text of all pages of docs/results, with ASCII minus signs."""
    pages = sorted((ROOT / "docs" / "results").glob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\N{MINUS SIGN}", "-")


def test_the_pages_of_results_have_the_numbers_of_their_runs():
    """Every run's row is on a page of docs/results as `tabulate.py` prints it, and so is its score in mpe2."""
    results = ROOT / "docs" / "results"
    page = pages_of_results()
    directories = [path.parent for path in sorted(results.glob("*/*/summary.json"))]
    assert len(directories) > 40
    for directory in directories:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        row = tabulate.row(directory, "win" if "win" in summary.get("eval_metrics", {}) else "return")
        name, _, numbers = row.partition(" | ")
        assert re.search(rf"^{re.escape(name)}( \(.*\))? \| {re.escape(numbers)}", page, re.MULTILINE), directory
        if (directory / "transfer.json").exists():
            played = " | ".join(tabulate.transfer_row(directory).split(" | ")[:5])
            assert f"\n{played} |" in page, directory
    listed = [name for name in mpe.runs() if "_ablation/" not in name]
    assert all((results / name / "transfer.json").exists() for name in listed)


def test_the_table_of_compound_ratios_is_that_of_the_runs():
    results = ROOT / "docs" / "results"
    page = (results / "guards.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+/\w+)` \|.*\|$", page, re.MULTILINE)
    assert {"3s5z/hatrpo", "3s5z_guarded/hatrpo"} <= set(rows)
    for name in rows:
        assert f"\n{tabulate.ratio_row(results / name)}\n" in page, name


def test_the_row_of_a_compound_ratio(tmp_path):
    columns = "step,seed,train_compound_ratio,train_compound_ratio_max_2,train_effective_samples_2,train_guarded_2"
    file = tmp_path / "3m" / "happo" / "metrics.csv"
    file.parent.mkdir(parents=True)
    file.write_text(f"{columns}\n0,0,,,,\n9,0,1.5,4,0.5,0.1\n18,0,3,8,0.75,0.2\n", encoding="utf-8")
    assert tabulate.ratio_row(file.parent) == "| `3m/happo` | 2.25, 3.00 | 6.0 | 0.62, 0.50 | 15.0% |"
    older = "\n".join(line.rsplit(",", 3)[0] for line in file.read_text(encoding="utf-8").splitlines())
    file.write_text(f"{older}\n", encoding="utf-8")
    assert tabulate.ratio_row(file.parent) == "| `3m/happo` | 2.25, 3.00 |  |  |  |"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "mamujoco/ant_4x2", "version": "v4"}, "env=mamujoco/ant_4x2 of version v4"),
        ({"name": "mamujoco/many_agent_ant_2x3", "version": "v5"}, "env=mamujoco/many_agent_ant_2x3 of version v5"),
        ({"name": "mamujoco/ant_2x4d", "version": "v5"}, "env=mamujoco/ant_2x4d of version v5"),
        ({"name": "mamujoco/ant_8x1", "version": "v5"}, "env=mamujoco/ant_8x1 of version v5"),
        ({"name": "smax/3m"}, "env=smax/3m"),
    ],
)
def test_what_cannot_be_played_elsewhere_is_refused(settings, named):
    with pytest.raises(SystemExit, match=f"^{named} has no counterpart; allowed: "):
        transfer.elsewhere(settings)


def test_kept_runs_are_trained_played_elsewhere_and_copied(tmp_path, monkeypatch, capsys):
    calls = []

    def run(command, check):
        calls.append([str(part) for part in command])
        if "train" in calls[-1]:
            directory = Path(calls[-1][-2].removeprefix("out_dir="))
            directory.mkdir(parents=True)
            for name in set(kept_runs.KEPT) - {"transfer.json"}:
                (directory / name).write_text(f"seed: 0\nout_dir: {directory}\nresume: auto\n", encoding="utf-8")
        else:
            Path(calls[-1][-1]).write_text("{}", encoding="utf-8")

    monkeypatch.setattr(kept_runs, "ROOT", tmp_path)
    monkeypatch.setattr(kept_runs, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(kept_runs.subprocess, "run", run)
    listed = {"task/one": ["algo=happo"], "task/two": ["algo=mappo"]}

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        kept_runs.main("What.", "here", listed, {"task/one": 7})

    main("task/one")
    assert [call[3:] for call in calls[:1]] == [
        ["train", "algo=happo", f"out_dir={tmp_path / 'runs/here/task/one'}", "resume=auto"]
    ]
    assert calls[1][2:5] == [str(tmp_path / "runs/here/task/one"), "--episodes", "7"]
    kept = tmp_path / "results" / "task" / "one"
    assert {path.name for path in kept.iterdir()} == set(kept_runs.KEPT)
    assert (kept / "config.yaml").read_text() == "seed: 0\nout_dir: docs/results/task/one\nresume: false\n"
    # What is there is left alone, unless it is asked for, and so is what another process makes.
    (tmp_path / "runs/here/task/two.begun").mkdir()
    main()
    assert len(calls) == 2
    assert "task/two: another process has it" in capsys.readouterr().out
    (tmp_path / "runs/here/task/two.begun").rmdir()
    main()
    assert len(calls) == 3
    assert not (tmp_path / "results/task/two/transfer.json").exists()
    assert not list((tmp_path / "runs/here/task").glob("*.begun"))
    main("--list")
    assert capsys.readouterr().out.count("done  task/") == 2
    with pytest.raises(SystemExit, match="task/three: no such run; allowed: task/one, task/two"):
        main("task/three")


def test_the_pages_of_results_have_what_controllers_score():
    """And whoever knows where to go scores more than who goes to the middle."""
    results = ROOT / "docs" / "results"
    page = pages_of_results()
    report = json.loads((results / "mpe_controllers.json").read_text(encoding="utf-8"))
    kept = report["returns"]
    assert (len(kept), len(report["mpe2"])) == (8, 4)
    for row in (*kept.values(), *report["mpe2"].values()):
        assert f"{row['mean']:.2f} ± {row['standard_error']:.2f}" in page
    for name, row in report["mpe2"].items():  # the same in both, within three standard errors
        error = (row["standard_error"] ** 2 + kept[name]["standard_error"] ** 2) ** 0.5
        assert abs(row["mean"] - kept[name]["mean"]) < 3 * error, name
    found = [mpe_controllers.returns("simple_reference", "discrete", knows, 300).mean() for knows in (False, True)]
    expected = [kept[f"simple_reference, discrete, {name}"]["mean"] for name in ("middle", "goal")]
    np.testing.assert_allclose(found, expected, atol=4 * 11 / 300**0.5)


def test_the_page_of_physics_has_what_fast_physics_changes():
    page = (ROOT / "docs" / "results" / "physics.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "docs" / "results" / "mamujoco_solver.json").read_text(encoding="utf-8"))
    assert len(report["robots"]) == 11
    for name, row in report["robots"].items():
        speed, kind = row["velocity"], "contact" if row["states with contact"] else "free"
        others = ("fast, 1 iteration", "fast, 100 iterations", "a quarter of the time step")
        shown = [speed["fastest joint"], *speed["fast"].values(), *(speed[other][kind] for other in others)]
        assert f"| `{name}` | {' | '.join('–' if x is None else f'{x:.2g}' for x in shown)} |" in page
        assert [found["states that differ"] for found in row["line search"].values()] == [0, 0]


def test_the_page_of_physics_has_the_agreement_with_c_and_the_speed():
    page = (ROOT / "docs" / "results" / "physics.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "docs" / "results" / "mamujoco.json").read_text(encoding="utf-8"))
    robots = report["robots"]
    assert {*mamujoco.DEFAULT} == {*robots}
    for table in (mamujoco.deviations(robots), mamujoco.speeds(robots)):
        assert table in page
    assert "{:.0%} to {:.0%} of their median".format(*mamujoco.spread(robots)) in page


def test_the_page_of_physics_has_the_speed_of_mujoco_in_c():
    """At least 0.7 of what MuJoCo does alone, for every robot, and 4 and 2 times as fast as MJX in training."""
    results = ROOT / "docs" / "results"
    page = (results / "physics.md").read_text(encoding="utf-8")
    robots = json.loads((results / "mujoco_in_c.json").read_text(encoding="utf-8"))["robots"]
    trained = json.loads((results / "mujoco_training.json").read_text(encoding="utf-8"))["training"]
    assert {*mamujoco.DEFAULT} == {*robots}
    assert mujoco_in_c.speeds(robots) in page
    assert mujoco_in_c.trained(trained) in page
    assert min(mujoco_in_c.ratio(rates, "mujoco", "rollout") for rates in robots.values()) > 0.7
    for name, least in (("ant_4x2", 4), ("half_cheetah_2x3", 2)):
        assert mujoco_in_c.ratio(trained[f"env=mamujoco/{name}"], "mujoco", "faithful") > least


def test_the_page_of_environments_has_their_speed():
    found = json.loads((ROOT / "docs" / "results" / "environments.json").read_text(encoding="utf-8"))["rates"]
    assert {*found} == {*environment_speeds.MEASURED}
    assert environment_speeds.table(found) in (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")


def test_the_page_of_trust_regions_has_what_updates_cost():
    """An attention critic compiles in less than one and a half times the time of HASAC's critics."""
    results = ROOT / "docs" / "results"
    updates = json.loads((results / "attention_cost.json").read_text(encoding="utf-8"))["updates"]
    assert attention_cost.table(updates) in (results / "trust_regions.md").read_text(encoding="utf-8")
    for found in updates.values():
        assert max(row["compile_over_hasac"] for name, row in found.items() if name != "mamt") < 1.5


def test_the_page_of_simulators_has_the_twelve_environments():
    results = ROOT / "docs" / "results"
    found = json.loads((results / "foreign.json").read_text(encoding="utf-8"))
    assert {*found} == {*foreign.ENVIRONMENTS}
    assert foreign.table(found) in (results / "simulators.md").read_text(encoding="utf-8")
    for name, row in found.items():
        assert row["settings"] == ["algo=happo", "eval_interval=8_000", *foreign.ENVIRONMENTS[name]]


def test_the_page_of_simulators_has_their_speed():
    results = ROOT / "docs" / "results"
    found = json.loads((results / "simulators.json").read_text(encoding="utf-8"))
    page = (results / "simulators.md").read_text(encoding="utf-8")
    for table in simulators.tables(found).values():
        assert table.count("\n") > 3
        assert table in page


@pytest.mark.parametrize(("file", "count"), [("mamujoco", 11), ("mamujoco_v4", 8)])
def test_the_steps_measured_are_c_s(file, count):
    """To 1e-9 in float64, and no other end."""
    robots = json.loads((ROOT / "docs" / "results" / f"{file}.json").read_text(encoding="utf-8"))["robots"]
    assert len(robots) == count
    for name, kinds in robots.items():
        exact = kinds["faithful"]["float64"]
        assert exact["other_ends"] == 0
        beside = file == "mamujoco" and name.rpartition("_")[0] in mamujoco.WITH_NEIGHBORS
        for kind in ("free", "contact"):
            numbers = {number: apart["max"] for number, apart in exact[kind].items() if number != "steps"}
            if exact[kind]["steps"]:
                assert {*numbers} == {*mamujoco.MEASURED} - ({"neighbors"} if not beside else set())
            assert all(greatest < 1e-9 for greatest in numbers.values()), (name, kind, numbers)


def assert_made_so(name, settings):
    """A kept run was made with the settings that its script would make it with."""
    composed = config.compose(settings)
    kept = ROOT / "docs" / "results" / name / "config.yaml"
    made = yaml.safe_load(kept.read_text(encoding="utf-8"))
    assert made["out_dir"] == f"docs/results/{name}"
    # A setting that came after the run had its default's effect.
    defaults = config.compose([f"{part}={made[part]['name']}" for part in ("algo", "env")])
    if "layer_norm_min_inputs" not in made["algo"]:  # then all inputs were normalized, as those of SMAX are anyway
        least = composed["algo"]["layer_norm_min_inputs"]
        assert least == 1 or not made["algo"]["layer_norm"] or made["env"]["name"].startswith("smax/"), name
        made["algo"]["layer_norm_min_inputs"] = least
    if "guard" in composed["algo"]:  # simultaneous updates have no compound ratio that it would change
        at_once = made["algo"]["order"] == "simultaneous"
        made["algo"].setdefault("guard", composed["algo"]["guard"] if at_once else "none")
    for part in ("algo", "env"):
        made[part] |= {setting: defaults[part][setting] for setting in composed[part].keys() - made[part].keys()}
    for key in ("algo", "env", "total_steps", "num_seeds", "num_envs", "rollout_length", "lr_decay", "preset", "seed"):
        assert made[key] == composed[key], (name, key)
    assert made["eval"]["episodes"] == composed["eval"]["episodes"], name


def test_the_runs_of_mpe_are_those_of_docs_results():
    """All are there."""
    for name, settings in mpe.runs().items():
        assert_made_so(name, settings)


@pytest.mark.parametrize(
    ("script", "one"),
    [
        (mamujoco_runs, "half_cheetah_2x3/happo"),
        (budget_runs, ""),
        (smax_runs, "3m/mappo"),
        (sisl_runs, "pursuit/mappo"),
    ],
)
def test_the_runs_in_docs_results_are_the_script_s(script, one):
    """Those that are there."""
    kept = {
        path.parent.relative_to(ROOT / "docs/results").as_posix() for path in ROOT.glob("docs/results/*/*/summary.json")
    }
    listed = {name: settings for name, settings in script.runs().items() if name in kept}
    assert not one or one in listed
    for name, settings in listed.items():
        assert_made_so(name, settings)


def test_a_gpu_is_measured_in_ten_minutes(tmp_path, monkeypatch):
    assert sum(gpu.seconds_of(part, False) for part in gpu.PARTS) == 600
    assert all((ROOT / "tests" / name).exists() for name in gpu.TESTS)

    def run(command, seconds, XLA_FLAGS):
        place = Path(command[-1].removeprefix("out_dir="))
        if "algo=hasac" in command:
            return 1, "no memory"
        differs = "algo=hatrpo" in command and not XLA_FLAGS and place.name.endswith("1")
        file = place / "checkpoints" / "000000000001" / "manifest.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"arrays": {"train/key": {"sha256": "a" if differs else "b"}}}), encoding="utf-8")
        return 0, ""

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert gpu.determinism(True, 100, tmp_path) == {
        "happo, as it is": True,
        "hatrpo, as it is": False,
        "hasac, as it is": "no memory",
        "happo, deterministic": True,
        "hatrpo, deterministic": True,
        "hasac, deterministic": "no memory",
    }


def test_a_process_beyond_its_time_is_stopped():
    assert gpu.run([sys.executable, "-c", "import time; time.sleep(60)"], 1) == (None, "stopped after 1 s")
    assert gpu.run([sys.executable, "-c", "print('x'); raise SystemExit(3)"], 60) == (3, "x\n")
