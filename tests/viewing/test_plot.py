"""`hajax plot`: the numbers against SciPy and enumeration, what is pooled and how it is called, refusals."""

import csv
import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import trim_mean
from written_runs import STEPS, write_run

from hajax.cli.plot import plot
from hajax.runs.errors import Refusal
from hajax.runs.files import find_runs, read_run
from hajax.training.statistics import bootstrap_interval, stratified_bootstrap_interval
from hajax.viewing.curve import draw_curve, time_unit
from hajax.viewing.groups import group_runs, make_panels, seconds_line, steps_line

NUMBER_COLUMNS = ("x", "iqm", "ci95_low", "ci95_high")


def read_groups(*directories):
    return group_runs([read_run(path) for path in find_runs(directories)])


def read_numbers(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row | {name: float(row[name] or "nan") for name in NUMBER_COLUMNS} for row in rows]


def direct_interval(scores):
    """The percentile bootstrap of the interquartile mean, written out with SciPy."""
    draws = np.random.default_rng(0).integers(len(scores), size=(10_000, len(scores)))
    return np.percentile(trim_mean(np.asarray(scores)[draws], 0.25, axis=1), [2.5, 97.5])


class TestStratifiedBootstrap:
    def test_is_the_quantile_over_all_resamples_of_every_task(self):
        """Of two and three runs there are 2² · 3³ equally likely resamples, task by task."""
        tasks = [[0.13, 1.4], [12.2, 9.3, 10.9]]
        drawn = [itertools.product(task, repeat=len(task)) for task in tasks]
        exact = np.array([trim_mean([*one, *other], 0.25) for one, other in itertools.product(*drawn)])
        assert len(exact) == 108
        low, high = stratified_bootstrap_interval(tasks, resamples=50_000)
        assert np.mean(exact < low - 1e-9) <= 0.025 <= np.mean(exact <= low + 1e-9)
        assert np.mean(exact > high + 1e-9) <= 0.025 <= np.mean(exact >= high - 1e-9)
        pooled = bootstrap_interval(np.concatenate(tasks))
        assert (low, high) != pytest.approx(pooled, abs=0.1)

    def test_tasks_keep_their_weight(self):
        """Runs that agree within every task leave nothing to resample, however far apart the tasks are."""
        assert stratified_bootstrap_interval([[1.0, 1.0], [5.0, 5.0, 5.0, 5.0]]) == (4.0, 4.0)
        assert trim_mean([1.0, 1.0, 5.0, 5.0, 5.0, 5.0], 0.25) == 4.0

    def test_one_task_is_the_plain_bootstrap(self):
        scores = np.random.default_rng(3).normal(size=6)
        assert stratified_bootstrap_interval([scores]) == bootstrap_interval(scores)
        np.testing.assert_allclose(bootstrap_interval(scores), direct_interval(scores))

    def test_a_task_with_one_run_says_nothing(self):
        assert stratified_bootstrap_interval([[1.0, 2.0], [3.0]]) is None

    @pytest.mark.parametrize("scores", [[], [[]], [[[1.0, 2.0]]], [1.0, 2.0]])
    def test_wrong_scores_are_refused(self, scores):
        with pytest.raises(ValueError, match=r"scores.*allowed: "):
            stratified_bootstrap_interval(scores)


