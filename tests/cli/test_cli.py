"""The command line: run directories, sweeps, refusals, interruption."""

import csv
import json
import math
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import yaml
from tiny import TINY, TINY_OFF_POLICY

import hajax
from hajax.cli import COMMANDS, main, report, sweep
from hajax.runs import config, directory
from hajax.runs.schedule import make_schedule
from hajax.runs.settings import validate
from hajax.training.statistics import interquartile_mean

pytestmark = pytest.mark.usefixtures("shared_programs", "working_directory")


def train(*arguments: str) -> int:
    return main(["train", *TINY, *arguments])


def files(directory) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def read_rows(directory) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


class TestRunDirectory:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("runs") / "run"
        assert train(f"out_dir={path}", "total_steps=150", "seed=3", "eval.stochastic=true", "eval_interval=64") == 0
        return path

    def test_holds_its_files_and_nothing_else_is_written(self, run, working_directory):
        names = [path.name for path in run.iterdir()]
        written = {"config.yaml", "curve.png", "marl_eval.json", "metrics.csv", "summary.json", "timing.csv"}
        assert set(names) == written | {"checkpoints"}
        assert files(working_directory) == []

    def test_summary(self, run):
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["algo"], summary["env"], summary["status"]) == ("happo", "games/hasac_matrix", "finished")
        assert summary["total_steps"] == 160  # 150 in whole iterations of 32
        assert summary["num_seeds"] == 2
        assert summary["seeds"] == [3, 4]
        returns = summary["eval_return"]
        assert set(returns) == {"mean", "iqm", "ci95", "per_seed"}
        assert len(returns["per_seed"]) == 2
        assert returns["mean"] == pytest.approx(sum(returns["per_seed"]) / 2)
        assert returns["ci95"][0] <= returns["iqm"] <= returns["ci95"][1]
        assert summary["eval_metrics"]["length"]["per_seed"] == [1, 1]
        assert summary["eval_step"] == 160
        assert summary["steps_per_second"] == pytest.approx(320 / summary["train_seconds"], rel=0.05)
        assert summary["wall_seconds"] >= summary["compile_seconds"] > 0
        assert {"platform", "kind", "count"} == set(summary["device"])
        assert {"hajax", "python", "jax", "jaxlib"} <= set(summary["versions"])

    def test_metrics_have_a_row_per_seed_and_evaluation(self, run):
        rows = read_rows(run)
        assert [(int(row["step"]), int(row["seed"])) for row in rows] == [
            (step, seed) for step in (0, 64, 128, 160) for seed in (3, 4)
        ]
        summary = json.loads((run / "summary.json").read_text())
        assert [float(row["eval_return_mean"]) for row in rows[-2:]] == summary["eval_return"]["per_seed"]
        stochastic = [float(row["eval_stochastic_return_mean"]) for row in rows[-2:]]
        assert stochastic == summary["eval_stochastic_return"]["per_seed"]
        assert all(row["eval_length"] == "1.0" for row in rows)
        assert rows[0]["train_episodes"] == ""  # nothing had been trained
        assert [float(row["train_episodes"]) for row in rows[2::2]] == [64, 64, 32]
        assert all(-20 <= float(row["train_episode_return"]) <= 20 for row in rows[2:])
        assert all(math.isfinite(float(row["train_value_loss"])) for row in rows[2:])

    def test_metrics_hold_no_times_and_timing_only_those(self, run):
        assert not any("seconds" in name for name in read_rows(run)[0])
        with open(run / "timing.csv", newline="") as file:
            times = list(csv.DictReader(file))
        assert [int(row["step"]) for row in times] == [0, 64, 128, 160]
        for name in ("wall_seconds", "train_seconds", "eval_seconds"):
            seconds = [float(row[name]) for row in times]
            assert seconds == sorted(seconds)
            assert seconds[-1] > 0

    def test_config_is_resolved(self, run):
        settings = yaml.safe_load((run / "config.yaml").read_text())
        assert settings["out_dir"] == str(run)
        assert settings["seed"] == 3
        assert settings["algo"]["hidden_sizes"] == [8]
        assert settings["env"] == {
            "name": "games/hasac_matrix", "reward": "team", "max_steps": 1, "state": "environment"
        }  # fmt: skip

    def test_results_do_not_depend_on_when_they_are_looked_at(self, run, working_directory):
        assert train("out_dir=again", "total_steps=150", "seed=3", "eval.stochastic=true", "eval_interval=1000") == 0
        once, often = read_rows(working_directory / "again"), read_rows(run)
        assert [row["step"] for row in once] == ["0", "0", "160", "160"]
        for name in ("step", "seed", "eval_return_mean", "eval_return_std", "eval_stochastic_return_mean"):
            assert [row[name] for row in once[-2:]] == [row[name] for row in often[-2:]]

    def test_a_directory_with_a_run_is_refused(self, run, capsys):
        before = (run / "summary.json").stat().st_mtime_ns
        assert train(f"out_dir={run}", "total_steps=150") == 2
        assert f"out_dir={run} already holds a run" in capsys.readouterr().err
        assert (run / "summary.json").stat().st_mtime_ns == before


