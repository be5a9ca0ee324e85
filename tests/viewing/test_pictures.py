"""Recorded episodes, the drawings of the environments, and films."""

import functools
import itertools
import warnings
from types import SimpleNamespace

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import NAMES, OPTIONS, random_action
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text
from PIL import Image

import hajax
from hajax.envs import make_env
from hajax.envs.base import Viewer
from hajax.envs.drawing import round_levels, window
from hajax.training.recording import record_episode
from hajax.viewing import film
from hajax.viewing.film import Frame, each_frame, frame_figure, render_film

SMALL = {"hidden_sizes": (8,), "epochs": 1, "critic_epochs": 1}
MANY = {
    "games/matrix": [{"payoff": np.arange(24.0).reshape(2, 12)}, {"payoff": [3.0, 1.0]}, {"payoff": [[2.0]]}],
    "games/trap_of_homogeneity": [{"num_agents": 12}],
    "mpe/simple_spread": [{"num_agents": 8}],
}
CASES = [(name, options) for name in NAMES for options in OPTIONS.get(name, [{}]) + MANY.get(name, [])]


@functools.cache
def team(name, **options):
    """An environment, an algorithm for it and its first state."""
    env = make_env(name, **options)
    algo = hajax.make_algorithm("ippo", env, **SMALL)
    return env, algo, jax.jit(algo.init)(jax.random.key(0))


def recorded(name, num_episodes=None, *, deterministic=False, **options):
    env, algo, state = team(name, **options)
    record = record_episode(env, algo, deterministic=deterministic)
    if num_episodes is None:
        return env, jax.jit(record)(jax.random.key(1), state)
    keys = jax.random.split(jax.random.key(1), num_episodes)
    return env, jax.jit(jax.vmap(record, (0, None)))(keys, state)


@functools.cache
def opened(name, **options):
    """An environment, and its state after a reset."""
    env = make_env(name, **options)
    env = env._replace(step=jax.jit(env.step))
    return env, jax.jit(env.reset)(jax.random.key(0))[0]


def drawn(env, state, action):
    """Axes with the step that `action` takes in `state`."""
    _, following = env.step(jax.random.key(0), state, jnp.asarray(action, float))
    axes = Figure().add_subplot()
    env.viewer.draw(axes, jax.device_get(state), np.asarray(action), jax.device_get(following))
    return axes


def circles(axes):
    return {patch.get_label(): patch for patch in axes.patches if isinstance(patch, Circle)}


class TestRecording:
    @pytest.mark.parametrize("deterministic", [True, False])
    def test_is_the_episode_that_evaluation_scores(self, deterministic):
        env, algo, state = team("mpe/simple_spread", max_steps=6)
        episode = jax.jit(record_episode(env, algo, deterministic=deterministic))(jax.random.key(3), state)
        evaluate = hajax.make_evaluate(env, algo, num_episodes=1, deterministic=deterministic)
        scored = jax.jit(evaluate)(jax.random.key(3), state)
        assert episode.length == scored["episode_length"][0] == 6
        np.testing.assert_allclose(episode.reward.sum(), scored["episode_return"][0], rtol=1e-6)

    def test_states_are_those_in_which_the_actions_were_taken(self):
        env, episode = recorded("mpe/simple_reference", max_steps=5)
        keys = jax.random.split(jax.random.key(9), 5)  # the dynamics draw nothing
        later, shown = jax.jit(jax.vmap(env.step))(keys, episode.state, episode.action)
        np.testing.assert_allclose(shown.reward, episode.timestep.reward, rtol=1e-5)
        np.testing.assert_allclose(shown.final.state, episode.timestep.final.state, rtol=1e-5)
        np.testing.assert_allclose(later.p_pos[:-1], episode.state.p_pos[1:], rtol=1e-5)

    def test_what_follows_the_episode_does_not_count(self):
        env, algo, state = team("games/hasac_matrix", reward="individual")
        episode = jax.jit(record_episode(env, algo, max_steps=4))(jax.random.key(0), state)
        assert episode.length == 1
        assert episode.reward[0] in (-20, 5, 10, 20)  # the team's, not the share
        np.testing.assert_array_equal(episode.reward[1:], 0)

    def test_limit(self):
        env, algo, state = team("games/gaussian", max_steps=5)
        for limit, length in ((3, 3), (9, 5)):
            assert jax.jit(record_episode(env, algo, max_steps=limit))(jax.random.key(0), state).length == length
        with pytest.raises(ValueError, match="max_steps=0; allowed: a whole number >= 1"):
            record_episode(env, algo, max_steps=0)
        with pytest.raises(ValueError, match=r"agents=.* of games/hasac_matrix; allowed"):
            record_episode(make_env("games/hasac_matrix"), algo)