class TestNumbers:
    def test_are_interquartile_means_and_intervals_over_pooled_seeds(self, tmp_path, capsys):
        one = write_run(tmp_path / "runs" / "a", seeds=(0, 1, 2))
        other = write_run(tmp_path / "runs" / "bb", seeds=(3, 4))
        assert plot([str(tmp_path / "runs")]) == 0
        out = capsys.readouterr().out
        rows = read_numbers(tmp_path / "runs" / "plot.csv")
        assert str(tmp_path / "runs" / "plot.csv") in out
        assert (tmp_path / "runs" / "plot.png").read_bytes().startswith(b"\x89PNG")
        by_step = [row for row in rows if row["by"] == "step"]
        assert [row["x"] for row in by_step] == list(STEPS)
        returns = np.concatenate([read_run(path).returns for path in (one, other)], axis=1)
        for row, scores in zip(by_step, returns, strict=True):
            assert (row["env"], row["label"], row["num_seeds"]) == ("mpe/simple_spread", "happo", "5")
            assert row["iqm"] == pytest.approx(trim_mean(scores, 0.25), rel=1e-12)
            np.testing.assert_allclose([row["ci95_low"], row["ci95_high"]], direct_interval(scores), rtol=1e-12)

    def test_only_steps_that_all_seeds_have(self, tmp_path):
        write_run(tmp_path / "whole")
        write_run(tmp_path / "stopped", seeds=(2,), steps=(0, 100, 130), total_steps=300)
        (group,) = read_groups(tmp_path)
        line = steps_line(group)
        assert line.x.tolist() == [0, 100]
        assert [x.tolist() for x, _ in line.seeds] == [[0, 100, 130], list(STEPS), list(STEPS)]  # thin lines go on

    def test_a_diverged_seed_is_not_dropped(self, tmp_path):
        write_run(tmp_path / "run", returns=np.array([[1.0, 2.0], [3.0, math.nan], [5.0, 6.0], [7.0, 8.0]]))
        assert plot([str(tmp_path / "run")]) == 0
        rows = read_numbers(tmp_path / "run" / "plot.csv")
        assert [row["iqm"] for row in rows[:4]] == pytest.approx([1.5, math.nan, 5.5, 7.5], nan_ok=True)
        assert math.isnan(rows[1]["ci95_low"])

    def test_one_seed_has_a_line_and_no_interval(self, tmp_path):
        write_run(tmp_path / "run", seeds=(7,), returns=np.array([[1.0], [2.0], [3.0], [4.0]]))
        assert plot([str(tmp_path / "run")]) == 0
        rows = read_numbers(tmp_path / "run" / "plot.csv")
        assert [row["iqm"] for row in rows[:4]] == [1, 2, 3, 4]
        assert all(math.isnan(row["ci95_low"]) and math.isnan(row["ci95_high"]) for row in rows)


class TestWallTime:
    def test_of_one_run_counts_from_its_first_evaluation(self, tmp_path):
        write_run(tmp_path / "run", seconds=[5.0, 9.5, 14.0, 20.0])
        (group,) = read_groups(tmp_path)
        line = seconds_line(group)
        assert line.x.tolist() == [0.0, 4.5, 9.0, 15.0]
        np.testing.assert_array_equal(line.iqm, steps_line(group).iqm)

    def test_of_several_is_interpolated_where_all_have_been(self, tmp_path):
        write_run(tmp_path / "a", seeds=(0,), seconds=[0, 10, 20, 30], returns=np.array([[0.0], [1.0], [2.0], [3.0]]))
        write_run(tmp_path / "b", seeds=(1,), seconds=[5, 15, 18, 24], returns=np.array([[4.0], [6.0], [0.0], [6.0]]))
        (group,) = read_groups(tmp_path)
        line = seconds_line(group)
        assert line.x.tolist() == [0, 10, 13, 19]
        np.testing.assert_allclose(line.iqm, [2.0, 3.5, 0.65, 3.95])

    def test_runs_one_of_which_has_no_times_have_no_mean_over_time(self, tmp_path):
        write_run(tmp_path / "a", seconds=[0, 1, 2, 3])
        other = write_run(tmp_path / "b", seeds=(2, 3))
        (other / "timing.csv").write_text((other / "timing.csv").read_text().splitlines()[0] + "\n")
        assert plot([str(tmp_path)]) == 0
        assert {row["by"] for row in read_numbers(tmp_path / "plot.csv")} == {"step"}

    def test_a_run_under_way_has_no_time_for_its_last_evaluation_yet(self, tmp_path):
        path = write_run(tmp_path / "run")
        timing = (path / "timing.csv").read_text().splitlines()
        (path / "timing.csv").write_text("\n".join([*timing[:-1], ""]))
        (group,) = read_groups(path)
        assert len(steps_line(group).x) == 4
        assert seconds_line(group).x.tolist() == [0, 100, 200]

    def test_units(self):
        assert time_unit([np.array([5.0, 119.0])]) == ("seconds", 1)
        assert time_unit([np.array([5.0]), np.array([120.0])]) == ("minutes", 60)
        assert time_unit([np.array([7200.0])]) == ("hours", 3600)
        assert time_unit([]) == ("seconds", 1)


