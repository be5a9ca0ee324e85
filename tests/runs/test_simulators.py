"""Runs in simulators at the shell: a fault, the resumed run, evaluation and film; and a replay in the checkpoint."""

from __future__ import annotations

import csv
import multiprocessing

import pytest
import yaml

from hajax.cli import main
from hajax.training.checkpoints import read_checkpoint

TINY = ["num_envs=2", "algo.hidden_sizes=[4]", "eval.episodes=2", "progress=false", "compilation_cache=false"]


def rows(path):
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_fault_resume_evaluation_and_film(tmp_path, capsys):
    """A simulator that raises once: one line, everything saved; then the run goes on from there."""
    run = tmp_path / "run"
    marker = tmp_path / "marker"
    command = ["train", "algo=ippo", "env=harbor:harbor", "env.fault=raises once", f"env.marker={marker}"]
    command += ["env.num_workers=1", "env.after=4", "rollout_length=10", "total_steps=120", "num_seeds=2", *TINY]
    assert main([*command, f"out_dir={run}"]) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("hajax train: harbor:harbor: copy ")
    assert "raised RuntimeError at step 2 of episode " in error
    assert "the crane is stuck (stopped and saved at " in error
    assert 'raise RuntimeError("the crane is stuck")' in (run / "simulator_error.txt").read_text()
    assert not multiprocessing.active_children()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["env"]["reward"] == "individual"  # as the algorithm's

    before = rows(run)
    assert main(["train", f"out_dir={run}", "resume=true", "progress=false"]) == 0
    assert not (run / "simulator_error.txt").exists()
    assert len([*run.glob("simulator_error_*.txt")]) == 1  # of the fault that new episodes avoid
    assert "ended with an error of a simulator: new episodes begin, and results differ" in capsys.readouterr().err
    after = rows(run)
    kept = [[row[name] for name in ("step", "seed", "eval_return_mean")] for row in before]
    assert [[row[name] for name in ("step", "seed", "eval_return_mean")] for row in after][: len(before)] == kept
    assert {row["seed"] for row in after} == {"0", "1"}
    assert max(int(row["step"]) for row in after) == 120

    assert main(["evaluate", str(run), "--episodes", "3"]) == 0
    assert main(["render", str(run), "--max-steps", "4"]) == 0
    from PIL import Image

    with Image.open(run / "episode.gif") as film:
        assert 1 <= film.n_frames <= 4
        assert len(film.convert("RGB").getcolors(10_000)) > 2
    assert not multiprocessing.active_children()


ON_POLICY = ["algo=ippo", "env=harbor:harbor", "env.num_workers=2", "num_envs=32", "num_seeds=2"]
OFF_POLICY = ["algo=id3qn", "env=gymnasium/CartPole-v1", "env.num_workers=0", "num_envs=2", "num_seeds=1"]
OFF_POLICY += ["algo.buffer_size=200", "algo.batch_size=8", "algo.warmup_steps=30"]


@pytest.mark.parametrize(
    ("command", "part", "whole"),
    [(ON_POLICY, 320, 640), pytest.param(OFF_POLICY, 65, 100, marks=pytest.mark.evidence)],
    ids=["on-policy", "off-policy"],
)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(command, part, whole, tmp_path, capsys):
    """Simulators repeat the episodes under way, on-policy in two worker processes."""
    found = {}
    for name, lengths in (("whole", [whole]), ("in parts", [part, whole])):
        path = tmp_path / name
        for length in lengths:
            resumed = ["train", f"out_dir={path}", "resume=true", "progress=false"]
            new = ["train", *command, "rollout_length=5", *TINY[1:], f"out_dir={path}", f"eval_interval={whole - part}"]
            assert main([*(resumed if path.exists() else new), f"total_steps={length}"]) == 0
        checkpoint = read_checkpoint(path / "checkpoints")
        found[name] = checkpoint.arrays, rows(path)
    assert "new ones begin" not in capsys.readouterr().err
    (arrays, metrics), (others, other_metrics) = found.values()
    assert arrays.keys() == others.keys()
    # A ticket is for the simulators of one program.
    differ = [name for name, entry in arrays.items() if entry["sha256"] != others[name]["sha256"]]
    assert [name.rpartition("/")[2] for name in differ] == ["ticket"]
    assert metrics == other_metrics


def test_simulators_that_cannot_repeat_episodes_begin_new_ones(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "algo=ippo", "env=harbor:UnseededHarbor", "env.num_workers=1", "rollout_length=10", *TINY]
    assert main([*command, "total_steps=20", f"out_dir={run}"]) == 0
    assert main(["train", f"out_dir={run}", "resume=true", "progress=false", "total_steps=40"]) == 0
    assert not multiprocessing.active_children()
    said = "cannot be repeated (the same actions led to another observation): new ones begin, and results differ"
    assert said in capsys.readouterr().err
    assert max(int(row["step"]) for row in rows(run)) == 40


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=pettingzoo/multiwalker_v8"], "env=pettingzoo/multiwalker_v8 is unknown; did you mean pettingzoo/multiw"),
        (["env=pettingzoo/multiwalker_v9", "env.kwargs.walkers=2"], "env.kwargs={walkers:2} of pettingzoo/multiwalker"),
        (["env=gymnasium/CartPole-v1", "env.num_workers=-1"], "env.num_workers=-1"),
        (["env=gymnasium/CartPole-v1", "env.kwargs.sutton_barto_reward=true", "algo.nothing=1"], "algo.nothing=1"),
        (["env=harbor:old_harbor"], "harbor:old_harbor: "),
        (["env=harbor:harbor", "env.fault=nobody"], "agents of harbor:harbor is empty after reset"),
    ],
)
def test_refused_in_one_line(overrides, message, tmp_path, capsys):
    code = main(["train", *overrides, "total_steps=100", "progress=false", f"out_dir={tmp_path / 'run'}"])
    error = capsys.readouterr().err.strip()
    assert code in (1, 2), error
    assert message in error
    assert "\n" not in error
    assert not multiprocessing.active_children()