def test_default_directory(working_directory, capsys):
    assert train("total_steps=32") == 0
    (path,) = (working_directory / "runs").iterdir()
    assert path.name.startswith("games-hasac_matrix_happo_")
    assert str(path.relative_to(working_directory)) in capsys.readouterr().out


def read_summary(directory) -> dict[str, dict[str, str]]:
    """The rows of a sweep's `summary.csv` by label."""
    with open(directory / "summary.csv", newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def test_sweep_stays_in_its_directory(working_directory, capsys):
    assert train("-m", "algo.clip=0.1,0.3", "seed=0,2", "total_steps=32", "out_dir=sweep") == 0
    names = [f"clip={clip},seed={seed}" for clip in (0.1, 0.3) for seed in (0, 2)]
    written = ["plot.csv", "plot.png", "summary.csv"]
    found = sorted(path.name for path in (working_directory / "sweep").iterdir())
    assert found == sorted(["multirun.yaml", *written, *names])
    assert [path.name for path in working_directory.iterdir()] == ["sweep"]
    table = capsys.readouterr().out.split("runs in sweep, seeds pooled:")[1]
    assert all(f"sweep/{name}\n" in table for name in written)
    pooled = read_summary(working_directory / "sweep")
    assert list(pooled) == ["happo clip=0.1", "happo clip=0.3"]
    for name in names:
        settings = yaml.safe_load((working_directory / "sweep" / name / "config.yaml").read_text())
        assert f"clip={settings['algo']['clip']},seed={settings['seed']}" == name
        assert settings["out_dir"] == f"sweep/{name}"
        assert name in pooled[f"happo clip={settings['algo']['clip']}"]["runs"]


def test_sweep_over_algorithms(working_directory, capsys):
    assert train("-m", "algo=happo,mappo,ippo", "seed=0,2", "total_steps=32", "out_dir=sweep") == 0
    runs = sorted((working_directory / "sweep").glob("*/summary.json"))
    names = [path.parent.name for path in runs]
    assert names == [f"algo={algo},seed={seed}" for algo in ("happo", "ippo", "mappo") for seed in (0, 2)]
    summaries = [json.loads(path.read_text()) for path in runs]
    for summary, name in zip(summaries, names, strict=True):
        assert f"algo={summary['algo']},seed={summary['seeds'][0]}" == name
        assert (summary["status"], summary["total_steps"]) == ("finished", 32)
    table = capsys.readouterr().out.split("runs in sweep, seeds pooled:")[1]
    assert "games/hasac_matrix" in table
    for algo, row in read_summary(working_directory / "sweep").items():
        returns = [x for summary in summaries if summary["algo"] == algo for x in summary["eval_return"]["per_seed"]]
        assert float(row["iqm"]) == pytest.approx(interquartile_mean(returns))
        assert (row["num_seeds"], row["step"]) == ("4", "32")
        assert f"│ {algo} " in table


def test_failed_job_of_a_sweep_is_reported_at_the_end_and_does_not_stop_the_others(working_directory, capsys):
    assert train("-m", "algo.minibatches=3,1", "total_steps=32", "out_dir=sweep") == 1
    failed, finished = (working_directory / "sweep" / f"minibatches={n}" for n in (3, 1))
    assert (finished / "summary.json").exists()
    out, err = capsys.readouterr()
    assert err.count("minibatches=3: algo.minibatches=3 does not divide") == 1
    table, report = out.split("1 of 2 runs failed:")
    assert "│ happo " in table
    assert read_summary(finished.parent)["happo"]["runs"] == "minibatches=1"
    assert "minibatches=3: algo.minibatches=3 does not divide" in report
    assert files(failed) == ["error.txt"]
    assert "allowed: a divisor of 32" in (failed / "error.txt").read_text()


def test_crashed_job_of_a_sweep_leaves_its_traceback(working_directory, capsys, monkeypatch):
    def crash(*args, **kwargs):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("hajax.runs.directory.claim", crash)
    assert train("-m", "seed=0,1", "total_steps=32", "out_dir=sweep") == 1
    out = capsys.readouterr().out
    assert "2 of 2 runs failed:" in out
    error = (working_directory / "sweep" / "seed=1" / "error.txt").read_text()
    assert error.startswith("RuntimeError: the disk is full")
    assert "Traceback" in error


def test_sweep_repeated_leaves_what_is_there(working_directory, capsys):
    sweep = ["-m", "seed=0,1", "total_steps=32", "out_dir=sweep"]
    assert train(*sweep) == 0
    before = files(working_directory)
    capsys.readouterr()
    assert train(*sweep) == 1
    out = capsys.readouterr().out
    assert "2 of 2 runs failed:" in out
    assert "seed=0: out_dir=sweep/seed=0 already holds a run" in out
    refused = [f"sweep/seed={seed}.error.txt" for seed in (0, 1)]
    assert files(working_directory) == sorted([*before, *refused])
    assert train(*sweep, "resume=auto") == 0
    assert files(working_directory) == before


def test_sweep_whose_directories_cannot_be_made_reports_it(working_directory, capsys):
    (working_directory / "taken").mkdir()
    for seed in (0, 1):
        (working_directory / "taken" / f"seed={seed}").write_text("mine")
    assert train("-m", "seed=0,1", "total_steps=32", "out_dir=taken") == 1
    assert "2 of 2 runs failed:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["a=1,b=[2]", "it's", "übung (1)", "with space", "~/home", "nan", r"a\[b]", r"a\\b\'c", "a\\"]
)
def test_directories_of_any_name(name, working_directory, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(working_directory))
    assert train("--print-config", f"out_dir={name}") == 0
    assert yaml.safe_load(capsys.readouterr().out)["out_dir"] == name