class TestGroups:
    def names(self, directory):
        return [
            (group.task, group.label, sorted(run.path.name for run in group.runs)) for group in read_groups(directory)
        ]

    def test_seeds_are_pooled_and_algorithms_are_not(self, tmp_path):
        write_run(tmp_path / "a")
        write_run(tmp_path / "b", seeds=(2, 3, 4), preset="harl/mpe")  # the same settings by another way
        write_run(tmp_path / "c", algo={"name": "mappo"})
        spread = "mpe/simple_spread"
        assert self.names(tmp_path) == [(spread, "happo", ["a", "b"]), (spread, "mappo", ["c"])]

    def test_labels_tell_the_settings_that_differ(self, tmp_path):
        write_run(tmp_path / "a")
        write_run(tmp_path / "b", algo={"clip": 0.1, "hidden_sizes": [8]})
        write_run(tmp_path / "c", algo={"name": "mappo", "clip": 0.3})
        assert [label for _, label, _ in self.names(tmp_path)] == [
            "happo clip=0.2 hidden_sizes=[64,64]", "happo clip=0.1 hidden_sizes=[8]", "mappo"
        ]  # fmt: skip

    def test_many_differences_are_cut_to_those_that_suffice(self, tmp_path):
        write_run(tmp_path / "a")
        write_run(tmp_path / "b", algo={"clip": 0.1, "epochs": 3}, num_envs=5, total_steps=7)
        write_run(tmp_path / "c", algo={"clip": 0.1, "epochs": 4}, num_envs=5, total_steps=7)
        labels = [label for _, label, _ in self.names(tmp_path)]
        assert labels == [f"happo epochs={epochs} (and 3 more)" for epochs in ("unset", 3, 4)]

    def test_environments_and_their_options_are_different_tasks(self, tmp_path):
        write_run(tmp_path / "a")
        write_run(tmp_path / "b", env={"num_agents": 5})
        write_run(tmp_path / "c", env={"name": "mpe/simple_reference"})
        tasks = [task for task, _, _ in self.names(tmp_path)]
        assert tasks == ["mpe/simple_spread num_agents=3", "mpe/simple_spread num_agents=5", "mpe/simple_reference"]
        panels = make_panels(read_groups(tmp_path))
        assert [panel.title for panel in panels] == tasks
        assert [[line.label for line in panel.by_steps] for panel in panels] == [["happo"]] * 3

    def test_what_agents_learn_from_is_not_the_task(self, tmp_path):
        write_run(tmp_path / "a")
        write_run(tmp_path / "b", algo={"reward": "individual"}, env={"reward": "individual"})
        write_run(tmp_path / "c", env={"state": "environment"})
        tasks, labels, _ = zip(*self.names(tmp_path), strict=True)
        assert set(tasks) == {"mpe/simple_spread"}
        assert labels == (
            "happo reward=team state=observations",
            "happo reward=individual state=observations",
            "happo reward=team state=environment",
        )

    def test_a_seed_that_is_there_twice_is_no_second_sample(self, tmp_path):
        one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b", seeds=(1, 2))
        assert [(label, runs) for _, label, runs in self.names(tmp_path)] == [
            (f"happo run={one}", ["a"]), (f"happo run={other}", ["b"])
        ]  # fmt: skip

    def test_a_directory_that_is_named_twice_counts_once(self, tmp_path):
        path = write_run(tmp_path / "runs" / "a")
        assert find_runs([tmp_path / "runs", path, path / ".." / "a"]) == [path]


def add_column(run, name, cell):
    """Adds a column to the run's `metrics.csv`, with `cell(k, row)` in the k-th row; returns the rows as they were."""
    table = run / "metrics.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},{name}", *(f"{row},{cell(k, row)}" for k, row in enumerate(rows)), ""]))
    return rows


