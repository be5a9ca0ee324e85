"""The Python session: the same numbers as at a shell, continuation, states on disk, pictures, presets."""

import signal

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import hajax
from hajax.cli import main
from hajax.runs import stages
from hajax.runs.files import read_run
from hajax.runs.tables import read_rows
from hajax.session import training

SIZES = {"num_envs": 4, "rollout_length": 25}
TRAINED = {"num_seeds": 2, "seed": 3, "eval_episodes": 8, "eval_interval": 300, "progress": False, **SIZES}


@pytest.fixture(scope="module", autouse=True)
def shared_programs():
    """Trainings of the same team and sizes share their compiled programs: hyperparameters are arguments of them."""
    made: dict = {}

    def shared(make):
        def shared_make(team, trials, *rest):
            settings = repr(team.algorithm.settings), team.algorithm.name
            key = make.__name__, id(team.env), *settings, team.loop.steps_per_iteration, trials.keys.shape
            if key not in made:
                made[key] = team.env, make(team, trials, *rest)  # with the environment, so that its id is not reused
            return made[key][1]

        return shared_make

    with pytest.MonkeyPatch.context() as patch:
        for name in ("trace", "compile_programs"):
            patch.setattr(training, name, shared(getattr(training, name)))
        yield


@pytest.fixture(scope="module")
def trained():
    return hajax.train("mpe/simple_spread", "happo", total_steps=600, **TRAINED)


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


def test_it_is_hajax_train_number_for_number(trained, tmp_path):
    overrides = ["num_seeds=2", "seed=3", "eval.episodes=8", "eval_interval=300", "num_envs=4", "rollout_length=25"]
    run = ["env=mpe/simple_spread", "algo=happo", "total_steps=600", *overrides, f"out_dir={tmp_path / 'run'}"]
    assert main(["train", *run, "progress=false", "compilation_cache=false"]) == 0
    columns, rows = read_rows(tmp_path / "run" / "metrics.csv", ("step",))
    assert set(columns) - {"seed"} == set(trained.metrics)
    assert trained.metrics["step"].tolist() == [0, 300, 600]
    for name in set(columns) - {"step", "seed"}:
        column = [[row.get(name, np.nan) for row in rows if int(row["seed"]) == seed] for seed in trained.seeds]
        np.testing.assert_array_equal(trained.metrics[name], column, err_msg=name)
    np.testing.assert_array_equal(read_run(tmp_path / "run").returns.T, trained.metrics["eval_return_mean"])
    loaded = hajax.load_policy(tmp_path / "run", seed=4)
    assert same(loaded.state, trained.state(4))


def test_diagnostics_have_a_column_per_agent_beside_their_mean(trained):
    for name in ("entropy", "approx_kl", "actor_grad_norm"):
        of_agents = [trained.metrics[f"train_{name}_of_agent_{i}"] for i in range(3)]
        np.testing.assert_allclose(np.mean(of_agents, axis=0), trained.metrics[f"train_{name}"], rtol=1e-5)
        assert len({float(x[0, -1]) for x in of_agents}) == 3
    assert "train_policy_loss_of_agent_0" not in trained.metrics
    assert "eval_return_of_agent_0" not in trained.metrics  # one reward for all


def test_a_training_continues_from_memory_and_from_disk_as_if_it_had_not_ended(trained, tmp_path):
    begun = hajax.train(trained.env, trained.algo, total_steps=300, **TRAINED)
    before = jax.tree.map(lambda x: x.copy(), begun.states)
    path = hajax.save(tmp_path / "begun", begun.algo, begun)
    sizes = {name: x for name, x in TRAINED.items() if name not in ("seed", "num_seeds")}
    for state in (begun, path, str(path)):
        longer = hajax.train(trained.env, trained.algo, total_steps=600, state=state, **sizes)
        assert longer.seeds == (3, 4)
        for name, values in trained.metrics.items():
            np.testing.assert_array_equal(longer.metrics[name], values, err_msg=name)
        assert same(longer.states, trained.states)
    assert same(begun.states, before)  # the program has not reused its memory
    again = hajax.train(trained.env, trained.algo, total_steps=300, state=begun, **sizes)  # nothing is left to do
    assert again.metrics["step"].tolist() == [0, 300]