def test_home_is_home_in_a_sweep_too(working_directory, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(working_directory / "home"))
    assert train("-m", "seed=0", "total_steps=32", "out_dir=~/sweep") == 0
    assert [path.name for path in working_directory.iterdir()] == ["home"]
    assert read_summary(working_directory / "home" / "sweep")["happo"]["runs"] == "job=0"
    assert f"table: {working_directory / 'home' / 'sweep' / 'summary.csv'}\n" in capsys.readouterr().out


def test_sweep_repeated_with_resume_auto_trains_what_is_missing(working_directory, capsys):
    sweep = ["-m", "algo.minibatches=1,2", "total_steps=32", "out_dir=sweep", "resume=auto"]
    assert train(*sweep) == 0
    kept, lost = (working_directory / "sweep" / f"minibatches={n}" for n in (1, 2))
    before = (kept / "metrics.csv").read_bytes(), (lost / "metrics.csv").read_bytes()
    for path in sorted(lost.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert train(*sweep) == 0
    assert ((kept / "metrics.csv").read_bytes(), (lost / "metrics.csv").read_bytes()) == before


LONG = "x" * 300
# The setting, its values as typed, and how the directories of their runs are called, in part.
SWEPT = {
    "lists": ("algo.hidden_sizes", ["[8]", "[8,4]"], ["hidden_sizes=8", "hidden_sizes=8-4"]),
    "dictionaries": ("env.table", ["{a:1,b:[2,3]}", "{}"], ["table=a=1-b=2-3", "table=empty"]),
    "strings": ("env.title", ["'a  b*[c]'", '"a/b $(d)"'], ["title=a__b__c_", "title=a-b___d_"]),
    "nothing and numbers": ("env.title", ["null", "1e-3", "true", "''"], ["null", "0.001", "true", "empty"]),
    "alike": ("env.title", ["'a b'", "'a_b'", "A_b"], ["title=a_b", "title=a_b-", "title=A_b-"]),
    "long": ("env.title", [LONG, f"{LONG}y"], ["title=" + "x" * 40 + "-"] * 2),
}


@pytest.mark.parametrize("case", SWEPT)
def test_runs_of_a_sweep_have_short_and_unique_names(case):
    key, values, expected = SWEPT[case]
    overrides = [f"{key}={','.join(values)}", "seed=0,1"]
    names = sweep.expected_names(overrides, sweep.swept_settings(overrides))
    assert len({name.lower() for name in names}) == 2 * len(values)
    assert all(re.fullmatch(r"[\w.,=+-]{1,120}", name, re.ASCII) for name in names)
    for part in expected:
        assert any(part in name for name in names)
        assert part.endswith("-") or any(name == f"{part},seed=1" or name.endswith(f"={part},seed=1") for name in names)


def test_runs_of_a_sweep_over_anything_are_whole(working_directory, capsys, monkeypatch):
    """Evaluated, resumed and loaded afterwards."""
    (working_directory / "town.py").write_text(OWN_ENVIRONMENT)
    monkeypatch.setattr("sys.path", [str(working_directory), *sys.path])
    monkeypatch.setenv("COLUMNS", "200")
    own = ["env=town:meeting", "total_steps=32", "out_dir=all of [them]", "num_seeds=1", f"env.title='{LONG} [b]'"]
    assert train("-m", *own, "algo.hidden_sizes=[8],[8,4]", "env.table={a:[1]}") == 0
    assert "runs in all of [them], seeds pooled:" in capsys.readouterr().out
    runs = sorted(path for path in (working_directory / "all of [them]").iterdir() if path.is_dir())
    assert [run.name for run in runs] == ["hidden_sizes=8", "hidden_sizes=8-4"]
    for run, sizes in zip(runs, ([8], [8, 4]), strict=True):
        settings = yaml.safe_load((run / "config.yaml").read_text())
        assert settings["algo"]["hidden_sizes"] == sizes
        assert (settings["env"]["title"], settings["env"]["table"]) == (f"{LONG} [b]", {"a": [1]})
    pooled = read_summary(working_directory / "all of [them]")
    assert {row["runs"] for row in pooled.values()} == {run.name for run in runs}
    for run in runs:
        assert hajax.load_policy(run).spec.num_agents == 2
    assert main(["evaluate", str(runs[1]), "--episodes", "2"]) == 0
    assert main(["train", f"out_dir={runs[1].parent.name}/{runs[1].name}", "resume=true", "total_steps=64"]) == 0


def test_two_sweeps_at_once_and_a_run_beside_them(working_directory, monkeypatch):
    """All in the same second; a directory is claimed by creating it."""
    stopped = datetime(2030, 1, 2, 3, 4, 5)
    monkeypatch.setattr(directory, "datetime", types.SimpleNamespace(now=lambda: stopped))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: directory.new_directory("sweep"), range(24)))
    assert len(set(made)) == 24
    assert all(path.is_dir() for path in made)
    for seed in (0, 1):
        assert train("-m", f"seed={seed}", "total_steps=32", "num_seeds=1") == 0
        path = working_directory / "runs" / f"sweep_20300102-030405_{25 + seed}" / "job=0"
        assert yaml.safe_load((path / "config.yaml").read_text())["seed"] == seed


