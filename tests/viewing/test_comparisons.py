"""`hajax plot --kind`: exact numbers of small runs, what is refused, and what is drawn."""

import csv
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import trim_mean
from written_runs import write_run

from hajax.cli.plot import plot
from hajax.runs.errors import Refusal
from hajax.runs.files import find_runs, read_run
from hajax.training.statistics import (
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap_interval,
)
from hajax.viewing.groups import group_runs
from hajax.viewing.scores import complete, final_scores

KINDS = ("profiles", "improvement", "efficiency")
# Final scores by algorithm and environment; one tie on spread, and reference is on another scale.
FINAL = {
    ("happo", "mpe/simple_spread"): [3.0, 1.0, 2.0],
    ("happo", "mpe/simple_reference"): [-100.0, -50.0],
    ("mappo", "mpe/simple_spread"): [1.0, 0.0],
    ("mappo", "mpe/simple_reference"): [-75.0, -60.0],
}

pytestmark = pytest.mark.usefixtures("working_directory")


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (saved.append(self), save(self, *args, **kw)))
    return saved


def write_pair(path, algo, env, final, steps=(0, 100), **settings):
    """A run whose scores rise linearly from 0 to the final ones."""
    returns = np.outer(np.linspace(0, 1, len(steps)), final)
    return write_run(
        path, algo={"name": algo}, env={"name": env}, seeds=range(len(final)), steps=steps, returns=returns, **settings
    )


def write_all(path):
    for k, ((algo, env), final) in enumerate(FINAL.items()):
        write_pair(path / f"run{k}", algo, env, final)
    return path


def numbers(path, *texts):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: x if name in texts else float(x or "nan") for name, x in row.items()} for row in rows]


def scores_of(*directories):
    methods = complete("profiles", group_runs([read_run(path) for path in find_runs(directories)]))
    scores, endings = final_scores("profiles", methods)
    return {label: [task.tolist() for task in tasks] for label, tasks in scores.items()}, endings


class TestFinalScores:
    def test_are_those_of_the_last_evaluation_as_in_the_tables(self, tmp_path):
        """And not the best, or those of a seed that is evaluated at an earlier step."""
        returns = np.array([[0.0, 0.0], [9.0, 9.0], [3.0, 4.0]])
        write_run(tmp_path / "a", steps=(0, 100, 200), returns=returns)
        write_run(tmp_path / "b", steps=(0, 100, 200), seeds=(2,), returns=np.array([[0.0], [8.0], [5.0]]))
        scores, (ending,) = scores_of(tmp_path)
        assert scores == {"happo": [[3.0, 4.0, 5.0]]}
        assert (ending.steps, ending.longest, ending.without) == (200, 200, 0)

    def test_are_at_the_end_of_the_shortest_run_on_their_environment(self, tmp_path, capsys):
        write_pair(tmp_path / "long", "happo", "mpe/simple_spread", [3.0], steps=(0, 100, 200, 300))
        write_pair(tmp_path / "short", "mappo", "mpe/simple_spread", [5.0], steps=(0, 100, 200))
        write_pair(tmp_path / "x", "happo", "mpe/simple_reference", [1.0], steps=(0, 300))
        write_pair(tmp_path / "y", "mappo", "mpe/simple_reference", [2.0], steps=(0, 300))
        scores, endings = scores_of(tmp_path)
        assert scores == {"happo": [[2.0], [1.0]], "mappo": [[5.0], [2.0]]}
        assert [ending.steps for ending in endings] == [200, 300]
        assert plot([str(tmp_path), "--kind=improvement"]) == 0
        out = capsys.readouterr().out
        short = f"at 200 steps, where {tmp_path / 'short'} ends; the longest run has 300"
        assert f"mpe/simple_spread: final scores {short}" in out
        assert "mpe/simple_reference: final scores at 300 steps\n" in out

    def test_runs_whose_iterations_differ_end_at_about_the_same_steps(self, tmp_path):
        write_pair(tmp_path / "a", "happo", "mpe/simple_spread", [3.0], steps=(0, 980, 1004))
        write_pair(tmp_path / "b", "mappo", "mpe/simple_spread", [5.0], steps=(0, 500, 1000))
        scores, (ending,) = scores_of(tmp_path)
        assert scores == {"happo": [[3.0]], "mappo": [[5.0]]}
        assert ending.steps == 1000

    def test_a_run_that_was_not_evaluated_there_is_refused(self, tmp_path):
        short = write_pair(tmp_path / "a", "happo", "mpe/simple_spread", [3.0], steps=(0, 100))
        long = write_pair(tmp_path / "b", "mappo", "mpe/simple_spread", [5.0], steps=(0, 90, 110))
        with pytest.raises(Refusal) as refusal:
            plot([str(tmp_path), "--kind=profiles"])
        assert str(refusal.value) == (
            f"--kind=profiles compares scores on mpe/simple_spread at 100 steps, where {short} ends, but {long} has no "
            "evaluation within 5% of them; allowed: runs of about the same length"
        )

    def test_a_seed_that_diverged_is_below_all_others(self, tmp_path, capsys):
        write_pair(tmp_path / "a", "happo", "mpe/simple_spread", [3.0, math.nan])
        write_pair(tmp_path / "b", "mappo", "mpe/simple_spread", [-5.0, -6.0])
        assert scores_of(tmp_path)[0]["happo"] == [[3.0, -math.inf]]
        assert plot([str(tmp_path), "--kind=improvement"]) == 0
        assert numbers(tmp_path / "plot_improvement.csv", "env", "first", "second")[0]["probability"] == 0.5
        assert "1 without a score there, as if it were below all others" in capsys.readouterr().out
        assert plot([str(tmp_path), "--kind=profiles"]) == 0
        rows = numbers(tmp_path / "plot_profiles.csv", "env", "label")
        shares = [row["share"] for row in rows if row["label"] == "happo"]
        assert shares == [0.5, 0.5, 0.5, 0, 0]  # below -6, at -6, -5, 3, and beyond
        assert all(math.isfinite(row["tau"]) for row in rows)

    def test_no_score_at_all_is_refused(self, tmp_path):
        write_pair(tmp_path / "a", "happo", "mpe/simple_spread", [math.nan])
        with pytest.raises(Refusal, match="no seed has a score on mpe/simple_spread at 100 steps; allowed: "):
            plot([str(tmp_path), "--kind=profiles"])


