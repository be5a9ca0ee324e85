"""What a sweep ends with, of runs written by hand."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from joblib.externals.loky import get_reusable_executor
from written_runs import write_run

from hajax.cli import main, sweep, sweep_report
from hajax.cli.plot import plot
from hajax.cli.sweep_report import report_sweep, shown_seconds
from hajax.runs.errors import Refusal
from hajax.training.statistics import bootstrap_interval

STEPS = (0, 100)


def write_finished(
    path, algo, final, *, env="mpe/simple_spread", seed=0, status="finished", wall_seconds=60.0, **algos
):
    """A run with these returns at its last evaluation."""
    seeds = range(seed, seed + len(final))
    returns = np.array([np.zeros(len(final)), final])
    write_run(path, algo={"name": algo} | algos, env={"name": env}, seeds=seeds, steps=STEPS, returns=returns)
    summary = {"status": status, "eval_step": 100, "wall_seconds": wall_seconds}
    summary["eval_return"] = {"per_seed": [None if math.isnan(value) else value for value in final]}
    (path / "summary.json").write_text(json.dumps(summary))


def read_table(path):
    with open(path / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def lines_of(table):
    return [line.strip("│ ").split() for line in table.splitlines() if line.startswith("│")]


def test_seeds_are_pooled_per_environment_and_algorithm(tmp_path, capsys):
    write_finished(tmp_path / "a", "happo", [1.0, 5.0], wall_seconds=60.0)
    write_finished(tmp_path / "b", "happo", [3.0, 9.0], seed=2, wall_seconds=90.0)
    write_finished(tmp_path / "c", "mappo", [6.0, 7.0], wall_seconds=30.5)
    write_finished(tmp_path / "d", "happo", [2.0, 4.0], env="mpe/simple_reference", wall_seconds=7201.0)
    assert report_sweep(tmp_path) == []
    out = capsys.readouterr().out
    spread, reference = out.index("mpe/simple_spread"), out.index("mpe/simple_reference")
    assert spread < reference
    rows = [line for line in lines_of(out[spread:reference]) if line[0] in ("happo", "mappo")]
    assert [row[0] for row in rows] == ["mappo", "happo"]  # the best first
    assert [cell for cell in rows[1] if cell != "│"] == ["happo", "4", "4.00", "1.00", "to", "9.00", "2.5", "min"]
    assert "30.5 s" in out
    assert "2.0 h" in out[reference:]
    happo, mappo, other = read_table(tmp_path)
    assert (happo["env"], happo["label"], happo["num_seeds"], happo["step"]) == (
        "mpe/simple_spread",
        "happo",
        "4",
        "100",
    )
    assert float(happo["iqm"]) == 4.0
    interval = bootstrap_interval([1.0, 5.0, 3.0, 9.0])
    assert (float(happo["ci95_low"]), float(happo["ci95_high"])) == pytest.approx(interval)
    assert (float(happo["wall_seconds"]), happo["runs"]) == (150.0, "a; b")
    assert (mappo["runs"], float(mappo["iqm"])) == ("c", 6.5)
    assert (other["env"], float(other["iqm"])) == ("mpe/simple_reference", 3.0)


def test_the_curves_are_those_of_hajax_plot(tmp_path, capsys):
    write_finished(tmp_path / "sweep" / "a", "happo", [1.0, 5.0])
    write_finished(tmp_path / "sweep" / "b", "mappo", [6.0, 7.0])
    assert report_sweep(tmp_path / "sweep") == []
    out = capsys.readouterr().out
    for what, name in (("table", "summary.csv"), ("curves", "plot.png"), ("numbers", "plot.csv")):
        assert f"{what}: {tmp_path / 'sweep' / name}\n" in out
    assert plot([str(tmp_path / "sweep"), "--output", str(tmp_path / "again.png")]) == 0
    for suffix in (".png", ".csv"):
        assert (tmp_path / f"again{suffix}").read_bytes() == (tmp_path / "sweep" / f"plot{suffix}").read_bytes()


def test_runs_that_failed_are_listed_and_a_diverged_one_comes_last(tmp_path, capsys):
    write_finished(tmp_path / "a", "happo", [1.0, math.nan], status="diverged")
    write_finished(tmp_path / "b", "mappo", [-3.0, -3.0])
    write_finished(tmp_path / "c", "ippo", [4.0, 4.0])
    write_finished(tmp_path / "d", "haa2c", [9.0, 9.0])  # its results are of an earlier sweep
    write_finished(tmp_path / "e", "maa2c", [9.0, 9.0])
    (tmp_path / "e" / "metrics.csv").write_text("broken")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "error.txt").write_text("RuntimeError: lost\n\nTraceback")
    (tmp_path / "d.error.txt").write_text("out_dir=d already holds a run\n")
    write_finished(tmp_path / "g", "hasac", [8.0, 8.0], status="interrupted")
    assert report_sweep(tmp_path) == ["a", "d", "e", "f", "g"]
    out = capsys.readouterr().out
    assert out.index("4.00") < out.index("-3.00") < out.index("diverged │")
    assert "haa2c" not in out
    assert "hasac" not in out
    assert "5 of 7 runs failed:\n  a: diverged\n  d: out_dir=d already holds a run\n  e: " in out
    assert "  f: RuntimeError: lost\n  g: interrupted\n" in out
    assert [row["iqm"] for row in read_table(tmp_path)] == ["", "-3.0", "4.0"]


def test_other_runs_in_the_directory_are_left_out(tmp_path, capsys):
    write_finished(tmp_path / "a", "happo", [1.0, 5.0])
    write_finished(tmp_path / "b", "mappo", [6.0, 7.0])
    assert report_sweep(tmp_path, {"a"}) == []
    assert "mappo" not in capsys.readouterr().out
    assert [row["label"] for row in read_table(tmp_path)] == ["happo"]


def test_a_run_whose_process_was_killed_is_listed(tmp_path, capsys):
    write_finished(tmp_path / "a", "happo", [1.0, 5.0])
    assert report_sweep(tmp_path, {"a", "b"}) == ["b"]
    assert (
        "1 of 2 runs failed:\n  b: no results, and no error: its process ended, or it did not start\n"
        in capsys.readouterr().out
    )


def test_a_killed_run_is_listed_in_a_search_whose_names_are_not_known(tmp_path, capsys):
    write_finished(tmp_path / "job=0,clip=0.1", "happo", [1.0, 5.0])
    write_finished(tmp_path / "job=1,clip=0.2", "happo", [1.0, 5.0])
    (tmp_path / "job=1,clip=0.2" / "summary.json").unlink()
    assert report_sweep(tmp_path) == ["job=1,clip=0.2"]
    assert "1 of 2 runs failed:\n  job=1,clip=0.2: no results, and no error" in capsys.readouterr().out


def test_nothing_is_written_without_results(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "error.txt").write_text("no space left\n")
    assert report_sweep(tmp_path) == ["a"]
    assert capsys.readouterr().out == "1 of 1 runs failed:\n  a: no space left\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_is_cut_at_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sizes = {"hidden_sizes": [256, 256, 256], "activation": "tanh"}
    env = "jumanji/a_long_name_of_an_environment_with_many_options"
    write_finished(tmp_path / "a", "happo", [-123456.25, -54321.5], env=env, wall_seconds=360000.0, **sizes)
    write_finished(tmp_path / "b", "happo", [-123456.25, -54321.5], env=env, activation="relu")
    report_sweep(tmp_path)
    out = capsys.readouterr().out
    table = out[: out.index("table: ")].split("seeds pooled:\n")[1]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table
    assert env in table
    assert "-123456.25 to -54321.50" in table
    assert "100.0 h" in table
    first = "".join(line.split("│")[1].replace(" ", "") for line in table.splitlines() if line.startswith("│"))
    for label in ("happoactivation=tanhhidden_sizes=[256,256,256]", "happoactivation=reluhidden_sizes=[64,64]"):
        assert label in first


def test_too_many_curves_are_not_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep_report, "MOST_CURVES", 1)
    write_finished(tmp_path / "a", "happo", [1.0, 5.0])
    write_finished(tmp_path / "b", "mappo", [6.0, 7.0])
    assert report_sweep(tmp_path) == []
    out = capsys.readouterr().out
    assert "curves: not drawn, because there would be 2; allowed: up to 1, as `hajax plot DIR ...` draws" in out
    assert not (tmp_path / "plot.png").exists()
    assert len(read_table(tmp_path)) == 2


def test_durations_have_a_suitable_unit():
    assert [shown_seconds(x) for x in (1.25, 119.0, 120.0, 7199.0, 7200.0)] == [
        "1.2 s", "119.0 s", "2.0 min", "120.0 min", "2.0 h"
    ]  # fmt: skip


def test_a_launcher_that_fails_ends_with_the_table_and_one_line(tmp_path, capsys, monkeypatch):
    """As joblib's, whose process of a run was killed."""

    def killed(*arguments, **named):
        raise RuntimeError("A worker process was terminated.\nThis could be caused by")

    monkeypatch.setattr(sweep, "run_job", killed)
    write_finished(tmp_path / "algo=happo", "happo", [1.0, 2.0])
    assert main(["train", "-m", "algo=happo,mappo", f"out_dir={tmp_path}"]) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 runs failed:\n  algo=mappo: no results, and no error" in out
    assert (tmp_path / "summary.csv").exists()
    assert err.strip().splitlines()[-1] == (
        "hajax train: the launcher ended the sweep (RuntimeError: A worker process was terminated.)"
    )


