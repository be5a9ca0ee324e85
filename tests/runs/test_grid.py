"""Grids and populations: several hyperparameters in one program, and the run that each point is."""

import csv
import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from tiny import TINY, TINY_OFF_POLICY

import hajax
from hajax.cli import main
from hajax.population import perturb, select
from hajax.runs import ending, runner
from hajax.runs.grid import checked_grid, point_names, points
from hajax.runs.loading import load_run
from hajax.runs.schedule import make_schedule
from hajax.training.checkpoints import CheckpointError, read_checkpoint, restore

pytestmark = pytest.mark.usefixtures("shared_programs", "working_directory")
TWO = "vmap={actor_lr: [1e-3,1e-2]}"


def train(*arguments: str) -> int:
    return main(["train", *TINY, *arguments])


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(table: list[dict[str, str]]) -> np.ndarray:
    return np.array([[float(x or "nan") for x in row.values()] for row in table])


def refused(capsys, *arguments: str) -> str:
    assert train(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said.removeprefix("hajax train: ")


class TestPoints:
    def test_of_lists_are_every_combination(self):
        grid = checked_grid({"actor_lr": [1e-4, 1], "clip": [0.1, 0.2, 0.3]})
        found = points(grid, None, seed=0)
        assert [tuple(point.values()) for point in found] == [(lr, c) for lr in (1e-4, 1.0) for c in (0.1, 0.2, 0.3)]
        assert point_names(found)[:2] == ["actor_lr=0.0001,clip=0.1", "actor_lr=0.0001,clip=0.2"]
        assert point_names(found, population=True)[-1] == "point_5"

    def test_are_drawn_from_ranges_and_lists(self):
        ranges = {"actor_lr": {"low": 1e-5, "high": 1e-1}, "clip": {"low": 0, "high": 0.4, "scale": "linear"}}
        grid = checked_grid(ranges | {"discount": [0.9, 0.99]})
        found = points(grid, 4000, seed=3)
        assert found == points(grid, 4000, seed=3) != points(grid, 4000, seed=4)
        rate, clip, discount = (np.array([point[name] for point in found]) for name in grid)
        # The logarithm of the one and the other itself are uniform, and the values of the list are equally likely.
        for sample, low, high in ((np.log10(rate), -5, -1), (clip, 0, 0.4)):
            assert low <= sample.min() < sample.max() <= high
            np.testing.assert_allclose(
                np.quantile(sample, [0.25, 0.5, 0.75]), np.linspace(low, high, 5)[1:-1], rtol=0.1
            )
        assert abs((discount == 0.9).mean() - 0.5) < 0.03
        assert all(float(f"{x:.4g}") == x for x in rate)

    def test_whose_names_would_be_too_long_are_numbered(self):
        names = [f"a_hyperparameter_of_some_length_{k}" for k in range(5)]
        assert point_names(points({name: [0.1] for name in names}, 2, seed=0)) == ["point_0", "point_1"]

    def test_that_are_equal_have_names_of_their_own(self):
        assert point_names(points({"clip": [0.1]}, 3, seed=0)) == ["clip=0.1", "clip=0.1_2", "clip=0.1_3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vmap=3"], "vmap=3; allowed: null, or hyperparameters with a list"),
        (["vmap={}"], "vmap={}; allowed: null, or hyperparameters with a list"),
        (
            ["vmap={actor_l: [1]}"],
            "vmap.actor_l is no hyperparameter of happo; did you mean actor_lr?; allowed: discount",
        ),
        (["vmap={epochs: [1, 2]}"], "vmap.epochs is no hyperparameter of happo; -m algo.epochs=… compares such values"),
        (["vmap={actor_lr: [1,-1]}"], "vmap.actor_lr=-1.0; allowed: a number >= 0"),
        (["vmap={clip: []}"], "vmap.clip=[]; allowed: a list of different numbers, or a range"),
        (["vmap={clip: 0.1}"], "vmap.clip=0.1; allowed: a list of different numbers, or a range"),
        (["vmap={clip: [0.1, 0.1]}"], "vmap.clip=[0.1, 0.1]; allowed: a list of different numbers"),
        (["vmap={clip: [a]}"], "vmap.clip='a'; allowed: a number"),
        (["vmap={clip: {low: 1}}", "draws=2"], "vmap.clip has no high; allowed: a list"),
        (["vmap={clip: {low: 1, hih: 2}}", "draws=2"], "unknown setting hih=2 of vmap.clip; did you mean high?"),
        (["vmap={clip: {low: 2, high: 1}}", "draws=2"], "vmap.clip.high=1; allowed: a number > 2"),
        (["vmap={clip: {low: 0, high: 1}}", "draws=2"], "vmap.clip.low=0; allowed: a number > 0"),
        (["vmap={clip: {low: 1, high: 2, scale: x}}", "draws=2"], "vmap.clip.scale='x'; allowed: log, linear"),
        (["vmap={clip: {low: 1, high: 2}}"], "vmap.clip is a range with draws=null; allowed: draws=N"),
        (["vmap={gae_lambda: {low: 0.5, high: 1.2, scale: linear}}", "draws=2"], "vmap.gae_lambda.high=1.2; allowed: "),
        (
            ["algo=haml", "algo.drift=kl_old_new", "algo.adaptive=true", "vmap={drift_coef: [0,0.2]}"],
            "vmap.drift_coef=0.0; allowed: a number > 0",
        ),
        (["draws=2"], "draws=2 with vmap=null; allowed: null, or vmap=HYPERPARAMETERS"),
        ([TWO, "pbt.interval=10_000", "total_steps=9000"], "pbt.interval=10000 with total_steps=9000; allowed: less"),
        (["vmap={decay_updates: [1,2]}", "lr_decay=true"], "vmap.decay_updates with lr_decay=true, which sets it"),
        (["pbt.interval=10"], "pbt.interval=10 with vmap=null; allowed: 2 points or more"),
        ([TWO, "pbt.interval=10", "pbt.fraction=0.6"], "pbt.fraction=0.6; allowed: a number >= 0 and <= 0.5"),
        ([TWO, "pbt.interval=10", "pbt.factor=0.5"], "pbt.factor=0.5; allowed: a number >= 1"),
        ([TWO, "render=true"], "render=true with vmap; allowed: false, and `hajax render` of a point's directory"),
        (
            [TWO, "devices=3"],
            "devices=3 with 2 points of vmap, num_seeds=2, num_envs=4 and shard=auto; allowed: 1, 2, 4",
        ),
    ],
)
def test_refusals_come_before_anything_compiles(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(runner, "trace", None)
    assert refused(capsys, *arguments).startswith(message)


def test_a_sweep_of_grids_is_refused(capsys):
    assert refused(capsys, "-m", TWO, "algo=happo,mappo").startswith("vmap={actor_lr: [1e-3,1e-2]} with -m; allowed: ")


def test_simulators_outside_of_jax_are_refused(capsys):
    assert main(["train", "env=gymnasium/CartPole-v1", TWO]) == 2
    assert "vmap with env=gymnasium/CartPole-v1, whose simulators are outside of JAX; allowed: vmap=null" in (
        capsys.readouterr().err
    )


@jax.enable_x64(True)
@pytest.mark.parametrize(
    ("settings", "grid", "value"),
    [
        (TINY, "{actor_lr: [1e-3,1e-2], clip: [0.05,0.2]}", {"actor_lr": 0.01, "clip": 0.05}),
        (
            TINY_OFF_POLICY,
            "{critic_lr: [1e-3,1e-2], target_noise: [0.1,0.2]}",
            {"critic_lr": 0.01, "target_noise": 0.1},
        ),
    ],
    ids=["on_policy", "off_policy"],
)
def test_a_point_is_its_single_run(settings, grid, value, working_directory):
    length = ["total_steps=200", "eval_interval=40"]
    assert main(["train", *settings, *length, f"vmap={grid}", "out_dir=grid"]) == 0
    single = [f"algo.{name}={x}" for name, x in value.items()]
    assert main(["train", *settings, *length, *single, "out_dir=single"]) == 0
    point = working_directory / "grid" / ",".join(f"{name}={x:g}" for name, x in value.items())
    one, other = rows(point / "metrics.csv"), rows(working_directory / "single" / "metrics.csv")
    assert [list(row) for row in one] == [list(row) for row in other]
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-9)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-12),
        load_run(point).states,
        load_run("single").states,
    )
    # Another point is another training.
    first = sorted((working_directory / "grid").glob("*/metrics.csv"))[0]
    assert [row["eval_return_mean"] for row in rows(first)] != [row["eval_return_mean"] for row in one]
    # As a run it has the settings of the single one, and goes on like it.
    configs = [yaml.safe_load((path / "config.yaml").read_text()) for path in (point, working_directory / "single")]
    assert {key for key in configs[0] if configs[0][key] != configs[1][key]} == {"out_dir", "on_non_finite"}
    for path in (point, "single"):
        assert main(["train", f"out_dir={path}", "resume=true", "total_steps=250", "progress=false"]) == 0
    one, other = rows(point / "metrics.csv"), rows(working_directory / "single" / "metrics.csv")
    assert [row["step"] for row in one[-2:]] == [row["step"] for row in other[-2:]] in (["256"] * 2, ["264"] * 2)
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-9)