class TestProfiles:
    def test_of_one_environment_are_of_the_scores_as_they_are(self, tmp_path):
        for algo in ("happo", "mappo"):
            write_pair(tmp_path / algo, algo, "mpe/simple_spread", FINAL[algo, "mpe/simple_spread"])
        assert plot([str(tmp_path), "--kind", "profiles"]) == 0
        assert (tmp_path / "plot_profiles.png").read_bytes().startswith(b"\x89PNG")
        rows = numbers(tmp_path / "plot_profiles.csv", "env", "label")
        assert [row["tau"] for row in rows if row["label"] == "happo"] == pytest.approx([-0.15, 0, 1, 2, 3, 3.15])
        shares = {label: [row["share"] for row in rows if row["label"] == label] for label in ("happo", "mappo")}
        assert shares["happo"] == pytest.approx([1, 1, 2 / 3, 1 / 3, 0, 0])
        assert shares["mappo"] == pytest.approx([1, 0.5, 0, 0, 0, 0])
        assert {row["env"] for row in rows} == {"mpe/simple_spread"}
        assert [row["num_seeds"] for row in rows if row["label"] == "mappo"] == [2] * 6

    def test_of_several_are_over_all_seeds_of_scores_scaled_per_environment(self, tmp_path, capsys):
        write_all(tmp_path)
        assert plot([str(tmp_path), "--kind", "profiles"]) == 0
        happo = [[1, 1 / 3, 2 / 3], [0, 0.5]]  # evaluations are from 0 to 3 on spread, from -100 to 0 on reference
        mappo = [[1 / 3, 0], [0.25, 0.4]]
        rows = numbers(tmp_path / "plot_profiles.csv", "env", "label")
        for label, tasks in (("happo", happo), ("mappo", mappo)):
            own = [row for row in rows if row["label"] == label]
            taus = [row["tau"] for row in own]
            assert taus == pytest.approx([-0.05, 0, 0.25, 1 / 3, 0.4, 0.5, 2 / 3, 1, 1.05])
            shares = [np.mean([np.mean(np.array(task) > tau + 1e-9) for task in tasks]) for tau in taus]
            assert [row["share"] for row in own] == pytest.approx(shares)
            _, (low, high) = performance_profile(tasks, np.array(taus) + 1e-9)
            np.testing.assert_allclose([row["ci95_low"] for row in own], low, atol=1e-12)
            np.testing.assert_allclose([row["ci95_high"] for row in own], high, atol=1e-12)
            assert {row["env"] for row in own} == {"mpe/simple_spread; mpe/simple_reference"}
            assert {row["num_seeds"] for row in own} == {sum(map(len, tasks))}
        out = capsys.readouterr().out
        assert "mpe/simple_spread: final scores at 100 steps; scaled, 0 is 0 and 1 is 3" in out
        assert "mpe/simple_reference: final scores at 100 steps; scaled, 0 is -100 and 1 is 0" in out

    def test_a_single_seed_has_no_interval(self, tmp_path):
        write_pair(tmp_path / "a", "happo", "mpe/simple_spread", [3.0])
        assert plot([str(tmp_path), "--kind=profiles"]) == 0
        rows = numbers(tmp_path / "plot_profiles.csv", "env", "label")
        assert [row["share"] for row in rows] == [1, 0, 0]
        assert all(math.isnan(row["ci95_low"]) for row in rows)

    def test_equal_scores_are_0_of_several_environments(self, tmp_path):
        for env in ("mpe/simple_spread", "mpe/simple_reference"):
            write_run(
                tmp_path / env[-6:],
                algo={"name": "happo"},
                env={"name": env},
                seeds=(0, 1),
                returns=np.full((2, 2), 7.0),
                steps=(0, 100),
            )
        assert plot([str(tmp_path), "--kind=profiles"]) == 0
        rows = numbers(tmp_path / "plot_profiles.csv", "env", "label")
        assert [(row["tau"], row["share"]) for row in rows] == [(-0.05, 1), (0, 0), (0.05, 0)]


