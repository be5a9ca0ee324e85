"""The warning about few effective samples."""

from __future__ import annotations

import numpy as np

from hajax.runs.sample_watch import SampleWatch


def warnings_of(shares, capsys):
    watch = SampleWatch()
    for k, share in enumerate(shares):
        # Position 10 is the last, although "9" sorts after it.
        watch.warn({"effective_samples_9": np.array([0.0]), "effective_samples_10": np.array([0.9, share])}, 1000 * k)
    return capsys.readouterr().err.splitlines()


def test_it_warns_once_after_two_low_evaluations_in_a_row(capsys):
    (line,) = warnings_of([0.5, 0.05, 0.04, 0.03, 0.5, 0.01, 0.01], capsys)
    assert line.startswith(
        "hajax train: warning: train_effective_samples_10 is 0.05 at 1,000 steps and 0.04 at 2,000, less than 0.1"
    )


def test_it_does_not_warn_of_single_low_evaluations_or_without_an_order(capsys):
    assert warnings_of([0.05, 0.5, 0.05, 0.1, 0.09], capsys) == []
    SampleWatch().warn({}, 0)
    assert capsys.readouterr().err == ""
