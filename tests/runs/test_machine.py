"""What the machine lacks is one line, and what it is given is printed as given."""

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, TINY_OFF_POLICY

import hajax
from hajax.cli import main
from hajax.runs import directory, errors, machine, runner
from hajax.training import checkpoints

pytestmark = pytest.mark.usefixtures("shared_programs", "working_directory")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one iteration; tests that change it work on a copy."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train(f"out_dir={path}") == 0
    return path


def train(*arguments: str) -> int:
    return main(["train", *TINY, "total_steps=32", *arguments])


def one_line(capsys) -> str:
    """What was said on standard error, which is one line."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


# Memory, disk, device, home directory, locks, permission.

OUT_OF_MEMORY = {
    "XLA on a GPU": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.5GiB."),
    "XLA on a CPU": jax.errors.JaxRuntimeError("INTERNAL: Out of memory allocating 4096000000 bytes."),
    "NumPy": MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64"),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_too_little_memory_is_one_line_and_says_what_takes_less(kind, finished, working_directory, monkeypatch, capsys):
    """And what was saved before goes on with more of it."""
    shutil.copytree(finished, working_directory / "run")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "advance", lambda *args: (_ for _ in ()).throw(OUT_OF_MEMORY[kind]))
        assert train("out_dir=run", "resume=true", "total_steps=64") == 1
    err = one_line(capsys)
    assert "not enough memory for " in err
    assert "num_envs" in err
    assert train("out_dir=run", "resume=true", "total_steps=64") == 0


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(working_directory, monkeypatch, capsys):
    written, write = [], checkpoints.write_arrays

    def full(path, arrays):
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, arrays)

    monkeypatch.setattr(checkpoints, "write_arrays", full)
    assert train("out_dir=run", "total_steps=64", "eval_interval=32") == 1
    assert "No space left on device" in one_line(capsys)
    assert checkpoints.list_checkpoints(working_directory / "run" / "checkpoints") == [0]
    assert train("out_dir=run", "resume=true", "total_steps=64") == 0
    assert checkpoints.list_checkpoints(working_directory / "run" / "checkpoints")[-1] == 64


def test_of_a_file_that_may_not_grow_nothing_but_one_line_is_printed(working_directory, monkeypatch, capfd, caplog):
    """Whatever orbax and tensorstore print of it in their own threads."""
    echoes = []
    monkeypatch.setattr(errors, "_usual_hook", echoes.append)
    write, (soft, hard) = checkpoints.write_arrays, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(path, arrays):
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
        try:
            write(path, arrays)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(checkpoints, "write_arrays", limited)
    assert train("out_dir=run", "total_steps=32") == 1
    time.sleep(0.5)  # the threads' own time
    err = capfd.readouterr().err.strip()
    assert "File too large: run/checkpoints/" in err
    assert "\n" not in err
    assert not caplog.records
    assert not echoes
    assert checkpoints.list_checkpoints(working_directory / "run" / "checkpoints") == []


@pytest.mark.parametrize(
    ("platform", "error"),
    [
        ("cuda", RuntimeError("Unable to initialize backend 'cuda': no supported devices found.\nand more")),
        ("tpu", RuntimeError("Unable to initialize backend 'tpu': UNAVAILABLE")),
        ("cuda", AssertionError()),
    ],
)
def test_a_device_that_is_not_there_is_one_line(platform, error, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    monkeypatch.setattr(jax, "devices", lambda *args: (_ for _ in ()).throw(error))
    assert train("out_dir=run") == 2
    err = one_line(capsys)
    assert f"JAX_PLATFORMS={platform}" in err
    assert "allowed: cpu" in err
    assert not Path("run").exists()


@pytest.mark.parametrize("home", ["/nowhere/at/all", "/dev/null"])
def test_without_a_home_directory_programs_are_not_kept_and_one_line_says_so(home, monkeypatch, capsys):
    monkeypatch.setenv("HOME", home)
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    kept = jax.config.jax_enable_compilation_cache
    monkeypatch.setattr(machine.Path, "mkdir", lambda self, *args, **kwargs: (_ for _ in ()).throw(
        OSError(errno.ENOTDIR, "Not a directory", str(self))
    ))  # fmt: skip
    try:
        machine.use_compilation_cache(True)
        assert not jax.config.jax_enable_compilation_cache
    finally:
        jax.config.update("jax_enable_compilation_cache", kept)
    assert f"not kept for the next run: Not a directory: {home}" in one_line(capsys)


def test_a_cache_that_was_asked_for_and_cannot_be_is_refused(working_directory, capsys):
    (working_directory / "taken").write_text("mine")
    kept = jax.config.jax_compilation_cache_dir
    assert train("compilation_cache=taken/here", "out_dir=run") == 2
    assert "compilation_cache=taken/here: Not a directory" in one_line(capsys)
    assert jax.config.jax_compilation_cache_dir == kept


def test_a_file_system_without_locks_is_warned_of(working_directory, monkeypatch, capsys):
    def unsupported(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(directory, "_flock", unsupported)
    (working_directory / "run").mkdir()
    with directory.lock(working_directory / "run"):
        pass
    assert "can't be locked (No locks available); no other process may run there" in one_line(capsys)


def test_a_fault_of_a_program_keeps_its_traceback(monkeypatch):
    """A file that somebody's environment misses, say: that is no limit of the machine."""

    def faulty(*args):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "map.csv")

    monkeypatch.setattr(runner, "advance", faulty)
    with pytest.raises(FileNotFoundError, match=r"map\.csv"):
        train("out_dir=run")


