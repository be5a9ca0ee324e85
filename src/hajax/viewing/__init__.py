"""Drawing: learning curves, films and scenes."""

RENDERERS = ("auto", "drawing", "mujoco")
GIF_FRAMES = 200  # of a film without a limit of its own, which take 9 MB with MuJoCo's renderer
