"""From a configuration to trained stages and their evaluation: what runs, in which order.

Each stage leaves its checkpoints (and stage 1 its selection) in a folder of the workdir; the next
one finds them there. Running again goes on where the last run stopped, or says that all is done.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from endoclip_jax.configuration import adopt_model, claim_workdir, resolve
from endoclip_jax.convert.source import model_config
from endoclip_jax.convert.weights import check_fits
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIPConfig
from endoclip_jax.pipeline.evaluate import evaluate_run
from endoclip_jax.pipeline.run import FOLDERS_OF, is_done, open_run
from endoclip_jax.pipeline.train import RUN_STAGE, Stopped
from endoclip_jax.training import checkpoints

STAGES_OF = {
    "stage1": ("stage1",),
    "stage2": ("stage1", "stage2"),
    "stage3": ("stage1", "stage2", "stage3"),
    "pipeline": ("stage1", "stage2", "stage3", "clip"),
}


def run(config: ConfigDict, overridden: set[str]) -> int:
    """Runs the configuration's goal; returns the exit code.

    In the demonstration whatever an earlier stage has to leave behind is made first; a real run
    stops instead and names the command that makes it.
    """
    config = resolve(config, overridden)
    if config.init.clip:
        start = model_config(config.init.clip)
        config = adopt_model(config, start.to_dict(), overridden)
        check_fits(config.init.clip, start, CLIPConfig.from_dict(config.model.to_dict()))
    workdir = Path(config.workdir)
    demonstration = not config.data.shards
    started = [
        stage
        for stage, folders in FOLDERS_OF.items()
        if any(checkpoints.saved_steps(workdir / name) for name in folders)
    ]
    claim_workdir(config, workdir, started)
    run = open_run(config, workdir)
    run.say(f"workdir {workdir}, seed {config.seed}, preset {config.preset}")
    if demonstration:
        run.say(
            "this is the DEMONSTRATION: synthetic patients and a small model; for a real run "
            "prepare your records and pass --config.data.shards=DIR"
        )
    try:
        for stage in STAGES_OF[config.goal]:
            wanted = stage == config.goal or config.goal == "pipeline" or demonstration
            if not wanted and not is_done(run, stage):
                raise UserError(
                    f"{config.goal} starts from {stage}, which {workdir} does not have: run "
                    f"python launch/main.py --config=configs/{stage}.py "
                    f"--config.data.shards={config.data.shards} --workdir={workdir}"
                )
            if is_done(run, stage):
                run.say(f"{stage}: done already")
            else:
                RUN_STAGE[stage](run)
    except Stopped as stop:
        run.say(f"{stop}: saved; run the same command again to go on")
        return 0
    if config.goal == "pipeline":
        evaluate_run(run)
    else:
        run.say(f"{config.goal} is done: {run.folder(FOLDERS_OF[config.goal][-1])}")
    return 0
