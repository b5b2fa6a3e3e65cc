"""From a configuration to trained stages and their evaluation: what runs, in which order.

Each stage leaves its checkpoints (and stage 1 its selection) in a folder of the workdir; the next
one finds them there. Running again goes on where the last run stopped, or says that all is done.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from endoclip_jax.configuration import adopt_model, claim_workdir, resolve
from endoclip_jax.convert.source import model_config
from endoclip_jax.convert.weights import check_fits
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.models.clip import CLIPConfig
from endoclip_jax.pipeline.estimate import check_room
from endoclip_jax.pipeline.evaluate import evaluate_run
from endoclip_jax.pipeline.run import FOLDERS_OF, Run, is_done, open_run
from endoclip_jax.pipeline.tables import run_table
from endoclip_jax.pipeline.train import RUN_STAGE
from endoclip_jax.training import checkpoints, processes
from endoclip_jax.training.compilation import keep_compiled
from endoclip_jax.training.memory import keep_memory_of_steps
from endoclip_jax.training.stopping import StopRequest

STAGES_OF = {
    "stage1": ("stage1",),
    "stage2": ("stage1", "stage2"),
    "stage3": ("stage1", "stage2", "stage3"),
    "pipeline": ("stage1", "stage2", "stage3", "clip"),
    "dino": ("dino",),
    "sscd": ("sscd",),
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
    keep_compiled(workdir / "compiled")
    keep_memory_of_steps()
    if config.goal == "table":
        return run_table(config)
    demonstration = not config.data.shards
    processes.watch(config.distributed.step_limit_s)
    processes.first(lambda: _claim(config, workdir))
    stop = StopRequest()
    run = open_run(config, workdir, stop)
    run.say(f"workdir {workdir}, seed {config.seed}, preset {config.preset}")
    if demonstration:
        run.say(
            "this is the DEMONSTRATION: synthetic patients and a small model; for a real run "
            "prepare your records and pass --config.data.shards=DIR"
        )
    remaining = processes.first(lambda: _remaining(run, demonstration))
    if remaining:
        run.say(processes.first(lambda: check_room(config, run.setting.model, workdir, remaining)))
    try:
        with stop:
            for stage in STAGES_OF[config.goal]:
                done = processes.first(partial(is_done, run, stage))
                wanted = stage == config.goal or config.goal == "pipeline" or demonstration
                if not wanted and not done:
                    raise UserError(
                        f"{config.goal} starts from {stage}, which {workdir} does not have (or its "
                        "selection is of other weights): run "
                        f"python launch/main.py --config=configs/{stage}.py "
                        f"--config.data.shards={config.data.shards} --workdir={workdir}"
                    )
                if done:
                    run.say(f"{stage}: done already")
                else:
                    RUN_STAGE[stage](run)
    except Stopped as stopped:
        run.say(f"{stopped}: saved; run the same command again to go on")
        return 0
    finally:
        processes.watchdog().close()
    if config.goal == "pipeline":
        evaluate_run(run)
    else:
        run.say(f"{config.goal} is done: {run.folder(FOLDERS_OF[config.goal][-1])}")
    return 0


def _remaining(run: Run, demonstration: bool) -> list[str]:
    """The stages this call will train."""
    goal = run.config.goal
    wanted = STAGES_OF[goal] if goal == "pipeline" or demonstration else (goal,)
    return [stage for stage in wanted if not is_done(run, stage)]


def _claim(config: ConfigDict, workdir: Path) -> None:
    started = [
        stage
        for stage, folders in FOLDERS_OF.items()
        if any(checkpoints.saved_steps(workdir / name) for name in folders)
    ]
    claim_workdir(config, workdir, started)
