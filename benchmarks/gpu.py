"""Everything that is to be measured on a GPU, in one command of ten minutes, into one JSON file with the device's name.

    make bench-gpu                        installs JAX for a GPU and writes gpu.json
    python benchmarks/gpu.py --quick      tiny sizes, to see on any device that every part works
    python benchmarks/gpu.py --only determinism --only environments

Each part runs in processes, which are stopped when its time is up; what they have measured by then is kept.

determinism    HAPPO, HATRPO and HASAC trained twice: whether all parameters are equal in every bit, as they come and
               with XLA's deterministic operations
seeds          HAPPO and MAPPO beside a PureJaxRL-style IPPO in the same process (throughput.py), 1 to 1,024 seeds, with
               memory, compile times and the share of the peak in matrix products
environments   steps of MPE, SMAX and robots with random actions, by the number of copies (environment_speeds.py)
tests          the library's tests of seeds under vmap, of padding and of checkpoints, on this device
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("algorithms/test_vmap.py", "algorithms/test_padding.py", "training/test_checkpoints.py")
ENVIRONMENTS = ("mpe/simple_spread", "smax/3m", "smax/3s5z", "mamujoco/ant_4x2")
PHYSICS = ("faithful", "fast", "brax-spring")
TRAINED = {
    "happo": ["env=mpe/simple_spread"],
    "hatrpo": ["env=mpe/simple_spread"],
    "hasac": ["env=mpe/simple_spread", "env.actions=continuous", "algo.buffer_size=20_000", "algo.warmup_steps=1000"],
}


def seconds_of(part: str, quick: bool) -> int:
    """The time of a part; ten minutes in all."""
    return 300 if quick else {"determinism": 150, "seeds": 240, "environments": 120, "tests": 90}[part]


def run(command: list[Any], seconds: float, **variables: str) -> tuple[int | None, str]:
    """The exit code of a process, `None` if it was stopped, and the end of what it printed."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=max(seconds, 1),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"stopped after {seconds:.0f} s"
    return done.returncode, done.stdout[-2000:]


def trained(settings: list[str], place: Path, seconds: float, flags: str) -> dict[str, str] | str:
    """The checksum of every array at the end of a training, by name; what it printed if it failed."""
    command = [sys.executable, "-m", "hajax", "train", *settings, f"out_dir={place}"]
    code, printed = run(command, seconds, XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip())
    if code != 0:
        return printed
    last = max(place.glob("checkpoints/*/manifest.json"))
    arrays = json.loads(last.read_text(encoding="utf-8"))["arrays"]
    return {name: entry["sha256"] for name, entry in arrays.items()}


def determinism(quick: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """By algorithm and mode, whether two trainings end with the same bytes; what one printed if it failed."""
    deadline, found = time.monotonic() + seconds, {}
    steps = 2_000 if quick else 40_000
    sizes = [f"total_steps={steps}", f"eval_interval={steps}", "num_seeds=2", "progress=false"]
    for mode, flags in {"as it is": "", "deterministic": "--xla_gpu_deterministic_ops=true"}.items():
        for algo, settings in TRAINED.items():
            one, other = (
                trained(
                    [f"algo={algo}", *settings, *sizes],
                    folder / f"{algo} {mode} {turn}".replace(" ", "_"),
                    deadline - time.monotonic(),
                    flags,
                )
                for turn in (0, 1)
            )
            failed = next((end for end in (one, other) if isinstance(end, str)), None)
            found[f"{algo}, {mode}"] = one == other if failed is None else failed
    return found


def seeds(quick: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """The report of throughput.py."""
    file = folder / "throughput.json"
    sizes = ["--quick"] if quick else ["--agents", 3, "--seeds", 1, 32, 1024, "--repeats", 2]
    command = [sys.executable, "benchmarks/throughput.py", "--rows", "happo", "mappo", "ippo", "--output", file]
    code, printed = run([*command, "--parts", "arithmetic", "grid", *sizes], seconds)
    return (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}) | ended(code, printed)


def environments(quick: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """The reports of environment_speeds.py, by the number of copies."""
    deadline, found = time.monotonic() + seconds, {}
    for copies in (2,) if quick else (64, 4096):
        file = folder / f"environments{copies}.json"
        command = [sys.executable, "benchmarks/environment_speeds.py", "--envs", copies, "--output", file]
        command += ["--only", *(ENVIRONMENTS[:2] if quick else ENVIRONMENTS), "--physics", *PHYSICS]
        command += ["--rounds", 1, "--seconds", 0.01] if quick else ["--seconds", 0.5]
        code, printed = run(command, deadline - time.monotonic())
        measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        found[str(copies)] = measured | ended(code, printed)
    return found


def tests(quick: bool, seconds: float, folder: Path) -> dict[str, Any]:
    """The last line of pytest."""
    files = [ROOT / "tests" / name for name in (TESTS[2:] if quick else TESTS)]
    code, printed = run([sys.executable, "-m", "pytest", "-q", "-m", "not evidence", *files], seconds)
    return {"ended": printed.strip().splitlines()[-1] if code is not None else printed, "passed": code == 0}


def ended(code: int | None, printed: str) -> dict[str, Any]:
    """How a process ended, if not well."""
    return {} if code == 0 else {"ended": printed}


PARTS = {"determinism": determinism, "seeds": seeds, "environments": environments, "tests": tests}


def device() -> dict[str, Any]:
    """What JAX has, found out in a process of its own, since a GPU's memory is taken by the first that uses it."""
    code = "import jax, json; d = jax.devices()[0]; print(json.dumps([d.platform, d.device_kind, jax.__version__]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    platform, kind, version = json.loads(done.stdout.strip().splitlines()[-1])
    return {"platform": platform, "kind": kind, "jax": version, "cpus": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on any device")
    parser.add_argument("--only", choices=list(PARTS), action="append")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    report: dict[str, Any] = {"device": device()}
    if report["device"]["platform"] == "cpu" and not given.quick:
        raise SystemExit("JAX has no GPU here; allowed: --quick, or an installation with hajax[cuda]")
    with tempfile.TemporaryDirectory() as folder:
        for part in given.only or PARTS:
            print(f"{part}, at most {seconds_of(part, given.quick)} s", file=sys.stderr, flush=True)
            began = time.monotonic()
            report[part] = PARTS[part](given.quick, seconds_of(part, given.quick), Path(folder))
            report[part] |= {"seconds": round(time.monotonic() - began, 1)}
            given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
