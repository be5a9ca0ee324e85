"""`hajax render`, and training that ends with it."""

import pytest
from PIL import Image

import hajax
from hajax.cli import main

SMALL = [
    "env=mpe/simple_spread",
    "num_seeds=2",
    "num_envs=4",
    "rollout_length=10",
    "total_steps=40",
    "eval.episodes=2",
    "algo.hidden_sizes=[8]",
    "algo.epochs=1",
    "algo.critic_epochs=1",
    "progress=false",
]

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *SMALL, f"out_dir={path}", "render=true"]) == 0
    return path


def frames(path) -> int:
    with Image.open(path) as image:
        return image.n_frames


def test_training_may_end_with_pictures(run):
    assert frames(run / "episode.gif") == 25
    with Image.open(run / "curve.png") as image:
        assert image.width > image.height  # by steps and by wall time


def test_an_episode_of_any_seed_and_length(run, tmp_path, capsys):
    output = tmp_path / "other.gif"
    assert main(["render", str(run), "--seed", "1", "--max-steps=4", "--stochastic", f"--output={output}"]) == 0
    assert str(output) in capsys.readouterr().out
    assert frames(output) == 4
    assert main(["render", str(run), "--max-steps=3", "--episodes=2", f"--output={output}"]) == 0
    assert frames(output) == 6


def test_a_gif_of_long_episodes_ends_early(run, tmp_path, monkeypatch, capsys):
    """Whoever asks for a length gets it."""
    monkeypatch.setattr("hajax.cli.render.GIF_FRAMES", 5)
    output = tmp_path / "long.gif"
    assert main(["render", str(run), f"--output={output}"]) == 0
    assert "The first 5 of 25 frames; --output FILE.mp4 or --max-steps shows more." in capsys.readouterr().out
    assert frames(output) == 5
    assert main(["render", str(run), "--max-steps=7", f"--output={output}"]) == 0
    assert "frames" not in capsys.readouterr().out
    assert frames(output) == 7


@pytest.mark.parametrize(
    ("arguments", "given", "allowed"),
    [
        (["--output", "film.avi"], "--output=film.avi", ".gif, .mp4, .html"),
        (["--output", "film.html"], "--output=film.html: mpe/simple_spread is not a MuJoCo model", "mamujoco/"),
        (["--renderer", "opengl"], "--renderer=opengl", "drawing, mujoco"),
        (["--renderer=mujoco"], "--renderer=mujoco: mpe/simple_spread is not a MuJoCo model", "mamujoco/"),
        (["--output", "no/film.gif"], "there is no directory no", "one that exists"),
        (["--seed", "2"], "seed=2", "0, 1"),
        (["--episodes=0"], "--episodes=0", "a whole number >= 1"),
        (["--fast"], "--fast is not a flag", "--stochastic"),
    ],
)
def test_refusals(run, arguments, given, allowed, capsys):
    before = sorted(run.rglob("*"))
    assert main(["render", str(run), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert given in err
    assert allowed in err
    assert sorted(run.rglob("*")) == before


def test_render_is_refused_before_training_where_nothing_can_be_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hajax.envs, "_registered", {})
    hajax.register_env("test/plain", lambda: hajax.make_env("games/gaussian")._replace(viewer=None))
    path = tmp_path / "run"
    assert main(["train", "env=test/plain", "render=true", f"out_dir={path}"]) == 2
    assert "has no drawing; allowed: environments whose `viewer` is set" in capsys.readouterr().err
    assert not path.exists()
