"""The parts of a run that need no training: schedule, keys, decay, summary."""

import itertools

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hajax.cli import report
from hajax.cli.evaluate import results_table
from hajax.runs import config
from hajax.runs.directory import summarize_returns
from hajax.runs.programs import evaluation_keys, rarely_run
from hajax.runs.schedule import make_schedule
from hajax.runs.settings import validate
from hajax.runs.team import build
from hajax.runs.trials import seed_keys


def test_a_single_seed_has_no_interval():
    assert summarize_returns(np.array([2.0])) == {"mean": 2.0, "iqm": 2.0, "ci95": None, "per_seed": [2.0]}


def test_learning_rates_decay_over_the_run():
    settings = config.compose(
        ["env=games/gaussian", "num_envs=4", "rollout_length=8", "total_steps=150", "lr_decay=true"]
    )
    assert build(validate(settings)).algorithm.hyperparameters.decay_updates == 5
    assert build(validate(settings | {"lr_decay": False})).algorithm.hyperparameters.decay_updates == float("inf")


@given(
    total_steps=st.integers(1, 10**7),
    steps_per_iteration=st.integers(1, 10**4),
    eval_interval=st.none() | st.integers(10**5, 10**7),
)
def test_schedule_covers_the_run(total_steps, steps_per_iteration, eval_interval):
    schedule = make_schedule(total_steps, steps_per_iteration, eval_interval)
    assert total_steps <= schedule.total_steps < total_steps + steps_per_iteration
    points = schedule.evaluate_after
    assert points[0] == 0
    assert points[-1] == schedule.iterations
    assert schedule.save_after == points
    assert schedule.pauses(0) == list(points)
    assert schedule.pauses(points[-1]) == [points[-1]]
    assert all(earlier < later for earlier, later in itertools.pairwise(points))
    if eval_interval is None:
        assert len(points) <= 21


def test_seeds_of_a_run_are_independent_of_each_other():
    keys = seed_keys(3, 2)
    assert keys[1] == jax.random.key(4)
    assert seed_keys(4, 1)[0] == keys[1]
    assert evaluation_keys(keys, 10)[1] == evaluation_keys(keys[1:], 10)[0]
    assert (evaluation_keys(keys, 10) != evaluation_keys(keys, 20)).all()


def test_an_environment_s_own_metrics_are_in_the_table_of_an_evaluation(capsys):
    returns = np.array([[1.0, 3.0], [2.0, 2.0]])
    found = {"run": "runs/3m", "step": 5, "episodes": 2, "deterministic": True, "seeds": [4, 5]}
    found |= {
        "return": summarize_returns(returns.mean(1)),
        "episode_length": [7.0, 8.0],
        "metrics": {"win": [0.5, 1.0]},
    }
    Console(width=100).print(results_table(found, returns))
    rows = [line.replace("│", " ").replace("┃", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed", "mean", "return", "standard", "deviation", "standard", "error", "length", "win"] in rows
    assert ["4", "2.00", "1.00", "0.71", "7.0", "0.500"] in rows


def test_an_environment_s_own_metrics_are_in_the_table_of_a_run(capsys):
    values = summarize_returns(np.array([1.0, 2.0]))
    summary = {"algo": "happo", "env": "smax/3m", "eval_step": 5, "eval_episodes": 2, "seeds": [4, 5]}
    summary |= {"eval_return": values, "eval_metrics": {"win": summarize_returns(np.array([0.25, 0.5]))}}
    summary |= {"steps_per_second": None, "compile_seconds": 1.0, "wall_seconds": 2.0}
    Console(width=100).print(report.results_table(summary))
    assert ["win,", "mean", "0.38"] in [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]


def test_programs_that_run_rarely_compile_fast_unless_a_level_was_chosen(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3 --xla_dump_to=there")
    assert rarely_run() is None
    monkeypatch.delenv("XLA_FLAGS")
    options = rarely_run()
    assert options == ({"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None)
    assert jax.jit(lambda x: x + 1).lower(1.0).compile(options)(1.0) == 2
