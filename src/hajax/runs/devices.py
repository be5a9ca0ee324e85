"""The devices of a run, and how its seeds and environments are divided among them."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from hajax.envs.base import BatchedEnvironment, Environment
from hajax.envs.batching import batched
from hajax.envs.callbacks import cores
from hajax.runs import hosts
from hajax.runs.errors import Refusal
from hajax.runs.settings import TrainSettings
from hajax.sharding import ENVS, SEEDS


def provide_devices(settings: TrainSettings) -> None:
    """Divides the CPU into devices that share its cores: as many as the run asks for, by default as divide its seeds.

    The updates of the seeds of one device follow one another on a CPU, those of several devices run in parallel. JAX
    has one device of the CPU unless it is told otherwise before it starts.
    """
    count, processes = settings.devices, hosts.count()
    if isinstance(count, int):
        count = count // processes
    else:
        threads = int(os.environ.get("NPROC") or cores())  # of XLA
        fitting = (n for n in range(1, threads + 1) if settings.num_trials % (n * processes) == 0)
        count = max(fitting, default=1)
    if count > 1:
        with suppress(RuntimeError):  # JAX has started, with the devices that it has
            jax.config.update("jax_num_cpu_devices", count)


def make_mesh(settings: TrainSettings, env: Environment | BatchedEnvironment) -> Mesh | None:
    """The mesh of a run's devices; `None` for one device.

    Raises:
        Refusal: there are fewer devices, they do not divide the seeds or the environments, or the environment is
            stepped outside of JAX.
    """
    if hosts.count() > 1:
        if env.host is not None:
            raise Refusal(
                f"{hosts.count()} processes with env={env.spec.name}, whose simulators are outside of JAX; allowed: 1"
            )
        counts = [len(jax.local_devices(process_index=index)) for index in range(hosts.count())]
        if len(set(counts)) > 1:
            raise Refusal(
                f"the processes have {', '.join(map(str, counts))} devices; allowed: as many each (NPROC for cores, "
                "JAX_LOCAL_DEVICE_IDS for GPUs)"
            )
    available = jax.device_count() if env.host is None else 1
    count, parts = chosen(settings, available)
    if parts > 1 and env.host is None and steps_on_host(env):
        seeds_only = dataclasses.replace(settings, shard="seeds")
        if settings.devices != "auto":
            raise Refusal(
                f"devices={count} divides the environments of a seed, but those of {env.spec.name} are stepped outside "
                f"of JAX; allowed: {', '.join(map(str, divisions(seeds_only)))}"
            )
        count, parts = chosen(seeds_only, available)
    if count == 1:
        return None
    if env.host is not None:
        raise Refusal(f"devices={count} with env={env.spec.name}, whose simulators are outside of JAX; allowed: 1")
    if count > available:
        raise Refusal(f"devices={count}; allowed: at most {available}, the devices that JAX has here")
    shape, names = ((count // parts, parts), (SEEDS, ENVS)) if parts > 1 else ((count,), (SEEDS,))
    devices = np.array(_evenly(count)).reshape(shape)
    return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))


def _evenly(count: int) -> list[jax.Device]:
    """So many devices, an equal number of each process."""
    processes = range(jax.process_count())
    each = count // len(processes)
    return [device for process in processes for device in jax.local_devices(process_index=process)[:each]]


def chosen(settings: TrainSettings, available: int) -> tuple[int, int]:
    """The number of devices, and that of the devices among which the environments of one seed are divided.

    Several processes have an equal number of devices each.

    Raises:
        Refusal: the devices do not divide the seeds or the environments.
    """
    fitting = divisions(settings)
    among = ""
    if (processes := hosts.count()) > 1:
        fitting = {count: parts for count, parts in fitting.items() if count % processes == 0}
        among = f", {processes} processes"
        if not any(count <= available for count in fitting):
            raise Refusal(
                f"{processes} processes with {_counts(settings)} and "
                f"shard={settings.shard}; allowed: multiples of {processes}, with shard=auto of either"
            )
    if settings.devices == "auto":
        count = max(count for count in fitting if count <= available)
    elif settings.devices in fitting:
        count = int(settings.devices)
    else:
        raise Refusal(
            f"devices={settings.devices} with {_counts(settings)}{among} and "
            f"shard={settings.shard}; allowed: {', '.join(map(str, fitting))}"
        )
    return count, fitting[count]


def _counts(settings: TrainSettings) -> str:
    grid = "" if settings.vmap is None else f"{settings.num_points} points of vmap, "
    return f"{grid}num_seeds={settings.num_seeds}, num_envs={settings.num_envs}"


def divisions(settings: TrainSettings) -> dict[int, int]:
    """The numbers of devices that fit, with those among which the environments of a seed are divided."""
    if settings.shard == "envs":
        return {parts: parts for parts in _divisors(settings.num_envs)}
    seeds = settings.num_trials
    fitting = dict.fromkeys(_divisors(seeds), 1)
    if settings.shard == "auto":
        fitting |= {seeds * parts: parts for parts in _divisors(settings.num_envs)}
    return fitting


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def steps_on_host(env: Environment | BatchedEnvironment) -> bool:
    """Whether a step calls the host, as MuJoCo in C does: XLA cannot divide such calls."""
    keys = jax.random.split(jax.random.key(0), 1)
    return "callback" in str(jax.make_jaxpr(batched(env).reset)(keys))