def test_the_files_of_a_grid(working_directory, capsys):
    assert (
        train("total_steps=96", "eval_interval=32", "vmap={actor_lr: [1e-3,1e-2], clip: [0.1,0.2]}", "out_dir=grid")
        == 0
    )
    said = capsys.readouterr().out
    grid = working_directory / "grid"
    runs = [f"actor_lr={lr},clip={clip}" for lr in ("0.001", "0.01") for clip in ("0.1", "0.2")]
    files = {"checkpoints", "config.yaml", "grid.csv", "grid.png", "points.csv", "summary.json", "timing.csv"}
    assert {path.name for path in grid.iterdir()} == {*files, *runs}
    assert {path.name for path in (grid / runs[0]).iterdir()} == {
        "checkpoints", "config.yaml", "marl_eval.json", "metrics.csv", "summary.json", "timing.csv",
    }  # fmt: skip
    whole, summary = rows(grid / "grid.csv"), json.loads((grid / "summary.json").read_text())
    assert len(whole) == 4 * 4 * 2
    for k, run in enumerate(runs):
        own = [row for row in whole if int(row["point"]) == k]
        assert {(float(row["actor_lr"]), float(row["clip"])) for row in own} == {
            (10.0 ** (k // 2 - 3), 0.1 + k % 2 / 10)
        }
        kept = [{key: row[key] for key in row if key not in ("point", "actor_lr", "clip")} for row in own]
        assert kept == rows(grid / run / "metrics.csv")
        ends = [float(row["eval_return_mean"]) for row in own if row["step"] == "96"]
        assert summary["points"][k]["run"] == run
        assert summary["points"][k]["eval_return"]["per_seed"] == pytest.approx(ends)
        assert json.loads((grid / run / "summary.json").read_text())["eval_return"]["per_seed"] == pytest.approx(ends)
    # The times of the runs add up to those of the program.
    seconds = [float(rows(grid / run / "timing.csv")[-1]["wall_seconds"]) for run in runs]
    assert sum(seconds) == pytest.approx(float(rows(grid / "timing.csv")[-1]["wall_seconds"]), abs=0.01)
    table = rows(grid / "points.csv")
    assert [row["run"] for row in table] == runs
    assert [float(row["iqm"]) for row in table] == [point["eval_return"]["iqm"] for point in summary["points"]]
    best = max(table, key=lambda row: float(row["iqm"]))
    first = next(line for line in said.splitlines() if line.startswith("│"))
    assert f"{float(best['iqm']):.2f}" in first
    # Where a run is expected, one of the points is.
    assert main(["plot", "grid", "--output", "curves.png"]) == 0
    drawn = {row["label"] for row in rows(working_directory / "curves.csv")}
    assert len(drawn) == 4
    assert main(["evaluate", "grid"]) == 2
    assert f"holds the points of vmap; allowed: the run of one point, such as grid/{runs[0]}" in capsys.readouterr().err
    assert hajax.load_policy(grid / runs[3])


@pytest.mark.parametrize("population", [[], ["pbt.interval=32"]], ids=["grid", "population"])
def test_resumed_is_the_same_as_uninterrupted(population, working_directory, monkeypatch):
    settings = ["total_steps=192", "eval_interval=48", "vmap={actor_lr: [1e-3,1e-2,1]}", *population]
    assert train(*settings, "out_dir=whole") == 0
    # Stopped by a signal after the fifth of six iterations.
    slices = runner.slices

    def stopping(programs, run_state, target, stop, *rest):
        for after in slices(programs, run_state, target, stop, *rest):
            if target >= 5:
                stop.set()
            yield after

    with monkeypatch.context() as patch:
        patch.setattr(runner, "slices", stopping)
        assert train(*settings, "out_dir=parts") == 130
    names = ["point_0"] if population else ["actor_lr=1"]
    assert (working_directory / "parts" / names[0] / "metrics.csv").exists()
    assert train("out_dir=parts", "resume=true") == 0
    for name in ("grid.csv", f"{names[0]}/metrics.csv"):
        assert (working_directory / "parts" / name).read_bytes() == (working_directory / "whole" / name).read_bytes()
    for changed in ["vmap={actor_lr: [1e-3,1e-2,2]}", *(["total_steps=400"] if population else [])]:
        assert train(changed, "out_dir=parts", "resume=true") == 2


def test_a_point_that_diverges_does_not_end_the_others(working_directory, capsys):
    settings = ["total_steps=96", "vmap={actor_lr: [1e-2,1e38], max_grad_norm: [inf]}", "out_dir=grid"]
    assert train(*settings) == 0
    summary = json.loads((working_directory / "grid" / "summary.json").read_text())
    good, bad = summary["points"]
    assert (summary["status"], good["status"], bad["status"]) == ("finished", "finished", "diverged")
    assert [failure["seed"] for failure in bad["non_finite"]] == [0, 1]
    assert "non_finite" not in good
    assert summary["total_steps"] == 96
    table = rows(working_directory / "grid" / "points.csv")
    assert [row["diverged_seeds"] for row in table] == ["0", "2"]
    assert table[1]["iqm"] == ""
    assert "2 of 2 diverged" in capsys.readouterr().out
    ends = [row for row in rows(working_directory / "grid" / "grid.csv") if row["step"] == "96"]
    assert {row["point"] for row in ends} == {"0"}
    # To resume what has finished shows the same table.
    assert train("out_dir=grid", "resume=true") == 0
    assert "2 of 2 diverged" in capsys.readouterr().out
    assert rows(working_directory / "grid" / "points.csv") == table


def test_an_ending_that_fails_is_made_up_for_by_resuming(working_directory, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise CheckpointError("the disk is full")

    settings = ["total_steps=64", TWO, "out_dir=grid"]
    with monkeypatch.context() as patch:
        patch.setattr(ending, "save_checkpoint", full)
        assert train("total_steps=64", TWO, "checkpoint.interval=64", "out_dir=other") == 1
    assert "was not saved: the disk is full" in capsys.readouterr().err
    write = ending.write_checkpoint

    def later(this, directory, *rest):
        if directory.path.name == "actor_lr=0.01":
            full()
        write(this, directory, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ending, "write_checkpoint", later)
        with pytest.raises(CheckpointError):
            train(*settings)
    assert not (working_directory / "grid" / "summary.json").exists()
    assert train("out_dir=grid", "resume=true") == 0
    assert hajax.load_policy("grid/actor_lr=0.01")


def test_runs_of_before_there_were_grids_are_pooled_with_others(working_directory):
    for seed in (0, 2):
        assert train("total_steps=64", f"seed={seed}", f"out_dir=runs/{seed}") == 0
    file = working_directory / "runs" / "0" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({key: config[key] for key in config if key not in ("vmap", "draws", "pbt")}))
    assert main(["plot", "runs", "--output", "curves.png"]) == 0
    drawn = rows(working_directory / "curves.csv")
    assert {(row["label"], row["num_seeds"]) for row in drawn} == {("happo", "4")}


@pytest.mark.parametrize("name", ["grid", "points"])
def test_curves_do_not_replace_its_tables(name, capsys):
    assert main(["plot", "runs", "--output", f"{name}.png"]) == 2
    assert f"would write its numbers to {name}.csv, a file of runs" in capsys.readouterr().err


class TestSelection:
    def test_the_worst_go_on_from_the_best(self):
        scores = jnp.array([3.0, 1, 8, 5, 7, 2, 6, 4])
        parents = jax.vmap(lambda key: select(key, scores, 0.25))(jax.random.split(jax.random.key(0), 200))
        kept = jnp.array([0, 2, 3, 4, 6, 7])
        assert (parents[:, kept] == kept).all()
        assert set(np.unique(parents[:, [1, 5]])) == {2, 4}
        assert (parents[:, 1] != parents[:, 5]).any()  # drawn separately

    @pytest.mark.parametrize(("size", "fraction", "count"), [(2, 0.25, 1), (5, 0.5, 2), (8, 0.0, 1), (10, 0.3, 3)])
    def test_how_many(self, size, fraction, count):
        parents = select(jax.random.key(1), jnp.arange(size) * 1.0, fraction)
        assert (parents != jnp.arange(size)).sum() == count
        assert (parents[:count] >= size - count).all()

    def test_members_that_are_not_finite_are_replaced_and_never_taken(self):
        scores = jnp.array([jnp.nan, 1.0, jnp.inf, -jnp.inf, jnp.nan, 0.5])
        for seed in range(20):
            parents = select(jax.random.key(seed), scores, 0.5)
            assert set(np.asarray(parents)) <= {1, 5}
            assert parents[1] == 1
        lost = select(jax.random.key(0), jnp.full(4, jnp.nan), 0.5)
        assert (lost == jnp.arange(4)).all()
        assert select(jax.random.key(0), jnp.zeros(1)) == 0

    def test_perturbations(self):
        usual = hajax.make_algorithm("happo", hajax.make_env("games/hasac_matrix")).hyperparameters
        members = jax.tree.map(lambda x: jnp.full(400, x), usual)
        changed = jnp.arange(400) % 2 == 0
        bounds = {"actor_lr": (0.0, jnp.inf), "gae_lambda": (0.0, 1.0)}
        found = perturb(jax.random.key(0), members, changed, bounds, 1.5)
        assert (found.clip == members.clip).all()
        assert (found.actor_lr[1::2] == members.actor_lr[1::2]).all()
        up = found.actor_lr[::2] > usual.actor_lr
        np.testing.assert_allclose(
            found.actor_lr[::2], jnp.where(up, usual.actor_lr * 1.5, usual.actor_lr / 1.5), rtol=1e-6
        )
        assert abs(up.mean() - 0.5) < 0.1
        more = found.gae_lambda[::2] > usual.gae_lambda
        np.testing.assert_allclose(found.gae_lambda[::2], jnp.where(more, 1.0, usual.gae_lambda / 1.5), rtol=1e-6)
        assert 0.3 < (more == up).mean() < 0.7  # each hyperparameter separately

    def test_happens_between_the_start_and_the_end_after_an_evaluation(self):
        schedule = make_schedule(1000, 10, 300, select_interval=200)
        assert schedule.select_after == (20, 40, 60, 80)
        assert schedule.evaluate_after == (0, 20, 30, 40, 60, 80, 90, 100)
        assert schedule.save_after == schedule.evaluate_after


def test_a_copy_goes_on_as_its_parent_with_random_numbers_of_its_own(working_directory):
    settings = ["total_steps=96", "checkpoint.keep=9", "vmap={actor_lr: [1e-4,1e-2,1e-3,1e-1]}", "pbt.interval=32"]
    assert train(*settings, "pbt.factor=2", "out_dir=run") == 0
    evaluations = rows(working_directory / "run" / "grid.csv")
    assert [int(row["step"]) for row in evaluations][::8] == [0, 32, 64, 96]
    saved = read_checkpoint(working_directory / "run" / "checkpoints", 32)
    single = load_run(working_directory / "run" / "point_0")
    shapes = jax.eval_shape(jax.vmap(single.team.loop.init), jax.random.split(jax.random.key(0), 8))
    state = restore(saved, shapes, under="train/")
    for seed in (0, 1):
        own = {int(row["point"]): row for row in evaluations if (row["step"], row["seed"]) == ("32", str(seed))}
        scores = {point: float(row["eval_return_mean"]) for point, row in own.items()}
        (child,) = [point for point, row in own.items() if int(row["parent"]) != point]
        parent = int(own[child]["parent"])
        assert scores[child] == min(scores.values())
        assert scores[parent] == max(scores.values())
        of_child, of_parent = (jax.tree.map(operator.itemgetter(2 * p + seed), state) for p in (child, parent))
        assert of_child.key != of_parent.key
        rate = float(own[parent]["actor_lr"])
        assert np.isclose(of_child.algorithm.hyperparameters.actor_lr, [rate / 2, rate * 2]).any()
        same = of_parent.algorithm._replace(hyperparameters=None), of_parent.actors
        its = of_child.algorithm._replace(hyperparameters=None), of_child.actors
        jax.tree.map(np.testing.assert_array_equal, its, same)
        after = {int(row["point"]): row for row in evaluations if (row["step"], row["seed"]) == ("64", str(seed))}
        np.testing.assert_allclose(
            float(after[child]["actor_lr"]), of_child.algorithm.hyperparameters.actor_lr, rtol=1e-6
        )
    # Without a selection every point is its own parent.
    assert all(row["parent"] == row["point"] for row in evaluations if row["step"] in ("0", "96"))


def test_a_population_goes_on_without_a_point_that_diverges(working_directory, capsys):
    settings = ["total_steps=128", "vmap={actor_lr: [1e-3,1e-2,1e38]}", "algo.max_grad_norm=1e30", "pbt.interval=64"]
    assert train(*settings, "out_dir=run") == 0
    summary = json.loads((working_directory / "run" / "summary.json").read_text())
    assert [point["status"] for point in summary["points"]] == ["finished"] * 3
    evaluations = rows(working_directory / "run" / "grid.csv")
    assert {row["point"] for row in evaluations if row["step"] == "64"} == {"0", "1"}
    ends = [row for row in evaluations if row["step"] == "128"]
    assert {row["point"] for row in ends} == {"0", "1", "2"}
    assert all(float(row["actor_lr"]) < 0.02 for row in ends)
    best = max(float(row["eval_return_mean"]) for row in ends if row["seed"] == "1")
    assert summary["best"][1]["eval_return"] == best
    assert [float(row["eval_return"]) for row in rows(working_directory / "run" / "points.csv")][1] == best
    assert "the best of 3 points: interquartile mean" in capsys.readouterr().out


def test_a_population_finds_a_learning_rate_from_a_bad_start():
    """Gradient descent on x² / 2, whose best learning rate is 1, and which diverges beyond 2."""

    class Rates(hajax.settings.BaseHyperparameters):
        rate: float = hajax.settings.setting(1.0, "the learning rate", low=0)

    def generation(carry, key):
        x, rates = carry
        x = x * (1 - rates.rate) ** 3  # three steps
        scores = -(x**2)
        choosing, perturbing = jax.random.split(key)
        parents = select(choosing, scores, 0.25)
        copied = jax.tree.map(lambda leaf: leaf[parents], rates)
        rates = perturb(perturbing, copied, parents != jnp.arange(8), {"rate": (0.0, jnp.inf)}, 1.25)
        return (x[parents], rates), scores

    start = jnp.ones(8), Rates(jnp.array([1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 1e-4, 1e-4, 1e30]))
    (_, rates), scores = jax.lax.scan(generation, start, jax.random.split(jax.random.key(0), 120))
    assert scores[0].max() < -0.99
    assert scores[-1].max() > -1e-6
    best = rates.rate[scores[-1].argmax()]
    assert 1 / 3 < best < 2
