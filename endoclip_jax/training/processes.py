"""Several processes as one job: how they meet, agree, and end.

What they tell each other here goes through JAX's coordination service, not through devices: it
works before any device is touched, and a process that waits is not in a collective.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax

from endoclip_jax.errors import (
    INTERRUPTED,
    PROCESS_LOST,
    UNEXPECTED,
    USER_MISTAKE,
    UserError,
)
from endoclip_jax.training.watchdog import Watchdog, after

CLUSTERS = ("auto", "none", "explicit", "slurm", "kubernetes", "tpu", "mpi")

_WAIT_MS = 7 * 24 * 3600 * 1000  # for what process 0 does alone: a lost process ends it sooner
_LEAVE_MS = 5000  # a process that fails gives the others so long to say the same
_SHUTDOWN_S = 30
_calls = itertools.count()


def placement(
    settings: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize` for this process, or None: it is alone.

    Explicit settings come first, then what the environment says: SLURM's and Open MPI's variables
    and TPU pods are left to JAX's own detection; of Kubernetes the index of an indexed Job is read
    here, with coordinator and number from `JAX_COORDINATOR_ADDRESS` and `JAX_NUM_PROCESSES`, which
    asks no cluster API.

    Raises:
      UserError: for settings that do not belong together, or a cluster that is not there.
    """
    cluster = settings["cluster"]
    if cluster not in CLUSTERS:
        raise UserError(
            f"config.distributed.cluster={cluster!r} is not one of {', '.join(CLUSTERS)}"
        )
    given = {
        "coordinator": settings["coordinator"],
        "num_processes": settings["num_processes"] or None,
        "process_id": settings["process_id"] if settings["process_id"] >= 0 else None,
    }
    found = cluster if cluster != "auto" else _detected(environment, any(given.values()))
    if found == "none":
        return None
    if found == "explicit":
        return _explicit(given)
    if found == "kubernetes":
        return _explicit(_of_kubernetes(given, environment))
    if found == "slurm" and cluster == "slurm":
        _number(environment, "SLURM_NTASKS", "start it with srun")
        _number(environment, "SLURM_PROCID", "start it with srun")
    if found == "mpi" and cluster == "mpi":
        _number(environment, "OMPI_COMM_WORLD_SIZE", "start it with mpirun")
    return {"cluster_detection_method": {"slurm": "slurm", "mpi": "ompi"}.get(found)}