def test_a_name_too_long_for_the_file_system_is_refused(working_directory, capsys):
    assert train(f"out_dir={'x' * 300}", "total_steps=32") == 2
    assert "can't be created (File name too long); allowed" in capsys.readouterr().err
    assert files(working_directory) == []


OWN_ENVIRONMENT = """
from hajax.envs.games import matrix

def meeting(*, places: int = 2, table=None, title="", reward="team"):
    return matrix([[float(i == j) for j in range(places)] for i in range(places)], reward=reward)

def empty(*, size: int, table=object()):
    return matrix([[1.0] * size], reward="team")

def wrong():
    return 3

def careful(*, places: int = 2):
    if places > 4: raise ValueError(f"places={places}; allowed: at most 4")
    if places > 3:
        raise ValueError(f"places={places}; allowed: at most 3")
    return meeting(places=places)

def careless(*, places: int = 2):
    made = meeting(places=places)
    return made._replace(step=lambda key, state, action: made.step(key, state, action + "1"))

FLAT = [1]
"""


def test_environment_of_one_s_own_from_the_working_directory(working_directory, capsys, monkeypatch):
    (working_directory / "town.py").write_text(OWN_ENVIRONMENT)
    monkeypatch.setattr("sys.path", [str(working_directory), *sys.path])
    assert train("env=town:meeting", "env.places=4", "total_steps=32", "out_dir=run") == 0
    settings = yaml.safe_load((working_directory / "run" / "config.yaml").read_text())
    assert settings["env"] == {
        "name": "town:meeting", "places": 4, "table": None, "title": "", "reward": "team", "state": "environment"
    }  # fmt: skip
    assert main(["evaluate", "run", "--episodes", "3"]) == 0
    assert main(["train", "out_dir=run", "resume=true", "env.places=4", "total_steps=64", "progress=false"]) == 0
    assert main(["train", "out_dir=run", "resume=true", "env.places=3", "total_steps=64"]) == 2
    assert "was started with env.places=4" in capsys.readouterr().err
    assert train("env=town:empty", "env.size=2", "total_steps=32", "out_dir=needy") == 0
    for again in ([], ["env.size=2"], ["env=town:empty", "env.size=2"]):
        assert main(["train", "out_dir=needy", "resume=true", "total_steps=32", "progress=false", *again]) == 0
    assert main(["train", "out_dir=needy", "resume=true", "env.sise=2"]) == 2
    assert "there is no setting env.sise; did you mean env.size" in capsys.readouterr().err
    assert train("--print-config", "env=town:empty", "env.size=3", "env.state=observations") == 0
    assert train("-m", "env=town:meeting", "total_steps=32", "out_dir=sweep") == 0
    assert (working_directory / "sweep" / "job=0" / "summary.json").exists()
    capsys.readouterr()
    for argument, expected in {
        "env=town:meting": "module 'town' has no attribute 'meting'; allowed: module:function",
        "env=twon:meeting": "No module named 'twon'; allowed: module:function",
        "env=json.nope:f": "No module named 'json.nope'; allowed: module:function",
        "env=..x:f": "allowed: module:function",
        "env=town:FLAT": "environment 'town:FLAT' is list; allowed: a function",
        "env=town:wrong": "the factory of 'town:wrong' returned int",
        "env=town:empty": "env.size is missing and has no default; allowed: env.size=VALUE",
        "env.place=3": "did you mean env.places",
    }.items():
        assert train("env=town:meeting", argument) == 2
        assert expected in capsys.readouterr().err