def written(settings, task):
    """As a training, whose return is its clip; one above 0.2 diverges."""
    path = Path(settings.out_dir)
    if (path / "config.yaml").exists():
        raise Refusal(f"out_dir={path} already holds a run")
    final = math.nan if settings.algo["clip"] > 0.2 else settings.algo["clip"]
    status = "diverged" if math.isnan(final) else "finished"
    write_finished(path, "happo", [final], seed=settings.seed, status=status, clip=settings.algo["clip"])
    return {"status": status, "eval_return": {"mean": None if math.isnan(final) else final}}


@pytest.fixture
def workers():
    """Ends the processes of joblib's launcher, which wait for more work."""
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.mark.usefixtures("workers")
def test_runs_that_another_process_refuses_have_failed(tmp_path, capsys):
    overrides = ["seed=0,1", f"out_dir={tmp_path}", "hydra/launcher=processes", "hydra.launcher.n_jobs=2"]
    assert sweep.sweep(overrides, written) == 0
    assert "seeds pooled" in capsys.readouterr().out
    assert sweep.sweep(overrides, written) == 1
    out = capsys.readouterr().out
    assert "2 of 2 runs failed:\n  seed=0: out_dir=" in out
    assert "seeds pooled" not in out


SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=1", "hydra.sweeper.sampler.seed=0"]