class TestPicture:
    @pytest.fixture
    def figures(self, monkeypatch):
        """The figures that were saved."""
        saved = []
        save = Figure.savefig
        monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (saved.append(self), save(self, *args, **kw)))
        return saved

    def test_has_a_row_per_task_and_two_panels_each(self, tmp_path, figures):
        for i, env in enumerate(("mpe/simple_spread", "mpe/simple_reference")):
            write_run(tmp_path / f"{i}", env={"name": env}, seconds=[0, 200, 300, 600])
            write_run(tmp_path / f"mappo_{i}", env={"name": env}, algo={"name": "mappo"})
        assert plot([str(tmp_path)]) == 0
        (figure,) = figures
        assert len(figure.axes) == 4
        assert [axes.get_title("left") for axes in figure.axes[::2]] == ["mpe/simple_spread", "mpe/simple_reference"]
        lower, _ = (legend.get_texts() for legend in figure.legends)
        assert [text.get_text() for text in lower] == ["happo, 2 seeds", "mappo, 2 seeds"]
        for by_steps, by_time in zip(figure.axes[::2], figure.axes[1::2], strict=True):
            thick = {line.get_label(): line for line in by_time.lines if line.get_linewidth() == 2}
            np.testing.assert_allclose(thick["happo"].get_xdata(), [0, 200 / 60, 5, 10])
            assert "(minutes)" in by_time.get_xlabel()
            assert len(by_steps.lines) == 2 * (2 + 1)
            looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in thick.values()]
            assert all(a != b for a, b in zip(*looks, strict=True))

    def test_text_is_inside_and_apart(self, tmp_path, figures):
        for i in range(9):
            algo = {"clip": i / 10, "epochs": i, "activation": "tanh" * (i % 2 + 1)}
            write_run(tmp_path / f"{i}", algo=algo, env={"num_agents": 3 + i % 2})
        assert plot([str(tmp_path)]) == 0
        figure = figures[0]
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        for legend in figure.legends:
            box = legend.get_window_extent(renderer)
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
            assert not any(axes.get_tightbbox(renderer).overlaps(box) for axes in figure.axes)

    def test_labels_title_sides_and_seeds_are_chosen(self, tmp_path, figures):
        for name in ("happo", "mappo"):
            write_run(tmp_path / name, algo={"name": name})
        chosen = ["--labels", "in turn,at once", "--title=three agents", "--x", "steps", "--no-seeds"]
        assert plot([str(tmp_path), *chosen]) == 0
        assert plot([str(tmp_path), "--x=time", "--output", str(tmp_path / "time.png")]) == 0
        (axes,), (by_time,) = (figure.axes for figure in figures)
        lower, upper = (legend.get_texts() for legend in figures[0].legends)
        assert [text.get_text() for text in lower] == ["in turn, 2 seeds", "at once, 2 seeds"]
        assert "one seed" not in [text.get_text() for text in upper]
        assert axes.get_title("left") == "three agents"
        assert [line.get_linewidth() for line in axes.lines] == [2, 2]
        assert "steps" in axes.get_xlabel()
        assert "wall time" in by_time.get_xlabel()
        assert by_time.get_ylabel() == "evaluation return"
        assert {row["label"] for row in read_numbers(tmp_path / "plot.csv")} == {"in turn", "at once"}

    def test_untrained_policies_may_leave_the_picture(self, tmp_path, figures):
        write_run(tmp_path / "run", returns=np.array([[-500.0, -300.0], [-20.0, -18.0], [-12.0, -10.0], [-10.0, -9.0]]))
        assert plot([str(tmp_path / "run")]) == 0
        low, high = figures[0].axes[0].get_ylim()
        assert -25 < low < -20
        assert -9 < high < -5
        assert figures[0].axes[0].get_title("right") == "untrained policies are beyond the axis"

    @pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
    def test_formats(self, tmp_path, suffix, magic):
        run = write_run(tmp_path / "run")
        target = tmp_path / "new" / f"picture{suffix}"
        assert plot([str(run), f"--output={target}"]) == 0
        assert target.read_bytes().startswith(magic)
        assert sorted(path.name for path in target.parent.iterdir()) == sorted(["picture.csv", target.name])

    def test_another_metric_than_the_return(self, tmp_path, figures):
        run = write_run(tmp_path / "run")
        rows = add_column(run, "eval_win", lambda k, row: k / 10)
        assert plot([str(run), "--metric", "win"]) == 0
        assert {"plot_win.png", "plot_win.csv"} < {path.name for path in run.iterdir()}
        assert figures[0].axes[0].get_ylabel() == "evaluation win"
        np.testing.assert_allclose(figures[0].axes[0].lines[0].get_ydata(), np.arange(0, len(rows), 2) / 10)
        with pytest.raises(
            Refusal, match=r"metric=wins is not a metric of .*; allowed: return, length, win, or a column train_"
        ):
            plot([str(run), "--metric=wins"])

    def test_a_column_of_training(self, tmp_path, figures):
        """It is empty at the evaluation before any training."""
        run = write_run(tmp_path / "run")
        rows = add_column(run, "train_effective_samples_2", lambda k, row: "" if row.startswith("0,") else k)
        assert plot([str(run), "--metric", "train_effective_samples_2"]) == 0
        assert figures[0].axes[0].get_ylabel() == "training effective_samples_2"
        drawn = figures[0].axes[0].lines[0].get_ydata()
        wanted = [k if not row.startswith("0,") else np.nan for k, row in enumerate(rows)][::2]
        np.testing.assert_allclose(drawn, wanted)

    def test_agents_are_lines_in_a_panel_per_method(self, tmp_path, figures):
        """With the seeds of runs of one method pooled, and pairs of agents by their own names."""
        runs = [
            write_run(tmp_path / "one"),
            write_run(tmp_path / "more", seeds=(2,)),
            write_run(tmp_path / "other", algo={"name": "mappo"}),
        ]
        for run in runs:
            for i, agent in enumerate(("agent_0", "agent_1")):
                add_column(run, f"train_radius_of_{agent}", lambda k, row, i=i: "" if row.startswith("0,") else k + i)
                add_column(run, f"eval_return_of_{agent}", lambda k, row, i=i: 2 * k + i)
            add_column(run, "train_attention_of_agent_0_to_agent_1", lambda k, row: 0.5)
        given = [str(tmp_path), "--kind", "agents"]
        assert plot([*given, "--metric", "train_radius", "--no-seeds"]) == 0
        assert {"plot_agents_train_radius.png", "plot_agents_train_radius.csv"} < {x.name for x in tmp_path.iterdir()}
        panels = figures[0].axes
        assert [x.get_title("left") for x in panels] == ["happo, mpe/simple_spread", "mappo, mpe/simple_spread"]
        assert [line.get_label() for line in panels[0].lines] == ["agent_0", "agent_1"]
        below, above = (line.get_ydata() for line in panels[1].lines)
        np.testing.assert_allclose(above[1:] - below[1:], 1)
        rows = read_numbers(tmp_path / "plot_agents_train_radius.csv")
        assert {(row["env"], row["label"], row["num_seeds"]) for row in rows} == {
            (f"{name}, mpe/simple_spread", agent, count)
            for name, count in (("happo", "3"), ("mappo", "2"))
            for agent in ("agent_0", "agent_1")
        }
        assert plot([*given, "--metric", "return", "--labels", "left,right"]) == 0
        assert [line.get_label() for line in figures[1].axes[0].lines if not line.get_label().startswith("_")] == [
            "left", "right",
        ]  # fmt: skip
        assert plot([*given, "--metric", "train_attention"]) == 0
        assert "agent_0 to agent_1" in [line.get_label() for line in figures[2].axes[0].lines]
        with pytest.raises(
            Refusal,
            match=r"--metric=length with --kind=agents is no metric that .* has of every agent; allowed: return, "
            "train_radius, train_attention",
        ):
            plot([*given, "--metric", "length"])
        write_run(tmp_path / "third", env={"num_agents": 2})
        add_column(tmp_path / "third", "train_radius_of_walker", lambda k, row: k)
        with pytest.raises(Refusal, match=r"--kind=agents with .*, whose agents differ; allowed: runs with the same"):
            plot([*given, "--metric", "train_radius"])

    def test_several_directories_are_drawn_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_run(tmp_path / "a")
        write_run(tmp_path / "b", seeds=(2,))
        assert plot(["a", "b"]) == 0
        assert {"plot.png", "plot.csv"} < {path.name for path in tmp_path.iterdir()}

    def test_the_curve_of_one_run_is_the_same_picture(self, tmp_path, figures):
        """With wall time and without."""
        run = read_run(write_run(tmp_path / "run"))
        assert plot([str(run.path)]) == 0
        draw_curve(tmp_path / "with.png", run)
        draw_curve(tmp_path / "without.png", run._replace(seconds=np.full(len(run.steps), np.nan)))
        lines = [[line.get_xydata() for axes in figure.axes for line in axes.lines] for figure in figures]
        assert [len(x) for x in lines] == [6, 6, 3]
        for one, other in zip(lines[0], lines[1], strict=True):
            np.testing.assert_array_equal(one, other)
        assert figures[2].axes[0].get_title("left") == "happo on mpe/simple_spread"