class TestDrawings:
    @pytest.mark.parametrize(("name", "options"), CASES, ids=str)
    def test_every_environment_has_one_in_which_all_text_can_be_read(self, name, options):
        env = make_env(name, **options)

        @jax.jit
        def first_step(key):
            state, _ = env.reset(key)
            action = random_action(key, env.spec)
            return state, action, env.step(key, state, action)[1]

        frame = Frame(*jax.device_get(first_step(jax.random.key(0))), caption="what happened", last=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure, _ = frame_figure(env, frame, "a title", 100)
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
        (axes,) = figure.axes
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label, axes.yaxis.label]
        outside = [*ticks, axes.xaxis.get_label(), *figure.texts, figure._suptitle]
        outside += axes.get_legend().get_texts() if axes.get_legend() else []
        boxes = {text.get_text(): text.get_window_extent(renderer) for text in outside if text.get_text()}
        for text, box in boxes.items():
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
        above = [box for text, box in boxes.items() if text.startswith("a title")]
        assert not any(box.overlaps(above[0]) for box in boxes.values() if box is not above[0])

    @pytest.mark.parametrize("actions", ["discrete", "continuous"])
    def test_particles_are_where_the_state_says(self, actions):
        env, state = opened("mpe/simple_spread", actions=actions)
        axes = drawn(env, state, random_action(jax.random.key(1), env.spec))
        found = circles(axes)
        for i, agent in enumerate(env.spec.agents):
            np.testing.assert_array_equal(found[agent.name].center, state.p_pos[i])
            assert found[agent.name].radius == pytest.approx(0.15)
        landmarks = [patch.center for patch in axes.patches if patch.get_label() == "landmark"]
        np.testing.assert_array_equal(landmarks, state.p_pos[3:])
        assert axes.get_xlim() == axes.get_ylim() == (-1.5, 1.5)

    def test_arrows_point_where_agents_move(self):
        env, state = opened("mpe/simple_spread")
        axes = drawn(env, state, [[0.0], [1.0], [4.0]])  # stay, left, up
        arrows = [text for text in axes.texts if text.get_text() == ""]
        moves = [np.subtract(arrow.xy, arrow.xyann) for arrow in arrows]
        np.testing.assert_allclose(moves, [[-0.3, 0], [0, 0.3]], atol=1e-6)
        np.testing.assert_allclose(arrows[0].xyann, state.p_pos[1] - jnp.array([0.15, 0]), atol=1e-6)

    def test_agents_that_left_are_still_seen(self):
        env, state = opened("mpe/simple_spread")
        for x, half, shown in ((1.3, 1.5, 1.3), (1.6, 2.0, 1.6), (2.4, 2.0, 1.85), (40.0, 2.0, 1.85)):
            far = state.replace(p_pos=state.p_pos.at[1].set(jnp.array([-x, 0.0])))
            axes = drawn(env, far, [[0.0], [0.0], [0.0]])
            assert axes.get_xlim() == axes.get_ylim() == (-half, half)
            disc = circles(axes)["agent_1"]
            np.testing.assert_allclose(disc.center, [-shown, 0], rtol=1e-6)
            assert disc.get_fill() == (x == shown)
            assert (f"{x:.1f}" in {text.get_text() for text in axes.texts}) == (x != shown)

    def test_landmarks_under_agents_are_lit(self):
        env, state = opened("mpe/simple_spread")
        places = jnp.array([[0.5, 0.0], [0.5, 0.14], [-0.5, -0.5], [0.5, 0.0], [-0.5, -0.34], [0.9, 0.9]])
        axes = drawn(env, state.replace(p_pos=places), [[0.0], [0.0], [0.0]])
        lit = [patch.center for patch in axes.patches if patch.get_label() == "lit"]
        np.testing.assert_allclose(lit, [[0.5, 0.0]], rtol=1e-6)  # and not that at a distance of 0.16
        env, state = opened("mpe/simple_reference")
        places = jnp.array([[0.5, 0.0], [-0.5, 0.0], [0.5, 0.0], [-0.5, 0.0], [0.0, 0.9]])
        for goal, reached in (([0, 1], 2), ([1, 0], 0), ([0, 2], 1)):  # only its own agent reaches a goal
            axes = drawn(env, state.replace(p_pos=places, goal=jnp.array(goal)), [[0.0], [0.0]])
            assert [patch.get_label() for patch in axes.patches].count("lit") == reached

    def test_goals_are_ringed_in_the_color_of_the_agent_that_should_go_there(self):
        env, state = opened("mpe/simple_reference")
        state = state.replace(goal=jnp.array([2, 0]))
        found = circles(drawn(env, state, [[0.0], [0.0]]))
        for agent, landmark in (("agent_0", 2), ("agent_1", 0)):
            ring = found[f"goal of {agent}"]
            np.testing.assert_array_equal(ring.center, state.p_pos[2 + landmark])
            assert not ring.get_fill()
            assert to_hex(ring.get_edgecolor()) == to_hex(found[agent].get_facecolor())
        # The task says the same: there, and only there, nothing is left to gain.
        there = state.replace(p_pos=state.p_pos.at[0].set(state.p_pos[4]).at[1].set(state.p_pos[2]))
        _, shown = env.step(jax.random.key(0), there, jnp.zeros((2, 1)))
        np.testing.assert_allclose(shown.reward, 0, atol=1e-6)

    def test_the_listener_s_goal(self):
        env, state = opened("mpe/simple_speaker_listener")
        axes = drawn(env, state.replace(goal=jnp.array(1)), [[2.0], [0.0]])
        np.testing.assert_array_equal(circles(axes)["goal of listener_0"].center, state.p_pos[3])
        assert axes.xaxis.get_label_text() == "speaker_0 says 2"

    def test_messages_stand_below(self):
        env, state = opened("mpe/simple_reference")
        axes = drawn(env, state, [[1.0 + 5 * 3], [5.0 * 7]])  # left and "3"; stay and "7"
        assert axes.xaxis.get_label_text() == "agent_0 says 3, agent_1 says 7"
        env, state = opened("mpe/simple_reference", actions="continuous")
        action = np.zeros((2, 15))
        action[0, 5 + 4], action[1, 5 + 9] = 0.5, 1.7  # bounded by 1
        axes = drawn(env, state, action)
        assert axes.xaxis.get_label_text() == "agent_0 says 4 (0.50), agent_1 says 9 (1.00)"

    def test_table_outlines_the_joint_action(self):
        env, state = opened("games/matrix", payoff=((1.0, 2.0, 3.0), (4.0, 5.5, 6.0)))
        axes = drawn(env, state, [[1.0], [2.0]])
        (played,) = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_label() == "played"]
        np.testing.assert_allclose(np.add(played.get_xy(), 0.46), [2, 1])  # column, row
        assert {text.get_text(): text.get_position() for text in axes.texts}["5.5"] == (1, 1)
        assert axes.get_title() == "payoff 6 (the best is 6)"

    def test_many_agents_choices(self):
        env, state = opened("games/trap_of_homogeneity", num_agents=4)
        axes = drawn(env, state, [[0.0], [0.0], [1.0], [1.0]])
        (played,) = [dots for dots in axes.collections if dots.get_label() == "played"]
        np.testing.assert_array_equal(played.get_offsets(), [[0, 0], [0, 1], [1, 2], [1, 3]])
        assert axes.get_title() == "payoff 1 (the best is 1)"

    def test_point_played_in_the_product_game(self):
        env, state = opened("games/gaussian")
        axes = drawn(env, state, [[1.5], [-2.0]])
        (played,) = [line for line in axes.lines if line.get_label() == "played"]
        assert (played.get_xdata()[0], played.get_ydata()[0]) == (1.5, -2.0)
        assert axes.get_title() == "payoff 1.5 · -2 = -3"
        assert axes.get_xlim() == (-3, 3)
        assert any(isinstance(text, Text) and text.get_text() == "5" for text in axes.texts)  # a level line's label

    def test_scales_are_round(self):
        assert [window(x) for x in (0.1, 1.5, 1.6, 999, 1001)] == [1.5, 1.5, 2, 1000, 10_000]
        assert round_levels(7.65) == [1, 2, 5]
        np.testing.assert_allclose(round_levels(0.4), [0.05, 0.1, 0.2])