class TestImprovement:
    def test_is_of_the_first_over_the_second_averaged_over_environments_with_ties_as_half(self, tmp_path):
        write_all(tmp_path)
        assert plot([str(tmp_path), "--kind=improvement"]) == 0
        (row,) = numbers(tmp_path / "plot_improvement.csv", "env", "first", "second")
        assert (row["first"], row["second"]) == ("happo", "mappo")
        assert (row["num_seeds_first"], row["num_seeds_second"]) == (5, 4)
        # On spread 3 > 1, 0; 1 = 1, > 0; 2 > 1, 0: 5.5 of 6. On reference -50 > -75, -60: 2 of 4.
        assert row["probability"] == pytest.approx((5.5 / 6 + 2 / 4) / 2)
        happo, mappo = ([FINAL[key] for key in FINAL if key[0] == algo] for algo in ("happo", "mappo"))
        interval = probability_of_improvement(happo, mappo)[1]
        assert (row["ci95_low"], row["ci95_high"]) == pytest.approx(interval)

    def test_every_pair_has_a_row(self, tmp_path, figures):
        for k, algo in enumerate(("happo", "mappo", "ippo")):
            write_pair(tmp_path / algo, algo, "mpe/simple_spread", [k + 0.0, k + 0.5])
        arguments = ["--kind=improvement", "--labels", "in turn,at once,alone"]
        assert plot([*(str(tmp_path / algo) for algo in ("happo", "mappo", "ippo")), *arguments]) == 0
        rows = numbers(tmp_path / "plot_improvement.csv", "env", "first", "second")
        pairs = [("in turn", "at once"), ("in turn", "alone"), ("at once", "alone")]
        assert [(row["first"], row["second"]) for row in rows] == pairs
        assert [row["probability"] for row in rows] == [0, 0, 0]
        axes, other = figures[0].axes
        for side, column in ((axes, 0), (other, 1)):
            assert [label.get_text() for label in side.get_yticklabels()] == [pair[column] for pair in pairs]
            assert side.get_ylim()[0] > side.get_ylim()[1]  # the first pair is at the top
        assert any(line.get_xdata()[0] == 0.5 for line in axes.lines)

    def test_of_one_algorithm_is_refused(self, tmp_path):
        write_pair(tmp_path / "a", "happo", "mpe/simple_spread", [3.0])
        with pytest.raises(Refusal, match="--kind=improvement of happo alone; allowed: runs of two algorithms"):
            plot([str(tmp_path), "--kind=improvement"])


