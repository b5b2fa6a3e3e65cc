"""The job files: they parse, and every flag and file they name exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from configs import base
from endoclip_jax import errors
from endoclip_jax.configuration import flatten

ROOT = Path(__file__).parent.parent
JOB_FILES = ("launch/slurm.sbatch", "launch/jobset.yaml", "Dockerfile", "docs/clusters.md")


@pytest.mark.parametrize("name", JOB_FILES)
def test_flags_and_files_exist(name):
    text = (ROOT / name).read_text()
    keys = set(flatten(base.get_config().to_dict()))
    named = set(re.findall(r"--config\.([\w.]+)=", text))
    assert named and named <= keys | {"KEY"}
    for path in re.findall(r"(?<![\w/.])((?:launch|configs|docs)/[\w./]+\w)", text):
        assert (ROOT / path).is_file(), path
    with_dashes = re.findall(r"(?:launch/main\.py|^ +- )[^\n]*?--(\w+)[= ]", text, re.MULTILINE)
    assert set(with_dashes) <= {"config", "workdir"}


def test_sbatch_is_bash_and_asks_to_be_requeued():
    path = ROOT / "launch" / "slurm.sbatch"
    subprocess.run([shutil.which("bash"), "-n", path], check=True)
    options = re.findall(r"^#SBATCH (.+)$", path.read_text(), re.MULTILINE)
    assert "--requeue" in options and "--signal=B:TERM@300" in options


@pytest.mark.parametrize(
    "code, signalled, requeued",
    [(0, False, False), (0, True, True), (2, False, False), (3, False, True), (10, False, True)],
)
def test_sbatch_requeues_what_can_go_on(code, signalled, requeued, tmp_path):
    """The real script with stand-ins for SLURM's two commands."""
    (tmp_path / "srun").write_text(
        "#!/bin/bash\n"
        "trap 'exit $CODE' TERM\n"
        '[ -n "$SIGNALLED" ] && { kill -TERM $PPID; while :; do sleep 0.1; done; }\n'
        "exit $CODE\n"
    )
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/asked\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", ROOT / "launch" / "slurm.sbatch"],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin", "SHARDS": "/data", "WORKDIR": "/runs",
            "SLURM_JOB_ID": "17", "CODE": str(code), "SIGNALLED": "yes" if signalled else "",
        },
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 17\n" if requeued else "")


def test_jobset_counts_its_processes_alike():
    jobset = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] == int(environment["JAX_NUM_PROCESSES"])
    host, port = environment["JAX_COORDINATOR_ADDRESS"].split(":")
    name = jobset["metadata"]["name"]
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert {"containerPort": int(port)} in container["ports"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [errors.USER_MISTAKE]


def test_dockerfile_copies_what_is_there():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    assert "FROM python:3.11-slim" in lines


def test_exit_codes_of_the_table():
    table = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "docs/clusters.md").read_text(), re.M)
    said = {int(code): meaning for code, meaning in table}
    for code, word in {
        errors.UNEXPECTED: "traceback",
        errors.USER_MISTAKE: "mistake",
        errors.PROCESS_LOST: "lost",
        errors.STEP_TOO_LONG: "watchdog",
        errors.INTERRUPTED: "interrupted",
    }.items():
        assert word in said[code]