def test_errors_in_one_s_own_environment_say_where(working_directory, capsys, monkeypatch):
    (working_directory / "city.py").write_text(OWN_ENVIRONMENT)
    (working_directory / "typo.py").write_text("def meeting():\n    return 1 +\n")
    (working_directory / "fails.py").write_text("def start():\n    return {}['x']\n\n\nstart()\n")
    monkeypatch.setattr("sys.path", [str(working_directory), *sys.path])
    line = OWN_ENVIRONMENT.splitlines().index(next(x for x in OWN_ENVIRONMENT.splitlines() if '"1"' in x)) + 1
    city = working_directory / "city.py"
    for arguments, expected in {
        ("env=city:careful", "env.places=4"): "env.places=4; allowed: at most 3\n",
        ("env=city:careful", "env.places=5"): "env.places=5; allowed: at most 4\n",
        ("env=city:careless",): f"({city}:{line}, in <lambda>)\n",
        ("env=typo:meeting",): f"can't be imported: SyntaxError: invalid syntax ({working_directory / 'typo.py'}:2)\n",
        ("env=fails:meeting",): f"can't be imported: KeyError: 'x' ({working_directory / 'fails.py'}:2, in start)\n",
    }.items():
        assert train(*arguments) == 2
        error = capsys.readouterr().err
        assert error.endswith(expected)
        assert error.count("\n") == 1