def test_an_off_policy_training_continues_with_its_replay(tmp_path):
    env = hajax.make_env("games/linear_quadratic")
    algo = hajax.make_algorithm("hatd3", env, hidden_sizes=(8,), batch_size=16, buffer_size=400, warmup_steps=40)
    sizes = {"num_envs": 4, "rollout_length": 8, "eval_episodes": 4, "progress": False}
    with pytest.raises(ValueError, match="total_steps=40; allowed: more than the 40 of the warm-up"):
        hajax.train(env, algo, total_steps=40, **sizes)
    whole = hajax.train(env, algo, total_steps=232, eval_interval=96, **sizes)
    begun = hajax.train(env, algo, total_steps=136, eval_interval=96, **sizes)
    path = hajax.save(tmp_path / "begun", algo, begun)
    for state in (begun, path):
        longer = hajax.train(env, algo, total_steps=232, eval_interval=96, state=state, **sizes)
        assert same(longer.states, whole.states)
        np.testing.assert_array_equal(longer.metrics["eval_return_mean"], whole.metrics["eval_return_mean"])


def test_a_continued_training_has_the_hyperparameters_that_it_is_given(trained):
    """And a decay of learning rates over its whole length, which ends with the call."""
    sizes = {name: x for name, x in TRAINED.items() if name not in ("seed", "num_seeds")}
    faster = hajax.make_algorithm("happo", trained.env, actor_lr=1e-2)
    longer = hajax.train(trained.env, faster, total_steps=700, state=trained, **sizes)
    np.testing.assert_allclose(longer.states.hyperparameters.actor_lr, [1e-2] * 2)
    decayed = hajax.train(trained.env, trained.algo, total_steps=300, lr_decay=True, **TRAINED)
    assert decayed.algo.hyperparameters.decay_updates == np.inf
    assert decayed.states.hyperparameters.decay_updates.tolist() == [3, 3]
    further = hajax.train(trained.env, trained.algo, total_steps=600, lr_decay=True, state=decayed, **sizes)
    assert further.states.hyperparameters.decay_updates.tolist() == [6, 6]
    assert not same(further.states.actors.params, decayed.states.actors.params)


def test_states_are_saved_and_loaded(trained, tmp_path):
    one, all_of_them = tmp_path / "one", tmp_path / "all"
    hajax.save(one, trained.algo, trained.states)
    (one / "curves.png").write_text("mine")
    hajax.save(one, trained.algo, trained.state(4))  # in place of the former, and nothing else
    hajax.save(all_of_them, trained.algo, trained)
    assert same(hajax.load(one, trained.algo), trained.state(4))
    assert same(hajax.load(all_of_them, trained.algo), trained.states)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "one"]
    assert sorted(path.name for path in one.iterdir()) == ["000000000001", "curves.png"]
    swept = jax.tree.map(lambda x: x[None], trained.states)
    assert same(hajax.load(hajax.save(one, trained.algo, swept), trained.algo), swept)


def test_saved_states_that_do_not_fit_are_refused(trained, tmp_path):
    path = hajax.save(tmp_path / "state", trained.algo, trained.state())
    other = hajax.make_algorithm("hatrpo", trained.env)
    with pytest.raises(ValueError, match="holds a state of happo; allowed: one of hatrpo"):
        hajax.load(path, other)
    with pytest.raises(ValueError, match="state is not one of hatrpo on mpe/simple_spread; allowed"):
        hajax.save(tmp_path / "no", other, trained.state())
    with pytest.raises(ValueError, match=r"holds actors/.* as float32"):
        hajax.load(path, hajax.make_algorithm("happo", trained.env, hidden_sizes=(8,)))
    with pytest.raises(ValueError, match=r"holds a learner state; allowed: what hajax.train returned, saved whole"):
        hajax.train(trained.env, trained.algo, total_steps=900, state=path, **SIZES)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        hajax.load(tmp_path / "nothing", trained.algo)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is a file; allowed: a directory, or a new name"):
        hajax.save(tmp_path / "thesis.tex", trained.algo, trained.state())
    (path / "config.yaml").write_text("")
    with pytest.raises(ValueError, match=r"is a run of `hajax train`, for hajax.load_policy"):
        hajax.load(path, trained.algo)
    (path / "config.yaml").unlink()
    (path / "000000000000" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="manifest"):
        hajax.load(path, trained.algo)