def _detected(environment: Mapping[str, str], explicit: bool) -> str:
    if explicit:
        return "explicit"
    if int(environment.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in environment:
        return "slurm"
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "mpi"
    if int(environment.get("JAX_NUM_PROCESSES", 1)) > 1 and "JOB_COMPLETION_INDEX" in environment:
        return "kubernetes"
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return "tpu"
    return "none"


def _of_kubernetes(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    hint = "use an indexed Job, as launch/jobset.yaml does"
    return {
        "coordinator": given["coordinator"] or environment.get("JAX_COORDINATOR_ADDRESS", ""),
        "num_processes": given["num_processes"] or _number(environment, "JAX_NUM_PROCESSES", hint),
        "process_id": _number(environment, "JOB_COMPLETION_INDEX", hint),
    }


def _number(environment: Mapping[str, str], name: str, hint: str) -> int:
    value = environment.get(name, "")
    if not value.isdigit():
        raise UserError(f"the environment has no number {name} ({value!r}): {hint}")
    return int(value)


def _explicit(given: Mapping[str, Any]) -> dict[str, Any]:
    host, colon, port = str(given["coordinator"]).rpartition(":")
    number, place = given["num_processes"], given["process_id"]
    if not host or not colon or not port.isdigit():
        raise UserError(
            f"config.distributed.coordinator is {given['coordinator']!r}: give host:port of "
            "process 0, e.g. --config.distributed.coordinator=node1:12345"
        )
    if number is None or place is None or not 0 <= place < number:
        raise UserError(
            f"config.distributed.process_id={place} of num_processes={number}: give both, with "
            "process_id from 0 to num_processes - 1"
        )
    return {
        "coordinator_address": given["coordinator"],
        "num_processes": number,
        "process_id": place,
        "cluster_detection_method": "deactivate",
    }


def start(settings: Mapping[str, Any]) -> None:
    """Meets the job's other processes, before any device is touched; alone it does nothing.

    Where they do not all come within `init_timeout_s`, the process says so and ends with
    PROCESS_LOST (JAX itself would abort).
    """
    arguments = placement(settings)
    if arguments is None:
        return
    seconds = settings["init_timeout_s"]
    where = arguments.get("coordinator_address", "the coordinator")
    guard = after(seconds, lambda: _nobody_came(where, seconds))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=seconds + 60,
            heartbeat_timeout_seconds=settings["heartbeat_s"],
            shutdown_timeout_seconds=_SHUTDOWN_S,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"the processes cannot be started (config.distributed.cluster="
            f"{settings['cluster']}): {_first_line(error)}"
        ) from None
    guard.cancel()


def run_job(settings: Mapping[str, Any], work: Callable[[], int]) -> int:
    """Starts this process's part, does `work` and ends all processes together.

    A process that fails says what and where on standard error, names itself, and ends without
    waiting for others, which may be in a collective; they lose their connection and end too.
    """
    start(settings)
    if _client() is None:
        return work()
    try:
        code = work()
        _client().wait_at_barrier("end of the job", _WAIT_MS)
        return code
    except UserError as error:
        _leave(f"error: process {jax.process_index()}: {error}", USER_MISTAKE)
    except KeyboardInterrupt:
        _leave("interrupted: run the same command again to continue", INTERRUPTED)
    except jax.errors.JaxRuntimeError as error:
        if not _is_about_others(error):
            traceback.print_exc()
            _leave(f"error: process {jax.process_index()} failed", UNEXPECTED)
        _leave(
            f"error: process {jax.process_index()} lost another one in {watchdog().doing} "
            f"({_first_line(error)}): look at the messages of the others, and start the job again",
            PROCESS_LOST,
        )
    except Exception:
        traceback.print_exc()
        _leave(f"error: process {jax.process_index()} failed", UNEXPECTED)


def _is_about_others(error: Exception) -> bool:
    text = str(error)
    return any(word in text for word in ("Gloo", "UNAVAILABLE", "DEADLINE", "Barrier", "NCCL"))


def _leave(sentence: str, code: int) -> NoReturn:
    """Ends this process with a code, and lets others that fail alike speak first."""
    print(sentence, file=sys.stderr, flush=True)
    try:
        _client().wait_at_barrier("leaving", _LEAVE_MS)
        if jax.process_index() == 0:  # the coordination service ends with this process
            time.sleep(1)
    except jax.errors.JaxRuntimeError:
        pass  # the others are not failing, or gone: they learn of it as they lose this process
    sys.stdout.flush()
    os._exit(code)


def _nobody_came(where: str, seconds: int) -> NoReturn:
    print(
        f"error: not all processes met at {where} within {seconds} s "
        "(config.distributed.init_timeout_s): look for one that did not start or cannot reach it",
        file=sys.stderr,
        flush=True,
    )
    os._exit(PROCESS_LOST)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _client() -> Any:
    from jax._src import distributed  # the key-value store has no public name

    return distributed.global_state.client


_watchdog = Watchdog(0)


def watchdog() -> Watchdog:
    """The job's watchdog; off until `watch` sets its limit."""
    return _watchdog


def watch(limit_s: float) -> Watchdog:
    """Sets the limit of the job's watchdog."""
    global _watchdog
    _watchdog.close()
    _watchdog = Watchdog(limit_s)
    return _watchdog


def first(work: Callable[[], Any]) -> Any:
    """What `work` gives (as JSON) in process 0; the others wait for it.

    Every process must call it, in the same order.

    Raises:
      UserError: in all processes, if `work` raises it in process 0.
    """
    return _exchange(work, speakers=(0,))[0]


def everywhere(work: Callable[[], Any]) -> list[Any]:
    """What `work` gives (as JSON) in each process, by process.

    Raises:
      UserError: in all processes, if `work` raises it in one.
    """
    return _exchange(work, speakers=range(jax.process_count()))


def _exchange(work: Callable[[], Any], speakers: Any) -> list[Any]:
    client, place = _client(), jax.process_index()
    if client is None:
        return [work()]
    key = f"endoclip_jax/{next(_calls)}"
    if place in speakers:
        try:
            said = {"value": work()}
        except UserError as error:
            said = {"error": str(error)}
        client.key_value_set(f"{key}/{place}", json.dumps(said))
    heard = [json.loads(client.blocking_key_value_get(f"{key}/{p}", _WAIT_MS)) for p in speakers]
    for speaker, said in zip(speakers, heard, strict=True):
        if "error" in said:
            raise UserError(said["error"] + ("" if speaker == place else f" (process {speaker})"))
    return [said["value"] for said in heard]


def check_alike(facts: Mapping[str, Any]) -> None:
    """Stops the job unless all processes have the same facts (by what they are called).

    Raises:
      UserError: in all processes, naming the first process and fact that differ from process 0's.
    """
    told = everywhere(lambda: dict(facts))
    for place, other in enumerate(told):
        for name, value in told[0].items():
            if other.get(name) != value:
                raise UserError(
                    f"process {place} has {name} {other.get(name)!r} and process 0 has {value!r}: "
                    "start all processes with the same command, code and data"
                )
