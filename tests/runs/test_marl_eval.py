"""Runs in marl-eval's schema: its structure, our values, and no pooling of what does not belong together."""

import json

import pytest
import yaml

from hajax.cli.export import export
from hajax.runs import marl_eval
from hajax.runs.errors import Refusal

ENV = {"name": "mpe/simple_spread", "num_agents": 3}
ALGO = {"name": "happo", "clip": 0.2}


def make_run(path, env=ENV, algo=ALGO, seeds=(0, 1), steps=(0, 100, 200), change=lambda step, seed, row: row):
    """A run directory as `hajax train` leaves it: return −100 + step + seed at 10, 15, 20, … seconds."""
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump({"algo": algo, "env": env, "num_seeds": len(seeds)}))
    header = "step,seed,eval_return_mean,eval_return_std,eval_length,eval_distance_mean,train_entropy"
    rows = [
        change(step, seed, [step, seed, -100.0 + step + seed, 2.5, 25.0, 0.5, "" if step == 0 else 1.0])
        for step in steps
        for seed in seeds
    ]
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (path / "metrics.csv").write_text("".join(f"{line}\n" for line in lines))
    timing = [f"{step},{10.0 + 5.0 * index},4.0,1.0\n" for index, step in enumerate(steps)]
    (path / "timing.csv").write_text("step,wall_seconds,train_seconds,eval_seconds\n" + "".join(timing))
    return path


def test_structure_and_values_of_one_run(tmp_path):
    marl_eval.write_marl_eval(make_run(tmp_path / "a"))
    document = json.loads((tmp_path / "a" / "marl_eval.json").read_text())
    others = {"return_std": [2.5], "length": [25.0], "distance_mean": [0.5]}
    assert document == {
        "mpe": {
            "simple_spread": {
                "happo": {
                    f"seed_{seed}": {
                        "step_0": {"step_count": 0, "elapsed_time": 0.0, "return": [-100.0 + seed], **others},
                        "step_1": {"step_count": 100, "elapsed_time": 5.0, "return": [seed], **others},
                        "step_2": {"step_count": 200, "elapsed_time": 10.0, "return": [100.0 + seed], **others},
                        "absolute_metrics": {"elapsed_time": 10.0, "return": [100.0 + seed], **others},
                    }
                    for seed in (0, 1)
                }
            }
        }
    }
    steps = list(document["mpe"]["simple_spread"]["happo"]["seed_1"])
    assert steps == ["step_0", "step_1", "step_2", "absolute_metrics"]  # marl-eval goes by this order


def test_every_step_of_every_seed_has_the_same_metrics(tmp_path):
    """A metric that has no value somewhere is left out everywhere: marl-eval refuses what differs."""

    def change(step, seed, row):
        row[4] = "inf" if (step, seed) == (200, 0) else row[4]
        row[5] = "" if (step, seed) == (100, 1) else row[5]
        return row

    (seeds,) = marl_eval.marl_eval_json([marl_eval.read_run(make_run(tmp_path / "a", change=change))])["mpe"][
        "simple_spread"
    ].values()
    names = {frozenset(metrics) - {"step_count"} for steps in seeds.values() for metrics in steps.values()}
    assert names == {frozenset({"elapsed_time", "return", "return_std"})}


def test_an_evaluation_that_was_not_completed_is_left_out(tmp_path):
    path = make_run(tmp_path / "a")
    with open(path / "metrics.csv", "a") as file:
        file.write("300,0,1.0,2.5,25.0,0.5,1.0\n300,1,1.")
    with open(path / "timing.csv", "a") as file:
        file.write("300,2")
    (seeds,) = marl_eval.marl_eval_json([marl_eval.read_run(path)])["mpe"]["simple_spread"].values()
    assert [list(steps) for steps in seeds.values()] == [["step_0", "step_1", "step_2", "absolute_metrics"]] * 2


def test_export_merges_seeds_algorithms_and_tasks(tmp_path, capsys):
    reference = {"name": "mpe/simple_reference"}
    matrix = {"name": "games/matrix"}
    paths = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", seeds=(2, 3)),
        make_run(tmp_path / "c", algo={"name": "mappo", "clip": 0.1}),
        make_run(tmp_path / "d", env=reference, algo=ALGO | {"clip": 0.3}),
        make_run(tmp_path / "e", env=matrix, steps=(0, 50)),
    ]
    output = tmp_path / "all.json"
    assert export([*map(str, paths), "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    runs = {
        (environment, task, algorithm): list(seeds)
        for environment, tasks in document.items()
        for task, algorithms in tasks.items()
        for algorithm, seeds in algorithms.items()
    }
    assert runs == {
        ("mpe", "simple_spread", "happo"): ["seed_0", "seed_1", "seed_2", "seed_3"],
        ("mpe", "simple_spread", "mappo"): ["seed_0", "seed_1"],
        ("mpe", "simple_reference", "happo"): ["seed_0", "seed_1"],
        ("games", "matrix", "happo"): ["seed_0", "seed_1"],
    }
    assert document["mpe"]["simple_spread"]["happo"]["seed_3"]["step_1"]["return"] == [3.0]
    assert f"{output}: 5 runs" in capsys.readouterr().out
    assert export([str(tmp_path), "--output", str(output)]) == 0  # a folder of them
    assert json.loads(output.read_text()) == document
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "all.json", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({}, "both hold seed 0 of happo; allowed: each seed once"),
        ({"seeds": (2, 3), "env": ENV | {"num_agents": 5}}, "differ in env.num_agents: 3, 5; allowed: equal options"),
        ({"seeds": (2, 3), "env": ENV | {"shaped": True}}, r"differ in env.shaped: \(default\), True; allowed"),
        ({"seeds": (2, 3), "algo": ALGO | {"clip": 0.1}}, "differ in algo.clip: 0.2, 0.1; allowed: equal options"),
        ({"seeds": (2, 3), "steps": (0, 100)}, "have 3 and 2 evaluations; allowed: as many in each"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, second, message):
    paths = [make_run(tmp_path / "a"), make_run(tmp_path / "b", **second)]
    with pytest.raises(Refusal, match=f"^{paths[0]} and {paths[1]} {message}"):
        export([*map(str, paths), "--output", str(tmp_path / "all.json")])
    assert not (tmp_path / "all.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--outptu", "x.json"], "--outptu is not a flag of `hajax export`; did you mean --output"),
        (["--output", "x.json"], "0 directories given to `hajax export`; allowed: one or more"),
        (["a", "--output", "x.txt"], "--output=x.txt; allowed: a file whose name ends in .json"),
        (["a", "--output", "no/x.json"], "there is no directory no; allowed: a file in one that exists"),
        (["nothing", "--output", "x.json"], "nothing is not a directory; allowed: "),
        (["begun", "--output", "x.json"], "begun has no complete evaluation; allowed: a run with at least one"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a")
    make_run(tmp_path / "begun", steps=())
    with pytest.raises(Refusal, match=message):
        export(arguments)
    assert not list(tmp_path.glob("*.json"))