class TestFilms:
    def test_has_a_frame_per_step_and_all_differ(self, tmp_path):
        env, episode = recorded("mpe/simple_spread", max_steps=4)
        render_film(tmp_path / "film.gif", env, episode, title="a film", dpi=50, fps=10)
        frames, durations = read(tmp_path / "film.gif")
        assert len(frames) == 4
        assert frames[0].shape == (300, 260, 3)
        assert all((a != b).any() for a, b in itertools.pairwise(frames))
        assert durations == [100, 100, 100, 1500]  # the last one stays

    def test_episodes_follow_each_other(self, tmp_path):
        env, episodes = recorded("games/hasac_matrix", 3)
        render_film(tmp_path / "film.gif", env, episodes, title="a film", dpi=50)
        frames, durations = read(tmp_path / "film.gif")
        assert len(frames) == 3
        assert durations == [1000, 1000, 1500]
        captions = [frame.caption for frame in each_frame(episodes)]
        assert captions[1] == f"episode 2 of 3   reward {float(episodes.reward[1, 0]):.2f}"

    def test_captions_count_up_to_the_return(self):
        _, episode = recorded("games/gaussian", max_steps=3)
        frames = list(each_frame(episode))
        total = float(episode.reward.sum())
        assert [frame.last for frame in frames] == [False, False, True]
        assert frames[2].caption == f"step 3 of 3   reward {float(episode.reward[2]):.2f}   return {total:.2f}"

    def test_a_stride_leaves_steps_out_but_not_the_last(self):
        _, episode = recorded("games/gaussian", max_steps=6)
        frames = list(each_frame(episode, 2))
        assert [frame.caption.split("   ")[0] for frame in frames] == [f"step {t} of 6" for t in (1, 3, 5, 6)]
        assert [frame.last for frame in frames] == [False, False, False, True]

    def test_robots_move_as_fast_as_they_did(self, tmp_path):
        """Hopper's 8 ms steps: every third, 24 ms each, in a format that counts in 10 ms."""
        env, episode = recorded("games/gaussian", max_steps=13)
        env = env._replace(viewer=env.viewer._replace(scene=SimpleNamespace(seconds=0.008)))
        render_film(tmp_path / "film.gif", env, episode, title="a film", dpi=50)
        assert read(tmp_path / "film.gif")[1] == [20, 30, 20, 30, 1500]

    def test_keeps_one_scale(self, tmp_path, monkeypatch):
        """All frames are as wide as the widest needs."""
        env, episode = recorded("mpe/simple_spread", max_steps=3)
        state = episode.state.replace(p_pos=episode.state.p_pos.at[1, 0].set(jnp.array([2.4, 0.0])))
        limits = []

        def draw_and_note(axes, *step):
            env.viewer.draw(axes, *step)
            axes.figure.canvas.mpl_connect("draw_event", lambda _: limits.append(axes.get_xlim()))

        noting = env._replace(viewer=Viewer(draw_and_note))
        render_film(tmp_path / "film.gif", noting, episode._replace(state=state), title="a film", dpi=50)
        assert set(limits) == {(-2, 2)}

    def test_every_episode_has_its_own_scale(self, tmp_path):
        env, episodes = recorded("mpe/simple_spread", 2, max_steps=2)
        far = episodes.state.p_pos.at[1, 0, 0].set(jnp.array([2.4, 0.0])).at[0].set(0.5)
        limits = []

        def draw_and_note(axes, *step):
            env.viewer.draw(axes, *step)
            axes.figure.canvas.mpl_connect("draw_event", lambda _: limits.append(axes.get_xlim()))

        noting = env._replace(viewer=Viewer(draw_and_note))
        episodes = episodes._replace(state=episodes.state.replace(p_pos=far))
        render_film(tmp_path / "film.gif", noting, episodes, title="a film", dpi=50)
        assert limits == [(-1.5, 1.5)] * 2 + [(-2, 2)] * 2

    def test_an_mp4_has_the_same_frames_and_the_last_one_stays(self, tmp_path):
        env, episode = recorded("mpe/simple_spread", max_steps=4)
        render_film(tmp_path / "film.mp4", env, episode, title="a film", dpi=50, fps=10)
        frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "film.mp4"))
        assert frames == 3 + 15
        assert seconds == pytest.approx(1.8, abs=0.05)

    def test_other_kinds_of_film_are_refused(self, tmp_path, monkeypatch):
        env, episode = recorded("games/hasac_matrix")
        with pytest.raises(ValueError, match=r"film .*film\.avi; allowed: a name that ends in \.gif or \.mp4"):
            render_film(tmp_path / "film.avi", env, episode, title="a film")
        monkeypatch.setattr(film, "find_spec", lambda package: None)
        with pytest.raises(ValueError, match=r"film .*film\.mp4 needs imageio-ffmpeg, .*; pip install imageio-ffmpeg"):
            render_film(tmp_path / "film.mp4", env, episode, title="a film")

    def test_an_environment_without_a_drawing_is_refused(self, tmp_path):
        env, episode = recorded("games/hasac_matrix")
        with pytest.raises(
            ValueError, match=r"environment=games/hasac_matrix has no drawing; allowed: .*adding-an-env"
        ):
            render_film(tmp_path / "film.gif", env._replace(viewer=None), episode, title="a film")
        assert not (tmp_path / "film.gif").exists()


def read(path):
    """The frames of a GIF `[H, W, 3]`, and how long each stays, in milliseconds."""
    with Image.open(path) as film:
        assert film.format == "GIF"
        frames, durations = [], []
        for i in range(film.n_frames):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB")))
            durations.append(film.info["duration"])
        return frames, durations
