"""Loggers write what they were given, once, per seed; asked for the impossible, they say what is possible."""

import importlib.machinery
import importlib.util
import json
import math
import struct
import sys
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c
from wandb.proto.wandb_internal_pb2 import Record

from hajax.runs.loggers import check_loggers, make_loggers, series

SEEDS = (3, 4)
CONFIG = {"algo": {"name": "happo", "clip": 0.2}, "seed": 3}


def rows(*steps):
    """Rows as a run makes them: nothing is known of training before it began."""
    return [
        {
            "step": step,
            "seed": seed,
            "eval_return_mean": -100.0 + step / 8 + seed,
            "eval_stochastic_return_mean": -110.0 - seed,
            "train_policy_loss": math.nan if step == 0 else 0.5 / step,
            "train_return": math.inf if step == 200 else 1.0,
        }
        for step in steps
        for seed in SEEDS
    ]


def expected(all_rows, seed):
    """The series of one seed, as `{tag: [(step, value)]}`, in single precision as TensorBoard keeps them."""
    tags = {
        "eval_return_mean": "eval/return_mean",
        "eval_stochastic_return_mean": "eval/stochastic_return_mean",
        "train_policy_loss": "train/policy_loss",
        "train_return": "train/return",
    }
    points = [(tags[name], row["step"], row[name]) for row in all_rows if row["seed"] == seed for name in tags]
    points = [point for point in points if not math.isnan(point[2])]
    return {tag: [(step, value) for name, step, value in points if name == tag] for tag in tags.values()}


def single(points):
    return {tag: [(step, struct.unpack("f", struct.pack("f", x))[0]) for step, x in p] for tag, p in points.items()}


def events(file):
    """The events of a file: records of a length, its checksum, data, their checksum."""
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
        found.append(Event.FromString(body))
        data = data[16 + length :]
    return found


def shown(directory):
    """The series that TensorBoard shows: a session that starts at a step hides what was there from that step on."""
    points = {}
    for file in sorted(directory.iterdir()):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                points = {tag: [point for point in p if point[0] < event.step] for tag, p in points.items()}
            for value in event.summary.value:
                if value.tag.startswith("_hparams_/"):  # the configuration, which has a test of its own
                    continue
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def log_in_turn(loggers, all_rows):
    for start in range(0, len(all_rows), len(SEEDS)):
        for logger in loggers:
            logger.log(all_rows[start : start + len(SEEDS)])


def test_tensorboard_shows_the_rows_of_each_seed(tmp_path):
    loggers = make_loggers(["csv", "tensorboard"], tmp_path, CONFIG, SEEDS)
    assert len(loggers) == 1  # the run directory itself writes the CSV
    log_in_turn(loggers, rows(0, 100, 200))
    loggers[0].close({"status": "finished"})
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["seed_3", "seed_4"]
    for seed in SEEDS:
        assert shown(tmp_path / "tensorboard" / f"seed_{seed}") == single(expected(rows(0, 100, 200), seed))


def test_tensorboard_has_the_configuration_as_hyperparameters(tmp_path):
    config = CONFIG | {"algo": {"name": "happo", "clip": 0.2, "decay_updates": math.inf, "hidden_sizes": [64, 64]}}
    for resume_step in (None, 100):  # once, also if the run goes on
        (logger,) = make_loggers(
            ["tensorboard"], tmp_path, config | {"resume": True, "preset": None}, SEEDS, resume_step
        )
        logger.close(None)
    found = []
    for file in (tmp_path / "tensorboard" / "seed_4").iterdir():
        values = [value for event in events(file) for value in event.summary.value]
        found += [(value.tag, value.metadata.plugin_data) for value in values]
    assert [tag for tag, _ in found] == ["_hparams_/experiment", "_hparams_/session_start_info"]
    assert {data.plugin_name for _, data in found} == {"hparams"}
    experiment, start = (HParamsPluginData.FromString(data.content) for _, data in found)
    shown = {name: getattr(x, x.WhichOneof("kind")) for name, x in start.session_start_info.hparams.items()}
    assert shown == {
        "algo.name": "happo",
        "algo.clip": 0.2,
        "algo.decay_updates": "Infinity",
        "algo.hidden_sizes": "[64, 64]",
        "seed": 4.0,
        "resume": True,
        "preset": "null",
    }
    assert [metric.name.tag for metric in experiment.experiment.metric_infos] == ["eval/return_mean"]


def test_tensorboard_has_the_rows_of_a_run_that_was_killed(tmp_path):
    (logger,) = make_loggers(["tensorboard"], tmp_path, CONFIG, SEEDS)
    logger.log(rows(0))
    assert shown(tmp_path / "tensorboard" / "seed_3") == single(
        {tag: points for tag, points in expected(rows(0), 3).items() if points}
    )
    logger.close(None)


def test_tensorboard_shows_no_row_twice_when_a_run_goes_on(tmp_path):
    (first,) = make_loggers(["tensorboard"], tmp_path, CONFIG, SEEDS)
    log_in_turn([first], rows(0, 100, 200))
    first.close(None)
    (second,) = make_loggers(["tensorboard"], tmp_path, CONFIG, SEEDS, resume_step=100)
    log_in_turn([second], rows(200, 300))
    second.close({"status": "finished"})
    for seed in SEEDS:
        directory = tmp_path / "tensorboard" / f"seed_{seed}"
        assert len(list(directory.iterdir())) == 2
        assert shown(directory) == single(expected(rows(0, 100, 200, 300), seed))