def test_other_states_and_settings_are_refused(trained):
    def refused(message, **changes):
        with pytest.raises(ValueError, match=message):
            hajax.train(**{"env": trained.env, "algo": trained.algo, "total_steps": 900, **TRAINED} | changes)

    refused("state has other sizes; allowed: one with the same networks", state=trained, num_envs=5)
    refused("state is a OnPolicyState; allowed: what hajax.train returned", state=trained.states)
    refused("state is of happo on mpe/simple_spread; allowed: one of mappo", state=trained, algo="mappo")
    refused("seed=7, but state has 3; allowed: 3, or None", state=trained, seed=7)
    refused("num_seeds=3, but state has 2; allowed: 2, or None", state=trained, num_seeds=3)
    refused("total_steps=300, but state has 600; allowed: as many or more", state=trained, total_steps=300)
    for name, value in {"num_seeds": 0, "eval_episodes": 0, "seed": -1, "eval_interval": 0, "total_steps": 0}.items():
        refused(f"{name}={value}; allowed", **{name: value})
    with pytest.raises(ValueError, match="seed=9; allowed: the training's seeds, 3, 4"):
        trained.state(9)


@pytest.mark.parametrize("when", ["while compiling", "in training", "in an evaluation"])
def test_ctrl_c_keeps_what_there_is(when, trained, monkeypatch, capsys):
    """And what is continued afterwards has all evaluations."""

    def interrupting(function, at=lambda *arguments: True):
        def call(*arguments, **named):
            if at(*arguments):
                signal.raise_signal(signal.SIGINT)
            return function(*arguments, **named)

        return call

    if when == "while compiling":
        monkeypatch.setattr(training, "compile_programs", interrupting(training.compile_programs))
    elif when == "in training":  # in the slice that reaches the evaluation after three iterations
        reached = lambda state: hasattr(state, "health") and int(state.health.iterations[0]) == 3  # noqa: E731
        monkeypatch.setattr(jax, "block_until_ready", interrupting(jax.block_until_ready, reached))
    else:
        rows = interrupting(stages.evaluation_rows, lambda seeds, step, *_: step == 300)
        monkeypatch.setattr(stages, "evaluation_rows", rows)
    stopped = hajax.train(trained.env, trained.algo, total_steps=600, **TRAINED)
    monkeypatch.undo()
    done = {"while compiling": 0, "in training": 3, "in an evaluation": 3}[when]
    assert stopped.metrics["step"].tolist() == [0, 300][: 1 + done // 3]
    assert stopped.metrics["eval_return_mean"].shape == (2, 1 + done // 3)
    assert int(stopped.run_state.health.iterations[0]) == done
    assert "Ctrl-C again stops without a result" in capsys.readouterr().err
    longer = hajax.train(trained.env, trained.algo, total_steps=600, state=stopped, **TRAINED)
    assert same(longer.states, trained.states)
    np.testing.assert_array_equal(longer.metrics["eval_return_mean"], trained.metrics["eval_return_mean"])


def test_a_seed_that_diverges_ends_the_training_with_a_warning(trained):
    algo = hajax.make_algorithm("happo", trained.env, actor_lr=1e38)
    with pytest.warns(UserWarning, match=r"seed [34]: .* is non-finite after \d+ steps; the training has ended"):
        ended = hajax.train(trained.env, algo, total_steps=600, **TRAINED)
    done = int(ended.run_state.health.iterations[0])
    assert done < 6
    assert ended.metrics["step"].tolist() == [0, 100 * done] or ended.metrics["step"].tolist() == [0]
    assert np.isnan(ended.metrics["eval_return_mean"][:, 1:]).any() or ended.metrics["step"].size == 1
    with pytest.raises(ValueError, match="a training in which a seed diverged; allowed: one that is finite"):
        hajax.train(trained.env, algo, total_steps=600, state=ended, **TRAINED)


def test_it_prints_as_one_line(trained):
    final = trained.metrics["eval_return_mean"][:, -1].mean()
    expected = f"<Training of happo on mpe/simple_spread: seeds 3, 4, 600 steps, return {final:.2f}>"
    assert repr(trained) == str(trained) == expected


def test_progress_is_a_line_per_evaluation_without_a_terminal(trained, capsys):
    hajax.train(trained.env, trained.algo, total_steps=300, **TRAINED | {"progress": True, "num_seeds": 1})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling"
    assert lines[-1].startswith("300 / 300 steps")
    assert "return" in lines[-1]


def test_curves_and_films(trained, tmp_path):
    figure = hajax.plot({"happo": trained, "again": trained.metrics}, title="spread", path=tmp_path / "c.png")
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("spread", "evaluation return")
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["happo"], trained.metrics["eval_return_mean"].mean(0))
    assert Image.open(tmp_path / "c.png").size[0] > 500
    assert figure._repr_png_().startswith(b"\x89PNG")  # as a notebook shows it
    assert len(figure.legends) == 2
    alone = {name: x if name == "step" else x[:1] for name, x in trained.metrics.items()}
    assert len(hajax.plot({"happo": alone}).legends) == 1  # nothing to explain
    entropy = hajax.plot({"happo": trained.metrics}, "train_entropy")
    assert entropy.axes[0].get_ylabel() == "training entropy"
    with pytest.raises(ValueError, match="trainings is no mapping by label; allowed: one or more"):
        hajax.plot(trained.metrics)
    with pytest.raises(ValueError, match="unknown metric of happo 'return'"):
        hajax.plot({"happo": trained.metrics}, "return")
    with pytest.raises(ValueError, match="state has 2 seeds; allowed: that of one"):
        hajax.render(trained.env, trained.algo, trained.states)
    path = hajax.render(trained.env, trained.algo, trained.state(), tmp_path / "episode.gif", episodes=2, max_steps=3)
    assert Image.open(path).n_frames == 6
    with pytest.raises(ValueError, match="renderer='mujco'; allowed: auto, drawing, mujoco"):
        hajax.render(trained.env, trained.algo, trained.state(), tmp_path / "episode.gif", renderer="mujco")
    with pytest.raises(ValueError, match=r"there is no directory .*nowhere; allowed: a file in one that exists"):
        hajax.render(trained.env, trained.algo, trained.state(), tmp_path / "nowhere" / "episode.gif")
    with pytest.raises(ValueError, match=r"film .*episode.txt; allowed: a name that ends in .gif or .mp4"):
        hajax.render(trained.env, trained.algo, trained.state(), tmp_path / "episode.txt")


def test_presets_are_arguments_of_train():
    arguments = hajax.preset("harl/mpe", "algo=ippo", "env.num_agents=2", "algo.epochs=3")
    env, algo = arguments["env"], arguments["algo"]
    assert (algo.name, algo.settings.epochs, env.spec.num_agents) == ("ippo", 3, 2)
    assert env.spec.reward == "individual"
    assert (arguments["num_envs"], arguments["rollout_length"], arguments["lr_decay"]) == (20, 200, False)
    assert hajax.make_train(**arguments, total_steps=4000)
    with pytest.raises(ValueError, match="override=num_seeds=8; allowed: settings of algo and env, num_envs, "):
        hajax.preset("harl/mpe", "num_seeds=8")
    with pytest.raises(ValueError, match="preset=harl/mqe"):
        hajax.preset("harl/mqe")
    with pytest.raises(ValueError, match="preset=harl/mpe with algo=hasac"):
        hajax.preset("harl/mpe", "algo=hasac")


def test_names_stand_for_default_environments_and_algorithms():
    by_name = hajax.make_train("mpe/simple_spread", "ippo", total_steps=200, **SIZES)
    env = hajax.make_env("mpe/simple_spread", reward="individual")
    made = hajax.make_train(env, hajax.make_algorithm("ippo", env), total_steps=200, **SIZES)
    assert same(*(jax.jit(train)(jax.random.key(0))[0] for train in (by_name, made)))
    with pytest.raises(ValueError, match="unknown algorithm 'hapo'; did you mean happo"):
        hajax.make_loop("mpe/simple_spread", "hapo", num_envs=1)


def test_a_training_with_simulators_continues_and_ends_at_a_fault(tmp_path):
    """Continued from memory and from disk it is the uninterrupted one; at a fault it keeps the state before."""
    sizes = {"num_envs": 2, "rollout_length": 5, "eval_episodes": 2, "eval_interval": 20, "progress": False}
    env = hajax.make_env("harbor:harbor", num_workers=0)
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(8,), epochs=1, critic_epochs=1)
    whole = hajax.train(env, algo, total_steps=60, **sizes)
    begun = hajax.train(env, algo, total_steps=40, **sizes)
    path = hajax.save(tmp_path / "begun", algo, begun)
    for state in (begun, path):
        longer = hajax.train(env, algo, total_steps=60, state=state, **sizes)
        assert same(longer.states, whole.states)
        np.testing.assert_array_equal(longer.metrics["eval_return_mean"], whole.metrics["eval_return_mean"])
    stuck = hajax.make_env("harbor:harbor", num_workers=0, fault="raises", after=6)
    with pytest.warns(UserWarning, match=r"copy \d raised RuntimeError .* the crane is stuck; the training has ended"):
        ended = hajax.train(stuck, algo, total_steps=600, **sizes)
    assert int(ended.run_state.health.iterations[0]) == 4
    assert ended.metrics["step"].tolist() == [0, 20]  # the evaluation at 40 steps failed