class TestEfficiency:
    def test_is_the_interquartile_mean_over_all_seeds_scaled_per_environment(self, tmp_path, capsys):
        spread = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 1.0], [4.0, 2.0, 3.0]])
        reference = np.array([[-90.0, -80.0], [-70.0, -60.0], [-60.0, -50.0]])
        steps = (0, 100, 200)
        write_run(tmp_path / "a", seeds=(0, 1, 2), steps=steps, returns=spread)
        write_run(tmp_path / "b", env={"name": "mpe/simple_reference"}, steps=steps, returns=reference)
        assert plot([str(tmp_path), "--kind=efficiency"]) == 0
        rows = numbers(tmp_path / "plot_efficiency.csv", "env", "label", "by")
        tasks = [spread / 4, (reference + 90) / 40]  # over all evaluations, not the final ones
        for k, row in enumerate(rows):
            assert (row["x"], row["by"], row["num_seeds"]) == (steps[k], "step", 5)
            assert row["env"] == "mpe/simple_spread; mpe/simple_reference"
            assert row["iqm"] == pytest.approx(trim_mean(np.concatenate([task[k] for task in tasks]), 0.25))
            expected = stratified_bootstrap_interval([task[k] for task in tasks])
            assert (row["ci95_low"], row["ci95_high"]) == pytest.approx(expected)
        pooled = [stratified_bootstrap_interval([np.concatenate([task[k] for task in tasks])]) for k in range(3)]
        assert pooled[0] != pytest.approx((rows[0]["ci95_low"], rows[0]["ci95_high"]), abs=0.01)  # without strata
        assert "mpe/simple_reference: scaled, 0 is -90 and 1 is -50" in capsys.readouterr().out

    def test_of_one_environment_is_the_curve(self, tmp_path):
        write_run(tmp_path / "a")
        assert plot([str(tmp_path), "--kind=efficiency"]) == plot([str(tmp_path)]) == 0
        rows, curve = (numbers(tmp_path / f"{name}.csv", "env", "label", "by") for name in ("plot_efficiency", "plot"))
        assert rows == [row for row in curve if row["by"] == "step"]

    def test_seeds_evaluated_at_other_steps_are_interpolated_as_far_as_all_go(self, tmp_path):
        write_run(tmp_path / "a", seeds=(0,), steps=(0, 100, 200), returns=np.array([[0.0], [4.0], [8.0]]))
        env = {"name": "mpe/simple_reference"}
        write_run(tmp_path / "b", env=env, seeds=(0,), steps=(20, 120), returns=np.array([[0.0], [1.0]]))
        assert plot([str(tmp_path), "--kind=efficiency"]) == 0
        rows = numbers(tmp_path / "plot_efficiency.csv", "env", "label", "by")
        assert [row["x"] for row in rows] == [20, 100, 120]
        assert [row["iqm"] for row in rows] == pytest.approx([0.05, (0.5 + 0.8) / 2, (0.6 + 1) / 2])