def wandb_records(directory):
    """The records of an offline run, whose file W&B's own process may still be writing when `finish` returns."""
    (file,) = directory.glob("*.wandb")
    deadline = time.monotonic() + 20
    while True:
        records = parse_wandb(file.read_bytes())
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline, f"{file} has no end: {len(records)} records"
        time.sleep(0.05)


def parse_wandb(data):
    """A log in blocks of 32 KiB, whose records may be split between blocks; a last one half written is left out."""
    position, record, found = 7, b"", []
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + length > len(data):
            break
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(record))
            record = b""
    return found


def wandb_series(records):
    points = {}
    for history in (record.history for record in records if record.HasField("history")):
        for item in history.item:
            name = item.key or "/".join(item.nested_key)
            if not name.startswith("_"):
                points.setdefault(name, []).append((history.step.num, float(json.loads(item.value_json))))
    return points


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_ENTITY", "WANDB_RUN_ID", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_wandb_has_one_run_per_seed_and_goes_on_in_it(tmp_path, offline):
    path = tmp_path / "spread"
    path.mkdir()
    (first,) = make_loggers(["wandb"], path, CONFIG, SEEDS)
    log_in_turn([first], rows(0, 100))
    first.close(None)
    ids = json.loads((path / "wandb_ids.json").read_text())
    (second,) = make_loggers(["wandb"], path, CONFIG, SEEDS, resume_step=100)
    log_in_turn([second], rows(200))
    second.close({"status": "finished", "total_steps": 200, "eval_return": {"mean": 1.0}})

    assert json.loads((path / "wandb_ids.json").read_text()) == ids
    assert set(ids) == {"3", "4"}
    assert ids["3"] != ids["4"]
    for seed in SEEDS:
        sessions = [wandb_records(d) for d in sorted((path / "wandb").glob(f"offline-run-*-{ids[str(seed)]}*"))]
        assert len(sessions) == 2
        assert [wandb_series(records) for records in sessions] == [
            {tag: points for tag, points in expected(rows(*steps), seed).items() if points}
            for steps in ((0, 100), (200,))
        ]
        for records, exit_code in zip(sessions, (1, 0), strict=True):
            (run,) = (record.run for record in records if record.HasField("run"))
            assert (run.run_group, run.display_name, run.project) == ("spread", f"spread_seed_{seed}", "hajax")
            config = {item.key: json.loads(item.value_json) for item in run.config.update if item.key != "_wandb"}
            assert config == {**CONFIG, "seed": seed}
            assert [record.exit.exit_code for record in records if record.HasField("exit")] == [exit_code]


def test_a_new_run_has_new_wandb_ids(tmp_path, offline):
    for seeds in ((0,), (0,)):
        (logger,) = make_loggers(["wandb"], tmp_path, CONFIG, seeds)
        logger.close({})
    assert len({path.name.rsplit("-", 1)[1] for path in (tmp_path / "wandb").glob("offline-run-*")}) == 2


def test_a_wandb_that_is_not_logged_in_is_refused(tmp_path, monkeypatch):
    import wandb

    def refuse(**_):
        raise wandb.Error("api_key not configured\n(no-tty)")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"^logger=wandb: api_key not configured \(no-tty\); .*WANDB_MODE=offline$"):
        make_loggers(["wandb"], tmp_path, CONFIG, SEEDS)


def test_series_leave_out_what_is_no_number():
    row = {"step": 1, "seed": 0, "eval_length": 25, "train_return": math.nan, "train_kl": "", "wall_seconds": 2.5}
    assert list(series(row)) == [("eval/length", 25.0), ("wall_seconds", 2.5)]


def test_csv_is_always_there_and_first():
    assert check_loggers([]) == ("csv",)
    assert check_loggers(["tensorboard", "csv", "tensorboard"]) == ("csv", "tensorboard")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tensorbord"], r"unknown logger 'tensorbord'; did you mean tensorboard\?; allowed: csv, tensorboard, wandb"),
        (["csv", 3], "unknown logger 3; allowed: csv, tensorboard, wandb"),
        ("tensorboard", "logger='tensorboard'; allowed: a list of csv, tensorboard, wandb"),
        (None, "logger=None; allowed: a list of csv, tensorboard, wandb"),
    ],
)
def test_what_is_no_logger_is_refused(names, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_loggers(names)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_package_is_named_with_its_cure(name, package, folder, monkeypatch, tmp_path):
    """A folder called `wandb`, which W&B leaves where it runs, is no package."""
    spec = importlib.machinery.ModuleSpec(package, None, is_package=True) if folder else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    message = rf"^logger={name} needs {package}, which is not installed: pip install 'hajax\[loggers\]'$"
    with pytest.raises(ValueError, match=message):
        check_loggers([name])
    with pytest.raises(ValueError, match=message):
        make_loggers([name], tmp_path, CONFIG, SEEDS)
    assert list(tmp_path.iterdir()) == []


def test_checking_imports_neither_package():
    import subprocess

    code = (
        "import sys; from hajax.runs.loggers import check_loggers; check_loggers(['tensorboard', 'wandb']); "
        "print({'tensorboardX', 'wandb', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
