"""Settings of the test session, in place before JAX is imported."""

import ctypes.util
import gc
import os
from importlib.metadata import version
from pathlib import Path

import pytest

# Compiled programs are kept between sessions, and shared with the subprocesses that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # programs without their source lines lower faster
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # or every program from that cache brings a warning
# Processes of tests share the cores: XLA has one thread in each, and a run one device unless it asks for more.
os.environ.setdefault("NPROC", "1")
# Tests compile far more than they compute. A flag that XLA does not know ends the process, hence the version.
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.9."):
    FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
if ctypes.util.find_library("EGL"):  # MuJoCo renders without a display, and asks when it is imported
    os.environ.setdefault("MUJOCO_GL", "egl")

# Tracing makes millions of small objects; to look for garbage among them less often saves a tenth of the time.
gc.set_threshold(100_000, 50, 50)


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """The test starts in an empty directory, so that it sees what was written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shared_programs():
    """The module's runs take the compiled programs of earlier runs with the same settings, its own or another's."""
    from shared_programs import sharing

    with sharing():
        yield


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Compiled programs are forgotten after a file if the process nears Linux's limit of memory maps, 65,530.

    Every program takes dozens of maps. Beyond the limit the process ends in a segmentation fault.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        import jax

        jax.clear_caches()
        gc.collect()