def test_a_search_goes_on_after_trials_that_diverge_and_maximizes(tmp_path, capsys):
    assert sweep.sweep([*SEARCH, "algo.clip=interval(0.05, 0.3)", f"out_dir={tmp_path}"], written) == 1
    out = capsys.readouterr().out
    clips = sorted(float(path.name.partition("clip=")[2]) for path in tmp_path.glob("job=*"))
    diverged = [clip for clip in clips if clip > 0.2]
    assert len(clips) == 6
    assert 0 < len(diverged) < 6
    assert f"{len(diverged)} of 6 runs failed:" in out
    assert "make them again" not in out  # another search draws other values
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert found["best_value"] == found["best_params"]["algo.clip"] == max(clip for clip in clips if clip <= 0.2)


def test_a_search_may_draw_a_value_twice(tmp_path):
    assert sweep.sweep([*SEARCH, "algo.clip=choice(0.1, 0.2)", f"out_dir={tmp_path}"], written) == 0
    assert len(list(tmp_path.glob("job=*"))) == 6


def test_a_search_of_nothing_is_refused(tmp_path, capsys):
    assert main(["train", "-m", "hydra/sweeper=optuna", f"out_dir={tmp_path}"]) == 2
    assert "hydra/sweeper=optuna with nothing to search; allowed: " in capsys.readouterr().err
    assert main(["train", "-m", "--print-config", "seed=0,1", f"out_dir={tmp_path}"]) == 2
    assert "--print-config with -m; allowed: the settings of one run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_hydra_s_own_sweeper_makes_every_combination():
    overrides = ["algo=happo,mappo", "seed=0,1"]
    swept = sweep.swept_settings(overrides)
    assert len(sweep.expected_names(overrides, swept)) == 4
    assert sweep.expected_names([*overrides, "hydra/sweeper=optuna"], swept) is None


def test_a_setting_that_is_given_twice_is_named_at_its_first_place():
    overrides = ["env=games/gaussian", "algo=happo,mappo", "seed=3,4", "env=games/hasac_matrix,games/memory", "seed=5"]
    swept = sweep.swept_settings(overrides)
    assert sweep.expected_names(overrides, swept) == {
        f"env=games-{env},algo={algo}" for env in ("hasac_matrix", "memory") for algo in ("happo", "mappo")
    }