REFUSALS = {
    "num_seeds=abc": ("num_seeds=abc", "a whole number >= 1"),
    "num_seeds=0": ("num_seeds=0", "a whole number >= 1"),
    "num_envs=-4": ("num_envs=-4", "a whole number >= 1"),
    "rollout_length=1.5": ("rollout_length=1.5", "a whole number >= 1"),
    "total_steps=null": ("total_steps=null", "a whole number >= 1"),
    "eval_interval=0": ("eval_interval=0", "a whole number >= 1 or null"),
    "eval.episodes=true": ("eval.episodes=true", "a whole number >= 1"),
    "lr_decay=maybe": ("lr_decay=maybe", "true or false"),
    "seed=-1": ("seed=-1", "a whole number >= 0"),
    "seed=2147483647": ("seed=2147483647", "at most 2147483646"),
    "eval=3": ("eval=3", "a group of settings"),
    "algo=hapo": ("algo=hapo", "did you mean happo or hatrpo or a2po?"),
    "algo=null": ("algo=null", "happo"),
    "env=spread": ("env=spread", "did you mean mpe/simple_spread or mpe/spread_3_ful"),
    "env=mpe/simple_sprad": ("env=mpe/simple_sprad", "did you mean mpe/simple_spread"),
    "preset=harl": ("preset=harl", "harl/mpe"),
    "numseeds=3": ("numseeds=3", "did you mean num_seeds"),
    "alg=happo": ("alg=happo", "did you mean algo"),
    "algo.clipp=0.1": ("algo.clipp=0.1", "did you mean algo.clip "),
    "+algo.momentum=0.1": ("momentum=0.1", "happo"),
    "env.max_step=9": ("env.max_step=9", "did you mean env.max_steps"),
    "checkpoint.keep=0": ("checkpoint.keep=0", "a whole number >= 1"),
    "checkpoint.interval=-5": ("checkpoint.interval=-5", "a whole number >= 1 or null"),
    "checkpoint.kep=1": ("checkpoint.kep=1", "did you mean checkpoint.keep"),
    "logger=[csv,tensorbord]": ("logger 'tensorbord'; did you mean tensorboard?", "csv, tensorboard, wandb"),
    "on_non_finite=ignore": ("on_non_finite=ignore", "stop or continue"),
    "render=yes please": ("render=yes please", "true, false or auto"),
    "+color=red": ("color=red", "num_seeds"),
    "seed=${nothing}": ("nothing", "not found"),
    "algo.lr=0.1": ("algo.lr=0.1", "did you mean algo.actor_lr or algo.critic_lr"),
    "algo.clip=0.1,0.2": ("algo.clip=0.1,0.2 is a sweep", "-m"),
    "--num_seeds": ("--num_seeds", "did you mean num_seeds=…?"),
    "algo.clip=[0.1": ("algo.clip=[0.1", "name=value"),
    "quickly": ("quickly", "name=value"),
    "--fast": ("--fast", "--multirun"),
}
LIBRARY_REFUSALS = {
    "algo.clip=-1": ("algo.clip=-1;", "a number > 0"),
    "algo.clip=abc": ("algo.clip=abc;", "a number > 0"),
    "algo.clip=null": ("algo.clip=null;", "a number > 0"),
    "algo.clip=[0.1,0.2]": ("algo.clip=[0.1,0.2];", "a number > 0"),
    "algo.clip={a:1}": ("algo.clip={a:1};", "a number > 0"),
    "algo.clip=nan": ("algo.clip=nan;", "a number > 0"),
    "algo.epochs=0": ("algo.epochs=0;", "a whole number >= 1"),
    "algo.epochs=[3]": ("algo.epochs=[3];", "a whole number >= 1"),
    "algo.epochs=5_000_000_000": ("algo.epochs=5000000000;", "<= 2147483647"),
    "algo.critic_epochs=[1,2]": ("algo.critic_epochs=[1,2];", "a whole number >= 1"),
    "algo.hidden_sizes=64": ("algo.hidden_sizes=64;", "a list of whole numbers >= 1, such as [64,64]"),
    "algo.hidden_sizes=[]": ("algo.hidden_sizes=[];", "a list of whole numbers >= 1"),
    "algo.hidden_sizes=[8,0]": ("algo.hidden_sizes=[8,0];", "a list of whole numbers >= 1"),
    "algo.hidden_sizes=[8,[8]]": ("algo.hidden_sizes=[8,[8]];", "a list of whole numbers >= 1"),
    "algo.layer_norm=1": ("algo.layer_norm=1;", "true, false"),
    "algo.layer_norm=[true]": ("algo.layer_norm=[true];", "true, false"),
    "algo.order=sorted": ("algo.order=sorted;", "random, fixed, simultaneous"),
    "algo.order=[random]": ("algo.order=[random];", "random, fixed, simultaneous"),
    "algo.sharing=3": ("algo.sharing=3;", "none, all, type, or a list"),
    "algo.sharing=[0,1.5]": ("algo.sharing=[0,1.5];", "none, all, type, or a list"),
    "algo.sharing=[0,2]": ("algo.sharing=[0,2];", "2 group indices"),
    "algo.minibatches=5": ("algo.minibatches=5 does not", "a divisor of 32"),
    "env.reward=individual": ("env.reward=individual of games/hasac_matrix", "team"),
    "algo.reward=individual": ("algo.reward=individual of games/hasac_matrix", "team"),
    "env.max_steps=0": ("env.max_steps=0;", ">= 1"),
    "env.max_steps=[1]": ("env.max_steps=[1];", ">= 1"),
    "num_envs=5_000_000_000": ("num_envs=5000000000;", "<= 2147483647"),
    "total_steps=9_000_000_000_000": ("total_steps=9000000000000;", "at most"),
    "preset=harl/half_cheetah_2x3": ("preset=harl/half_cheetah_2x3 with env=games/hasac_matrix;", "half_cheetah_*"),
}


