"""The baselines DINO and SSCD, launched as a person does, and as rows beside the three stages."""

import numpy as np
import pytest
from test_launch import ROOT, TINY_MODEL, launch_here

import endoclip_jax
from endoclip_jax.configuration import read_command_line, resolve
from endoclip_jax.pipeline.run import FOLDERS_OF, open_run
from endoclip_jax.pipeline.train import RUN_STAGE
from endoclip_jax.training import checkpoints
from endoclip_jax.training.metrics import read_metrics
from endoclip_jax.training.stopping import StopRequest

SMALL = [
    *TINY_MODEL,
    *(
        f"--config.{stage}.{key}={value}"
        for stage in ("dino", "sscd")
        for key, value in {"global_batch": 16, "epochs": 1, "warmup_epochs": 1}.items()
    ),
    "--config.dino.prototypes=32",
    "--config.dino.hidden=16",
    "--config.preset=demo",
]


@pytest.mark.parametrize("goal", ["dino", "sscd"])
def test_a_baseline_leaves_a_tower_that_embeds(goal, tiny_shards, tiny_cohort, tmp_path, capsys):
    arguments = [
        f"--config=configs/{goal}.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.shards={tiny_shards}",
        *SMALL,
    ]
    assert launch_here(*arguments) == 0
    folder = tmp_path / "run" / goal
    assert f"{goal} is done: {folder}" in capsys.readouterr().out
    assert checkpoints.saved_steps(folder) == [2]  # 40 patients, 16 in a batch
    (validated,) = [row for row in read_metrics(folder) if row["split"] == "validation"]
    shown = {"dino": "marginal_entropy", "sscd": "nearest_cosine"}[goal]
    assert {"loss", "entropy", "excess", shown} <= validated.keys()

    frame = next((tiny_cohort / "polyps" / "images").iterdir())
    features = np.asarray(endoclip_jax.load(folder).embed_images([frame]))
    np.testing.assert_allclose(np.linalg.norm(features), 1, rtol=1e-5)
    assert launch_here(*arguments) == 0
    assert f"{goal}: done already" in capsys.readouterr().out


def test_beside_the_stages_a_baseline_updates_as_often_as_they(tiny_shards, tmp_path):
    argv = [
        "main.py", "--config=configs/pipeline.py", f"--workdir={tmp_path}",
        f"--config.data.shards={tiny_shards}", *SMALL,
    ]  # fmt: skip
    config = resolve(*read_command_line(argv, ROOT))
    for stage in ("stage1", "stage2", "stage3"):
        for name in FOLDERS_OF[stage]:
            for part in ("meta", "state"):
                (tmp_path / name / "checkpoints" / "1" / part).mkdir(parents=True)
    with StopRequest() as stop:
        RUN_STAGE["sscd"](open_run(config, tmp_path, stop))
    assert checkpoints.saved_steps(tmp_path / "sscd") == [4]