def test_a_directory_that_may_not_be_made_is_refused(monkeypatch, capsys):
    def denied(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(directory.Path, "mkdir", denied)
    for arguments, named in ((["out_dir=theirs"], "out_dir=theirs"), ([], "out_dir=null"), (["-m", "seed=0"], "null")):
        assert train(*arguments) == 2
        err = one_line(capsys)
        assert named in err
        assert "Permission denied" in err


# Programs that were kept.

NOISY = """
import sys
import jax
from hajax.runs import machine
machine.use_compilation_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
print(float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((3, 3)))))
"""


@pytest.mark.parametrize("level", [None, "0"])
def test_a_program_from_the_cache_is_loaded_without_a_word(level, working_directory):
    """Even if XLA takes the machine that it was compiled on for another, as it does on some."""
    cache = working_directory / "cache"
    environment = {name: value for name, value in os.environ.items() if name not in ("TF_CPP_MIN_LOG_LEVEL",)}
    environment |= {"JAX_PLATFORMS": "cpu"} | ({} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level})

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", NOISY, str(cache)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "27.0\n"
        return done.stderr

    run()
    assert any(cache.iterdir())
    said = [line for line in run().splitlines() if not re.match(r"I\d{4} ", line)]  # what JAX says of itself at level 0
    assert said == []


def test_messages_come_back_after_loading():
    """Only what is said while a program is loaded is silenced, also if several are at once or loading fails."""
    levels = []
    set_level, load = machine.utils.absl_set_min_log_level, machine.compilation_cache.get_executable_and_time
    patch = pytest.MonkeyPatch()
    patch.setattr(machine.utils, "absl_set_min_log_level", levels.append)
    patch.setattr(machine.compilation_cache, "get_executable_and_time", fail)
    patch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        machine._load_quietly()
        with pytest.raises(RuntimeError, match="damaged"):
            machine.compilation_cache.get_executable_and_time()
        assert levels == [machine.FATAL, 1]
    finally:
        patch.undo()
    assert (machine.utils.absl_set_min_log_level, machine.compilation_cache.get_executable_and_time) == (
        set_level,
        load,
    )


def fail(*args, **kwargs):
    raise RuntimeError("damaged")


def test_a_jax_that_is_slow_here_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    for version, slow in ((0, 9, 2), False), ((0, 10, 0), True), ((0, 11, 2), True):
        monkeypatch.setattr(jax, "__version_info__", version)
        said = machine.slow_jax()
        assert (said is not None) == slow
        assert said is None or f"pip install jax=={machine.FAST_ON_CPU}" in said
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert machine.slow_jax() is None


# Precision.


@pytest.mark.parametrize("wide", [False, True])
def test_a_policy_acts_in_a_program_of_another_precision(wide, finished, working_directory):
    """Loaded as what it was saved as, in values; and the program's own precision, in types."""
    settings = [*TINY, "total_steps=32"]
    path = finished
    if wide:  # a run in float64
        path = working_directory / "wide"
        with jax.enable_x64(True):
            assert main(["train", *settings, f"out_dir={path}"]) == 0
    with jax.enable_x64(not wide):
        policy = hajax.load_policy(path)
        dtype = jnp.float32 if wide else jnp.float64
        leaves = [
            leaf for leaf in jax.tree.leaves(policy.state.actors.params) if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        assert {leaf.dtype for leaf in leaves} == {np.dtype(dtype)}
        assert main(["evaluate", str(path), "--episodes", "2"]) == 0


def test_going_on_in_another_precision_is_refused_by_name(finished, working_directory, capsys):
    shutil.copytree(finished, working_directory / "run")
    with jax.enable_x64(True):
        assert train("out_dir=run", "resume=true", "total_steps=64") == 2
    assert "jax_enable_x64=True" in one_line(capsys)


@pytest.mark.parametrize("settings", [TINY, TINY_OFF_POLICY], ids=["on", "off_policy"])
def test_a_healthy_run_is_none_the_worse_for_jax_debug_nans(settings, working_directory):
    """No episode ends in the first iterations of the second, so that their mean return is undefined."""
    with jax.debug_nans(True):
        assert main(["train", *settings, "total_steps=72", "out_dir=run"]) == 0


# What is printed.


def test_names_are_printed_as_they_are(finished, working_directory, capsys):
    """Not as markup, emoji or escapes."""
    name = "my [old] run [/y] :rocket: \\[z]"
    shutil.copytree(finished, working_directory / name)
    assert main(["evaluate", name, "--episodes", "2"]) == 0
    assert train(f"out_dir={name}/again") == 0
    out = "".join(capsys.readouterr().out.split())
    assert "".join(f"run directory: {name}/again".split()) in out


def test_what_to_install_is_printed_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["list"]) == 0
    assert "hajax[mamujoco]" in capsys.readouterr().out
