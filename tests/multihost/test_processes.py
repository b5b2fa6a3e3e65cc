"""What decides how many processes there are, and what watches over them."""

import subprocess
import sys

import numpy as np
import pytest

from configs import base
from endoclip_jax import errors
from endoclip_jax.errors import UserError
from endoclip_jax.training.processes import check_alike, everywhere, first, placement
from endoclip_jax.training.samples import SampleDigest

ALONE = base.get_config().distributed
SLURM = {"SLURM_NTASKS": "16", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "node[1-2]"}
INDEXED_JOB = {
    "JAX_NUM_PROCESSES": "4",
    "JOB_COMPLETION_INDEX": "0",
    "JAX_COORDINATOR_ADDRESS": "job-0.job:12345",
}


def settings(**changed):
    return ALONE.to_dict() | changed


def test_alone_when_nothing_says_otherwise():
    assert placement(settings(), {}) is None
    assert placement(settings(), {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "node1"}) is None
    # a shell inside an allocation is no job step
    assert placement(settings(), {"SLURM_NTASKS": "16", "SLURM_JOB_ID": "1"}) is None
    assert placement(settings(cluster="none"), SLURM) is None


def test_an_unknown_cluster_is_refused_by_name():
    with pytest.raises(UserError, match="'slrum' is not one of auto, none, explicit, slurm"):
        placement(settings(cluster="slrum"), {})


def test_explicit_settings_come_before_the_environment():
    given = settings(coordinator="node1:1234", num_processes=2, process_id=0)
    assert placement(given, SLURM | INDEXED_JOB) == {
        "coordinator_address": "node1:1234",
        "num_processes": 2,
        "process_id": 0,
        "cluster_detection_method": "deactivate",
    }


def test_clusters_are_known_by_their_variables():
    assert placement(settings(), SLURM) == {"cluster_detection_method": "slurm"}
    assert placement(settings(), {"OMPI_COMM_WORLD_SIZE": "2"}) == {
        "cluster_detection_method": "ompi"
    }
    assert placement(settings(), {"TPU_WORKER_HOSTNAMES": "a,b"}) == {
        "cluster_detection_method": None
    }
    for cluster in ("auto", "kubernetes"):
        found = placement(settings(cluster=cluster), INDEXED_JOB)
        assert (found["coordinator_address"], found["num_processes"], found["process_id"]) == (
            "job-0.job:12345", 4, 0,
        )  # fmt: skip


@pytest.mark.parametrize(
    "changed, environment, named",
    [
        ({"process_id": 1}, {}, "host:port"),
        ({"coordinator": "node1"}, {}, "host:port"),
        ({"coordinator": "node1:1", "num_processes": 2}, {}, "process_id=None"),
        ({"coordinator": "node1:1", "process_id": 0}, {}, "num_processes=None"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, {}, "from 0 to"),
        ({"cluster": "kubernetes"}, {}, "JAX_NUM_PROCESSES"),
        ({"cluster": "kubernetes"}, {"JAX_NUM_PROCESSES": "2"}, "JOB_COMPLETION_INDEX"),
        ({"cluster": "slurm"}, {}, "srun"),
        ({"cluster": "mpi"}, {}, "mpirun"),
    ],
)
def test_what_does_not_belong_together_is_one_sentence(changed, environment, named):
    with pytest.raises(UserError, match=named) as error:
        placement(settings(**changed), environment)
    assert "\n" not in str(error.value)


def test_one_process_agrees_with_itself():
    assert first(lambda: {"a": 1}) == {"a": 1}
    assert everywhere(lambda: 7) == [7]
    check_alike({"steps": 3})


def watched(limit, *acts):
    """A process of its own that does such things with a watchdog, then sleeps holding the lock."""
    lines = ["import ctypes, time", "from endoclip_jax.training.watchdog import Watchdog"]
    lines += [f"watchdog = Watchdog({limit})", *acts]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60
    )


HANG = "ctypes.PyDLL(None).sleep(30)"  # PyDLL keeps Python's lock


def test_watchdog_names_the_step_that_takes_too_long_though_no_thread_can_run():
    done = watched(0.2, "watchdog.step('step 1')", "watchdog.step('step 2')", HANG)
    assert done.returncode == errors.STEP_TOO_LONG
    assert done.stderr.startswith("watchdog: step 2 has taken longer than 0.2 s")


def test_watchdog_gives_the_first_step_more_and_sleeps_at_rest():
    first = "watchdog.step('step 1'); time.sleep(0.5)"  # compiles: ten times as long
    done = watched(0.2, first, "watchdog.rest(); time.sleep(3)", "watchdog.close()")
    assert done.returncode == 0 and not done.stderr
    done = watched(0, "watchdog.step('step 1')", "watchdog.step('step 2'); time.sleep(0.5)")
    assert done.returncode == 0 and not done.stderr


def test_sample_digest_knows_order_and_goes_on_from_its_value():
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 1000, (6, 2)) for _ in range(4)]

    def digest(batches, value=0, start=0):
        samples = SampleDigest(value)
        for step, frames in enumerate(batches, start=start):
            samples.add(step, frames)
        return samples.value()

    whole = digest(batches)
    assert whole == digest(batches[2:], digest(batches[:2]), start=2)
    assert whole != digest([batches[1], batches[0], *batches[2:]])
    swapped = [batches[0][::-1], *batches[1:]]
    assert whole != digest(swapped)
    columns = [batches[0][:, ::-1], *batches[1:]]
    assert whole != digest(columns)
    assert len({digest([np.full((1, 1), n)]) for n in range(-1, 999)}) == 1000
