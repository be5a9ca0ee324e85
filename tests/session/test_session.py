"""The Python session: the same numbers as at a shell, continuation, states on disk, pictures, presets."""

import signal

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import hajax
from hajax.cli import main
from hajax.runs.files import read_run
from hajax.runs.tables import read_rows
from hajax.session import training

SIZES = {"num_envs": 4, "rollout_length": 25}
TRAINED = {"num_seeds": 2, "seed": 3, "eval_episodes": 8, "eval_interval": 300, "progress": False, **SIZES}


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


def test_a_training_continues_from_memory_and_from_disk_as_if_it_had_not_ended(trained, tmp_path):
    begun = hajax.train(trained.env, trained.algo, total_steps=300, **TRAINED)
    before = jax.tree.map(lambda x: x.copy(), begun.states)
    path = hajax.save(tmp_path / "begun", begun.algo, begun.run_state)
    for state in (begun.run_state, path):
        longer = hajax.train(trained.env, trained.algo, total_steps=600, state=state, **TRAINED)
        assert longer.metrics["step"].tolist() == [600]
        np.testing.assert_array_equal(longer.metrics["eval_return_mean"], trained.metrics["eval_return_mean"][:, 2:])
        assert same(longer.states, trained.states)
    assert same(begun.states, before)  # the program has not reused its memory


def test_states_are_saved_and_loaded(trained, tmp_path):
    one, all_of_them = tmp_path / "one", tmp_path / "all"
    hajax.save(one, trained.algo, trained.states)
    hajax.save(one, trained.algo, trained.state(4))  # replaces the former
    hajax.save(all_of_them, trained.algo, trained.run_state)
    assert same(hajax.load(one, trained.algo), trained.state(4))
    assert same(hajax.load(all_of_them, trained.algo), trained.states)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "one"]


def test_saved_states_that_do_not_fit_are_refused(trained, tmp_path):
    path = hajax.save(tmp_path / "state", trained.algo, trained.state())
    with pytest.raises(ValueError, match="holds a state of happo; allowed: one of hatrpo"):
        hajax.load(path, hajax.make_algorithm("hatrpo", trained.env))
    with pytest.raises(ValueError, match=r"holds actors/.* as float32"):
        hajax.load(path, hajax.make_algorithm("happo", trained.env, hidden_sizes=(8,)))
    with pytest.raises(ValueError, match="holds no checkpoint"):
        hajax.load(tmp_path / "nothing", trained.algo)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="exists and is no saved state; allowed: another path"):
        hajax.save(tmp_path / "mine", trained.algo, trained.state())
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (path / "000000000000" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="manifest"):
        hajax.load(path, trained.algo)


def test_other_states_and_settings_are_refused(trained):
    with pytest.raises(ValueError, match="state is not that of a training with the same team and sizes"):
        hajax.train(trained.env, trained.algo, total_steps=900, state=trained.run_state, **TRAINED | {"num_envs": 5})
    with pytest.raises(ValueError, match="state is not that of a training"):
        hajax.train(trained.env, trained.algo, total_steps=900, state=trained.states, **TRAINED)
    with pytest.raises(ValueError, match="total_steps=300, but state has 600; allowed: as many or more"):
        hajax.train(trained.env, trained.algo, total_steps=300, state=trained.run_state, **TRAINED)
    for name, value in {"num_seeds": 0, "eval_episodes": 0, "seed": -1, "eval_interval": 0, "total_steps": 0}.items():
        with pytest.raises(ValueError, match=f"{name}={value}; allowed"):
            hajax.train(trained.env, trained.algo, **{"total_steps": 100} | TRAINED | {name: value})
    with pytest.raises(ValueError, match="seed=9; allowed: the training's seeds, 3, 4"):
        trained.state(9)


def test_ctrl_c_keeps_what_there_is(trained, monkeypatch, capsys):
    evaluated = training.evaluation_rows

    def interrupted(seeds, step, *rest):
        if step == 300:
            signal.raise_signal(signal.SIGINT)
        return evaluated(seeds, step, *rest)

    monkeypatch.setattr(training, "evaluation_rows", interrupted)
    stopped = hajax.train(trained.env, trained.algo, total_steps=600, **TRAINED)
    assert stopped.metrics["step"].tolist() == [0, 300]
    assert int(stopped.run_state.health.iterations[0]) == 3
    assert "Ctrl-C again stops at once" in capsys.readouterr().err
    monkeypatch.undo()
    longer = hajax.train(trained.env, trained.algo, total_steps=600, state=stopped.run_state, **TRAINED)
    assert same(longer.states, trained.states)


def test_a_seed_that_diverges_ends_the_training_with_a_warning(trained):
    algo = hajax.make_algorithm("happo", trained.env, actor_lr=1e38)
    with pytest.warns(UserWarning, match=r"seed [34]: .* is non-finite after \d+ steps; the training has ended"):
        ended = hajax.train(trained.env, algo, total_steps=600, **TRAINED)
    assert int(ended.run_state.health.iterations[0]) < 6


def test_progress_is_a_line_per_evaluation_without_a_terminal(trained, capsys):
    hajax.train(trained.env, trained.algo, total_steps=300, **TRAINED | {"progress": True, "num_seeds": 1})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling"
    assert lines[-1].startswith("300 / 300 steps")
    assert "return" in lines[-1]


def test_curves_and_films(trained, tmp_path):
    figure = hajax.plot({"happo": trained.metrics, "again": trained.metrics}, title="spread", path=tmp_path / "c.png")
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
    with pytest.raises(ValueError, match=r"metrics=\{\}; allowed: the metrics of one training or more"):
        hajax.plot({})
    with pytest.raises(ValueError, match="unknown metric of happo 'return'"):
        hajax.plot({"happo": trained.metrics}, "return")
    path = hajax.render(trained.env, trained.algo, trained.state(), tmp_path / "episode.gif", episodes=2, max_steps=3)
    assert Image.open(path).n_frames == 6
    with pytest.raises(ValueError, match=r"film .*episode.txt; allowed: a name that ends in .gif or .mp4"):
        hajax.render(trained.env, trained.algo, trained.state(), tmp_path / "episode.txt")


def test_presets_are_arguments_of_train():
    arguments = hajax.preset("harl/mpe", "algo=ippo", "env.num_agents=2", "algo.epochs=3")
    env, algo = arguments["env"], arguments["algo"]
    assert (algo.name, algo.settings.epochs, env.spec.num_agents) == ("ippo", 3, 2)
    assert env.spec.reward == "individual"
    assert (arguments["num_envs"], arguments["rollout_length"], arguments["lr_decay"]) == (20, 200, False)
    assert callable(hajax.make_train(**arguments, total_steps=4000))
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
