"""Training loops, rollouts, evaluation and recording of episodes."""

from hajax.training.evaluation import make_evaluate
from hajax.training.iteration import Loop, TrainState
from hajax.training.loop import make_loop, make_train
from hajax.training.recording import record_episode

__all__ = ["Loop", "TrainState", "make_evaluate", "make_loop", "make_train", "record_episode"]