@pytest.mark.parametrize("argument", [*REFUSALS, *LIBRARY_REFUSALS])
def test_refusals_are_one_line_with_field_value_and_what_is_allowed(argument, working_directory, capsys):
    given, allowed = (REFUSALS | LIBRARY_REFUSALS)[argument]
    assert train(argument, "out_dir=refused") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("hajax train: ")
    assert given in err
    assert allowed in err
    assert files(working_directory) == []


OFF_POLICY_REFUSALS = {
    "a buffer smaller than a minibatch": (
        ["algo.batch_size=500"],
        "algo.buffer_size=400 is less than algo.batch_size=500",
        "500",
    ),
    "more steps than an episode has": (
        ["algo.n_step=26", "algo.warmup_steps=200"],
        "algo.n_step=26 is longer than an episode of games/linear_quadratic, which is over after 25 steps",
        "at most 25",
    ),
    "updates before the warm-up's end": (["algo.warmup_steps=8"], "algo.warmup_steps=8 ends before", "at least 16"),
    "too many joint choices": (
        ["algo=had3qn", "env=smax/3s5z", "algo.head_sizes=[8]"],
        "13 x 13 x 13 x 13 x 13 x 13 x 13 x 13 = 815730721 joint choices",
        "at most 10000",
    ),
    "Box actions": (["algo=had3qn", "algo.head_sizes=[8]"], "had3qn", "discrete"),
    "a run that is all warm-up": (["total_steps=40"], "total_steps=40", "more than the 40 of the warm-up"),
}


