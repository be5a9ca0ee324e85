"""A gated recurrent unit in NumPy, row by row, with its gradient by hand through all rows.

`reference.py` uses it after the torso. Nothing here uses hajax or JAX.
"""

from __future__ import annotations

import dataclasses

import numpy as np

Params = dict[str, np.ndarray]


@dataclasses.dataclass
class Sequences:
    """The sequences of rows, in the order of time: row r belongs to sequence `of[r]`."""

    of: np.ndarray  # int [B]
    first: np.ndarray  # bool [B]: the memory is reset before the row
    active: np.ndarray  # bool [B]: inactive rows do not change the memory
    memory: np.ndarray  # [S, H], before the first row of each sequence

    def take(self, rows: np.ndarray) -> Sequences:
        """These rows only. If a row that opened an episode is dropped, the next row of its sequence opens it."""
        kept, forgotten, first = set(np.arange(len(self.of))[rows]), set(), self.first.copy()
        for row, sequence in enumerate(self.of):
            if first[row]:
                forgotten.add(sequence)
            if row in kept:
                first[row] = sequence in forgotten
                forgotten.discard(sequence)
        return Sequences(self.of[rows], first[rows], self.active[rows], self.memory)

    @staticmethod
    def join(several: list[Sequences]) -> Sequences:
        """The sequences of all, concatenated."""
        ends = np.cumsum([0, *(len(one.memory) for one in several)])
        of = np.concatenate([one.of + end for one, end in zip(several, ends, strict=False)])
        rest = ([getattr(one, name) for one in several] for name in ("first", "active", "memory"))
        return Sequences(of, *(np.concatenate(parts) for parts in rest))

    def chunks(self, length: int, after: np.ndarray) -> Sequences:
        """Sequences of `length` rows each, with the memory before them, from the memory `after` every row, `[B, H]`."""
        of, memory, seen = self.of.copy(), [], {}
        for row, sequence in enumerate(self.of):
            rows = seen.setdefault(sequence, [])
            if len(rows) % length == 0:
                memory.append(after[rows[-1]] if rows else self.memory[sequence])
                chunk = len(memory) - 1
            else:
                chunk = of[rows[-1]]
            of[row] = chunk
            rows.append(row)
        return Sequences(of, self.first, self.active, np.array(memory))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru(p: Params, x: np.ndarray, sequences: Sequences, tape: list) -> tuple[np.ndarray, np.ndarray]:
    """Features of every row and the memory after it, both `[B, H]`, computed row by row."""
    names = ("gru/input/kernel", "gru/input/bias", "gru/kernel", "gru/bias")
    w, b, u, c = (p[name] for name in names)
    memory, h = dict(enumerate(sequences.memory)), len(c)
    features, after, steps = np.empty((len(x), h)), np.empty((len(x), h)), []
    for row, sequence in enumerate(sequences.of):
        old = np.zeros(h) if sequences.first[row] else memory[sequence]
        given, recalled = x[row] @ w + b, old @ u
        reset, keep = sigmoid(given[:h] + recalled[:h]), sigmoid(given[h : 2 * h] + recalled[h : 2 * h])
        inner = recalled[2 * h :] + c
        new = np.tanh(given[2 * h :] + reset * inner)
        features[row] = (1 - keep) * new + keep * old
        memory[sequence] = after[row] = features[row] if sequences.active[row] else old
        steps.append((old, reset, keep, inner, new))

    def backward(g):
        later = dict.fromkeys(memory, np.zeros(h))  # the gradient with respect to the memory after the row
        own = {name: np.zeros_like(p[name]) for name in names}
        by_x = np.empty_like(x)
        for row in reversed(range(len(x))):
            sequence, (old, reset, keep, inner, new) = sequences.of[row], steps[row]
            lives = sequences.active[row]
            total = g[row] + (later[sequence] if lives else 0)
            by_new = total * (1 - keep) * (1 - new**2)
            by_keep = total * (old - new) * keep * (1 - keep)
            by_reset = by_new * inner * reset * (1 - reset)
            by_given = np.concatenate([by_reset, by_keep, by_new])
            by_recalled = np.concatenate([by_reset, by_keep, by_new * reset])
            own["gru/input/kernel"] += np.outer(x[row], by_given)
            own["gru/input/bias"] += by_given
            own["gru/kernel"] += np.outer(old, by_recalled)
            own["gru/bias"] += by_new * reset
            by_x[row] = w @ by_given
            by_old = total * keep + u @ by_recalled + (0 if lives else later[sequence])
            later[sequence] = np.zeros(h) if sequences.first[row] else by_old
        return by_x, own

    tape.append(backward)
    return features, after
