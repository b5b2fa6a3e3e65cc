"""Jobs of one or more real processes of `launch/main.py`, each with its own fake devices."""

import socket
import subprocess
import sys
import time
from pathlib import Path

from devices import environment

MAIN = Path(__file__).resolve().parents[2] / "launch" / "main.py"


class Job:
    """Processes of one command; a context that leaves none behind.

    Args:
      arguments: of `launch/main.py`, for all processes; `own` are further ones, a list a process.
      devices: fake CPU devices of each process.
      optimised: with XLA's optimisations.
      cache: folder of compiled programs, shared by jobs.
    """

    def __init__(
        self, arguments, *, folder, processes=1, devices=1, own=None, optimised=False, cache=None
    ):
        address = f"localhost:{_free_port()}"
        self.outputs = [folder / f"process{place}.txt" for place in range(processes)]
        self.processes = []
        variables = environment(devices, optimised)
        if cache is not None:  # jobs of the same shapes need not compile again
            variables |= {
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        for place in range(processes):
            several = [
                f"--config.distributed.coordinator={address}",
                f"--config.distributed.num_processes={processes}",
                f"--config.distributed.process_id={place}",
            ] * (processes > 1)
            given = [*arguments, *several, *(own[place] if own else [])]
            with self.outputs[place].open("w") as output:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, str(MAIN), *map(str, given)],
                        cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def text(self, place=0):
        """What a process has printed so far."""
        return self.outputs[place].read_text()

    def wait(self, timeout=280):
        """Exit codes of all processes."""
        end = time.monotonic() + timeout
        return [process.wait(max(0.1, end - time.monotonic())) for process in self.processes]

    def wait_until(self, condition, timeout=200):
        """Waits for a condition, while all processes live."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.shown()
            assert all(p.poll() is None for p in self.processes), self.shown()
            time.sleep(0.05)

    def shown(self):
        return "\n".join(f"--- process {p}\n{self.text(p)[-3000:]}" for p in range(len(self)))

    def __len__(self):
        return len(self.processes)


def run_job(arguments, *, code=0, timeout=280, **options):
    """Runs a job to its end; what each process printed."""
    with Job(arguments, **options) as job:
        codes = job.wait(timeout)
        assert codes == [code] * len(job), f"{codes}\n{job.shown()}"
        return [job.text(place) for place in range(len(job))]


def _free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]