@pytest.mark.parametrize("case", OFF_POLICY_REFUSALS)
def test_off_policy_refusals_are_one_line_as_well(case, working_directory, capsys):
    arguments, given, allowed = OFF_POLICY_REFUSALS[case]
    assert main(["train", *TINY_OFF_POLICY, *arguments, "out_dir=refused"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert given in err
    assert allowed in err
    assert files(working_directory) == []


def test_sharing_among_agents_that_differ_is_refused(working_directory, capsys):
    assert main(["train", "env=mpe/simple_speaker_listener", "algo.sharing=all", "out_dir=refused"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "algo.sharing=all puts" in err
    assert "allowed: " in err
    assert files(working_directory) == []


@pytest.mark.parametrize("argument", ["num_seeds=1,abc", "algo=happo,hapo", "env=games/gaussian,games/gausian"])
def test_every_value_of_a_sweep_is_checked_before_it_starts(argument, working_directory, capsys):
    assert train("-m", argument, "out_dir=refused") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert files(working_directory) == []


def test_output_directory_that_is_a_file_is_refused(working_directory, capsys):
    (working_directory / "taken").write_text("mine")
    assert train("out_dir=taken", "total_steps=32") == 2
    assert "out_dir=taken" in capsys.readouterr().err
    assert (working_directory / "taken").read_text() == "mine"


def test_unknown_command(capsys):
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_every_help_fits_into_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    several = [["--help"], *([name, "--help"] for name in COMMANDS), ["train", "algo=hasac", "env=smax/3m", "--help"]]
    for arguments in [*several, ["train", "preset=harl/ant_4x2_hatrpo", "--help"], ["list"]]:
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 5
        assert not [line for line in lines if len(line.rstrip()) > 80], arguments


def test_help_and_version(capsys):
    for arguments in (["--help"], [], ["train", "--help"], ["list", "--help"], ["--version"]):
        assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "num_seeds=4" in out
    assert hajax.__version__ in out


def test_list_shows_everything_that_can_be_trained(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in (*hajax.list_algorithms(), *hajax.list_envs(), "harl/mpe", "jumanji/NAME", "module:function"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "names", "others"),
    [
        (["algorithms"], ["happo", "hasac"], ["mpe/simple_spread", "harl/mpe"]),
        (["environments", "SPREAD"], ["mpe/simple_spread"], ["mpe/simple_reference", "happo"]),
        (["presets", "harl/mpe*"], ["harl/mpe_hatrpo"], ["harl/smac", "hajax/smax"]),
        (["dueling"], ["had3qn", "id3qn"], ["haddpg", "harl/mpe"]),
    ],
)
def test_list_shows_what_is_asked_for(arguments, names, others, capsys):
    assert main(["list", *arguments]) == 0
    shown = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert set(names) <= shown
    assert not set(others) & shown


def test_list_cuts_no_sentence_at_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for group in ("algo", "env", "preset"):
        for option in config.options(group):
            text = config.description(group, option)
            assert text
            assert f"{option} " in words
            # Wrapped lines of the second column are indented.
            assert " ".join(text.split()) in words, option


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zzz"], "hajax list: no name or description holds zzz; allowed: a text or a pattern of algorithms, env"),
        (["algorithms", "spread"], "no name or description holds spread; allowed: a text or a pattern of algorithms"),
        (["algo", "happo"], "hajax list: group=algo is unknown"),
        (["presets", "mpe", "harl"], "hajax list: harl is one pattern too many for `hajax list`; allowed: one"),
    ],
)
def test_what_list_refuses(arguments, message, capsys):
    assert main(["list", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_print_config_shows_the_composed_settings(capsys, working_directory):
    assert main(["train", "--print-config", "preset=harl/mpe", "num_seeds=7"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["num_seeds"] == 7
    assert settings["preset"] == "harl/mpe"
    assert files(working_directory) == []


@pytest.mark.parametrize(("physics", "said"), [("faithful", True), ("mujoco", False)])
def test_physics_that_compile_for_minutes_are_announced(physics, said, capsys, tmp_path):
    overrides = ["env=mamujoco/ant_4x2", f"env.physics={physics}", "total_steps=8000"]
    settings = validate(config.compose(overrides))
    team = types.SimpleNamespace(loop=types.SimpleNamespace(replay_bytes=0))
    report.print_start(settings, make_schedule(8000, 4000, None), tmp_path, None, team)
    shown = capsys.readouterr().err
    assert "happo on mamujoco/ant_4x2" in shown
    assert (f"env.physics={physics} is compiled with the program" in shown) == said