class TestPicture:
    @pytest.mark.parametrize("kind", KINDS)
    def test_text_is_inside_and_apart(self, tmp_path, figures, kind):
        for k in range(8):
            env = "mpe/simple_spread" if k % 2 else "mpe/simple_reference"
            algo = {"clip": k // 2 / 10, "epochs": k // 2, "activation": "tanh" * (k // 4 + 1)}
            write_run(tmp_path / f"{k}", algo=algo, env={"name": env}, seeds=(0, 1, 2))
        assert plot([str(tmp_path), "--kind", kind]) == 0
        figure = figures[0]
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        whole = figure.bbox.padded(1)
        boxes = [legend.get_window_extent(renderer) for legend in figure.legends]
        for box in [*boxes, *(axes.get_tightbbox(renderer) for axes in figure.axes)]:
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1
        assert not any(axes.get_tightbbox(renderer).overlaps(box) for axes in figure.axes for box in boxes)

    def test_says_how_scores_are_scaled(self, tmp_path, figures):
        write_all(tmp_path)
        for kind in KINDS:
            assert plot([str(tmp_path), "--kind", kind]) == 0
        profiles, improvement, efficiency = (figure.axes[0] for figure in figures)
        assert "0 and 1 are the lowest and the highest evaluation of these runs" in profiles.get_xlabel()
        assert "averaged over 2 environments" in improvement.get_xlabel()
        assert "0 and 1 are the\nlowest and highest evaluation shown" in efficiency.get_ylabel()
        titles = {axes.get_title("left").replace("\n", " ") for axes in (profiles, improvement, efficiency)}
        assert titles == {"mpe/simple_spread, mpe/simple_reference"}
        explained = [text.get_text() for text in figures[2].legends[1].get_texts()]
        assert explained[0] == "interquartile mean over seeds of all environments"
        labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
        assert labels == ["happo, 5 seeds", "mappo, 4 seeds"]

    def test_win_rates_are_not_scaled(self, tmp_path, figures, capsys):
        for env, final in (("smax/3m", [0.9, 0.8]), ("smax/2s3z", [0.2, 1.0])):
            write_pair(tmp_path / env[5:], "happo", env, final)
        for kind in ("profiles", "efficiency"):
            assert plot([str(tmp_path), "--kind", kind]) == 0
        assert {row["tau"] for row in numbers(tmp_path / "plot_profiles.csv", "env", "label")} >= {0.2, 0.8, 0.9, 1.0}
        assert "scaled, 0 is" not in capsys.readouterr().out
        assert "scaled" not in figures[0].axes[0].get_xlabel() + figures[1].axes[0].get_ylabel()

    def test_of_one_environment_says_nothing_of_a_scale(self, tmp_path, figures):
        for algo in ("happo", "mappo"):
            write_pair(tmp_path / algo, algo, "mpe/simple_spread", FINAL[algo, "mpe/simple_spread"])
        for kind in KINDS:
            assert plot([str(tmp_path), "--kind", kind]) == 0
        profiles, improvement, efficiency = (figure.axes[0] for figure in figures)
        assert profiles.get_xlabel() == "τ, final return"
        assert improvement.get_xlabel() == "probability that a seed of X has a higher final return than one of Y"
        assert efficiency.get_ylabel() == "evaluation return"

    def test_a_profile_is_a_step_function_of_the_numbers(self, tmp_path, figures):
        write_all(tmp_path)
        assert plot([str(tmp_path), "--kind=profiles"]) == 0
        rows = numbers(tmp_path / "plot_profiles.csv", "env", "label")
        for line in figures[0].axes[0].lines:
            own = [row for row in rows if row["label"] == line.get_label()]
            assert line.get_drawstyle() == "steps-post"
            np.testing.assert_array_equal(line.get_xydata(), [[row["tau"], row["share"]] for row in own])

    def test_options_are_those_of_curves(self, tmp_path, figures):
        for path in find_runs([write_all(tmp_path)]):
            table = path / "metrics.csv"
            table.write_text(table.read_text().replace("eval_length", "eval_win"))
        assert plot([str(tmp_path), "--kind=profiles", "--metric=win", "--title=MPE", "--labels=a,b"]) == 0
        assert {"plot_profiles_win.png", "plot_profiles_win.csv"} < {path.name for path in tmp_path.iterdir()}
        assert figures[0].axes[0].get_title("left") == "MPE"
        assert figures[0].axes[0].get_xlabel().startswith("τ, final win")
        assert {line.get_label() for line in figures[0].axes[0].lines} == {"a", "b"}
        assert plot([str(tmp_path), "--kind=efficiency", "--output=new/picture.pdf"]) == 0
        assert (tmp_path / "new" / "picture.pdf").read_bytes().startswith(b"%PDF")
        assert (tmp_path / "new" / "picture.csv").exists()
        assert plot([str(tmp_path), "--kind=efficiency", "--no-seeds"]) == 0
        assert [len(figure.axes[0].lines) for figure in figures[1:]] == [5 + 4 + 2, 2]


class TestRefusals:
    def refused(self, *arguments):
        with pytest.raises(Refusal) as refusal:
            plot([str(argument) for argument in arguments])
        return str(refusal.value)

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_algorithm_without_runs_on_an_environment(self, tmp_path, kind):
        write_all(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        assert self.refused(*(tmp_path / f"run{k}" for k in (0, 1, 2)), f"--kind={kind}") == (
            f"--kind={kind} without a run of mappo on mpe/simple_reference; allowed: directories with runs of every "
            "algorithm on every environment"
        )
        assert sorted(tmp_path.rglob("*")) == before

    def test_many_missing_pairs_are_counted(self, tmp_path):
        for k, algo in enumerate(("happo", "mappo", "ippo")):
            write_pair(tmp_path / algo, algo, f"games/{k}", [3.0])
        message = self.refused(*(tmp_path / algo for algo in ("happo", "mappo", "ippo")), "--kind=profiles")
        assert "without a run of happo on games/1, happo on games/2, mappo on games/0 and 3 more; allowed" in message

    def test_options(self, tmp_path):
        write_all(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        assert self.refused(tmp_path, "--kind=profile") == (
            "--kind=profile is unknown; did you mean profiles? "
            "allowed: curves, agents, profiles, improvement, efficiency"
        )
        for kind in KINDS:
            message = self.refused(tmp_path, f"--kind={kind}", "--x=steps")
            assert message == f"--x=steps with --kind={kind}; allowed: with --kind=curves"
        assert self.refused(tmp_path, "--kind=profiles", "--no-seeds") == (
            "--no-seeds with --kind=profiles, which draws no seeds; allowed: with curves, agents, efficiency"
        )
        assert "--labels=a; allowed: 2 different names" in self.refused(tmp_path, "--kind=profiles", "--labels=a")
        assert sorted(tmp_path.rglob("*")) == before