def run_steps(text):
    return {line.split(",")[0] for line in text.splitlines()[1:]}


class TestRefusals:
    def refused(self, *arguments):
        with pytest.raises(Refusal) as refusal:
            plot([str(argument) for argument in arguments])
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    def test_arguments(self, tmp_path):
        run = write_run(tmp_path / "run")
        before = sorted(tmp_path.rglob("*"))
        assert "0 directories given to `hajax plot`; allowed: one or more directories" in self.refused()
        assert "--x=left; allowed: steps, time, both" in self.refused(run, "--x=left")
        assert "--labels=a,b; allowed: 1 different names, for happo" in self.refused(run, "--labels=a,b")
        assert f"{tmp_path / 'nothing'} is not a directory" in self.refused(run, tmp_path / "nothing")
        (tmp_path / "empty").mkdir()
        assert f"{tmp_path / 'empty'} holds no run; allowed" in self.refused(tmp_path / "empty")
        (tmp_path / "empty").rmdir()
        unknown = self.refused(run, "--outptu", "x.png")
        assert "--outptu is not a flag of `hajax plot`; did you mean --output?" in unknown
        assert "-x is not a flag of `hajax plot`; did you mean --x? allowed: --kind, --output" in self.refused(
            "-x", run
        )
        assert "--output has no value; allowed: --output VALUE" in self.refused(run, "--output")
        assert "output=a.gif ends in .gif; allowed: .png, .pdf, .svg" in self.refused(run, "--output", "a.gif")
        assert "ends in nothing" in self.refused(run, "--output=picture")
        assert "metrics.csv, a file of runs" in self.refused(run, "--output", run / "metrics.png")
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("file", "old", "new", "said"),
        [
            ("metrics.csv", "\n100,1,", "\n100,one,", "line 5: seed is 'one'; allowed: a whole number"),
            ("metrics.csv", "\n0,0,", "\n0.5,0,", "line 2: step is '0.5'; allowed: a whole number"),
            ("metrics.csv", "\n200,0,", "\n200,0,x", "line 6: eval_return_mean is 'x"),
            ("metrics.csv", "eval_return_mean", "return", "line 1 has no column eval_return_mean; allowed"),
            ("timing.csv", "\n100,110.0", "\n100,soon", "line 3: wall_seconds is 'soon'; allowed: a number or nothing"),
            ("timing.csv", "wall_seconds", "seconds", "line 1 has no column wall_seconds; allowed"),
            ("config.yaml", "algo:", "algo: {", "line"),
            ("config.yaml", "algo:", "algorithm:", "has no algo.name and env.name"),
        ],
    )
    def test_broken_files(self, tmp_path, file, old, new, said):
        path = write_run(tmp_path / "run") / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        message = self.refused(tmp_path / "run")
        assert message.startswith(str(path))
        assert said in message

    def test_files_that_are_missing_or_cut(self, tmp_path):
        run = write_run(tmp_path / "run")
        whole = (run / "metrics.csv").read_text()
        (run / "metrics.csv").write_text(whole[: whole.rindex(",1,") + 2] + "\n")
        assert "metrics.csv, line 9: eval_return_mean is missing" in self.refused(run)
        (run / "metrics.csv").write_text(whole[: whole.rindex(",1,") + 2])  # as a dying process leaves it
        assert len(read_run(run).returns) == len(run_steps(whole))
        assert np.isnan(read_run(run).returns[-1]).any()
        (run / "metrics.csv").write_text(whole.splitlines()[0] + "\n")
        assert "metrics.csv holds no evaluation yet" in self.refused(run)
        (run / "metrics.csv").write_bytes(b"\xff\xfe")
        assert "metrics.csv can't be read (it is not UTF-8)" in self.refused(run)
        (run / "metrics.csv").write_text(whole)
        (run / "timing.csv").unlink()
        assert "timing.csv can't be read (No such file or directory)" in self.refused(run)

    def test_a_place_that_can_t_be_written(self, tmp_path):
        run = write_run(tmp_path / "run")
        (tmp_path / "file").write_text("")
        assert "can't be written" in self.refused(run, "--output", tmp_path / "file" / "picture.png")

    def test_help(self, capsys):
        assert plot(["--help"]) == 0
        text = capsys.readouterr().out
        assert "usage: hajax plot DIR [DIR ...] [--kind KIND] [--metric NAME]" in text
        assert max(map(len, text.splitlines())) <= 80
