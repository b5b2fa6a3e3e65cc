"""Kills training (SIGKILL) at random steps of epoch 1 and later: the same numbers in the end?

python tests/scripts/kill_training.py --processes=1,2 --kills=50 --seed=0

Draws and prepares a cohort, then trains both rounds of stage 1 undisturbed, and again with a
kill -9 of every process each time that a random step has been made, from whose last checkpoint the
next one goes on. At the end of each such run, all arrays of the final states (parameters,
optimizer, running metrics), every step's line of metrics with its digest of all sample ids so far,
and the selections must be bit-equal to the undisturbed run's. Kills are shared out among the
numbers of processes. Prints a line for each kill; exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_model import TINY_KEYS

from endoclip_jax.shards.prepare import prepare
from endoclip_jax.synthetic.cohort import write_cohort
from endoclip_jax.training import checkpoints

MAIN = Path(__file__).resolve().parents[2] / "launch" / "main.py"
ROUNDS = ("stage1_round1", "stage1_round2")
PATIENTS, BATCH, EPOCHS = 64, 8, 12
STEPS_PER_EPOCH = PATIENTS // BATCH
SMALL = {
    **{f"model.{key}": value for key, value in TINY_KEYS.items()},
    "stage1.global_batch": BATCH, "stage1.epochs": EPOCHS, "stage1.warmup_epochs": 2,
    "log.every_steps": 1, "log.save_epochs": 1, "log.validate_epochs": 4,
}  # fmt: skip


@dataclass
class Trial:
    """One workdir, trained by so many processes."""

    workdir: Path
    shards: Path
    processes: int
    running: list[subprocess.Popen] = field(default_factory=list)

    def start(self) -> None:
        command = [
            sys.executable, str(MAIN), "--config=configs/stage1.py", "--config.preset=demo",
            f"--workdir={self.workdir}", f"--config.data.shards={self.shards}",
            *[f"--config.{key}={value}" for key, value in SMALL.items()],
        ]  # fmt: skip
        distributed = [[]]
        if self.processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            distributed = [
                [
                    f"--config.distributed.coordinator=127.0.0.1:{port}",
                    f"--config.distributed.num_processes={self.processes}",
                    f"--config.distributed.process_id={index}",
                ]
                for index in range(self.processes)
            ]
        log = self.workdir.with_suffix(".log").open("ab")
        self.running = [
            subprocess.Popen([*command, *flags], stdout=log, stderr=log, start_new_session=True)
            for flags in distributed
        ]
        log.close()

    def wait(self) -> None:
        if any([process.wait() for process in self.running]):
            sys.exit("training failed:\n" + self.workdir.with_suffix(".log").read_text()[-4000:])

    def kill_at(self, target: int, rng: random.Random) -> int | None:
        """Kills when `target` steps are made in all; the step then, None if training ended."""
        while self.progress() < target:
            if all(process.poll() is not None for process in self.running):
                self.wait()
                return None
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))  # any moment of a step, of saving, of what comes between
        for process in rng.sample(self.running, len(self.running)):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.running:
            process.wait()
        return self.progress()

    def progress(self) -> int:
        """Steps made in all, as the metrics say."""
        steps = [last_step(self.workdir / name / "metrics.jsonl") for name in ROUNDS]
        return EPOCHS * STEPS_PER_EPOCH + steps[1] if steps[1] else steps[0]

    def saved(self) -> int:
        newest = [max([0, *checkpoints.saved_steps(self.workdir / name)]) for name in ROUNDS]
        return EPOCHS * STEPS_PER_EPOCH + newest[1] if newest[1] else newest[0]


def last_step(path: Path) -> int:
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def differences(one: Path, other: Path) -> list[str]:
    """What is not bit-equal between two finished workdirs."""
    found = []
    for name in ROUNDS:
        steps = [checkpoints.saved_steps(workdir / name) for workdir in (one, other)]
        if steps[0] != steps[1]:
            found.append(f"{name}: checkpoints at {steps[0]} and {steps[1]}")
            continue
        (left, left_meta), (right, right_meta) = (
            checkpoints.load_params(workdir / name, steps[0][-1]) for workdir in (one, other)
        )
        for key in ("checksums", "samples", "validation", "step", "config", "data", "seed"):
            if json.dumps(left_meta[key]) != json.dumps(right_meta[key]):  # NaN is NaN
                found.append(f"{name}: {key} of the last checkpoint")
        if not same_bits(left, right):
            found.append(f"{name}: parameters")
        texts = [(workdir / name / "metrics.jsonl").read_text() for workdir in (one, other)]
        if texts[0] != texts[1]:
            found.append(f"{name}: metrics and sample ids step by step")
        rows = [json.loads(line) for line in texts[0].splitlines()]
        steps_seen = [row["step"] for row in rows if row["split"] == "train"]
        if steps_seen != list(range(1, EPOCHS * STEPS_PER_EPOCH + 1)):
            found.append(f"{name}: not every step has its line")
        with (
            np.load(one / name / "selection.npz") as first,
            np.load(other / name / "selection.npz") as second,
        ):
            if any(first[key].tobytes() != second[key].tobytes() for key in first.files):
                found.append(f"{name}: selection")
    return found


def same_bits(left: dict, right: dict) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_bits(left[k], right[k]) for k in left)
    return np.asarray(left).tobytes() == np.asarray(right).tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", default="1,2", help="numbers of processes, one by one")
    parser.add_argument("--kills", type=int, default=50, help="altogether")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    counts = [int(count) for count in flags.processes.split(",")]
    rng = random.Random(flags.seed)
    kills, unequal, began = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Starting costs most here: programs are compiled once for all trials.
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_PLATFORMS": "cpu",
        }
        write_cohort(
            folder, seed=flags.seed, examinations={"train": PATIENTS, "validation": 8},
            frames_per_case=6, polyps=0, processes=1,
        )  # fmt: skip
        shards = folder / "shards"
        prepare(folder / "records", shards, long_side=48, workers=1, progress=False)
        for turn, processes in enumerate(counts):
            whole = Trial(folder / f"whole{processes}", shards, processes)
            whole.start()
            whole.wait()
            share = flags.kills * (turn + 1) // len(counts)
            print(f"undisturbed, {processes} process(es): {whole.progress()} steps", flush=True)
            run = 0
            while kills < share:
                run += 1
                trial = Trial(folder / f"killed{processes}-{run}", shards, processes)
                ended = False
                while not ended:
                    before = trial.progress()  # its lines beyond the checkpoint are still there
                    trial.start()
                    if kills == share:
                        trial.wait()
                        ended = True
                        continue
                    after = max(before, STEPS_PER_EPOCH)
                    target = after + rng.randint(1, 3 * STEPS_PER_EPOCH)
                    step = trial.kill_at(target, rng)
                    ended = step is None
                    if not ended:
                        kills += 1
                        print(
                            f"kill {kills}, {processes} process(es): step {step}, checkpoint "
                            f"{trial.saved()}, {time.monotonic() - began:.0f} s", flush=True,
                        )  # fmt: skip
                found = differences(whole.workdir, trial.workdir)
                unequal += bool(found)
                print("  run to its end: " + ("; ".join(found) or "bit-equal"), flush=True)
    print(f"{kills} kills: {'all runs bit-equal' if not unequal else f'{unequal} RUNS DIFFER'}")
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
