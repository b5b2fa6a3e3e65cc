"""From the command line to one resolved configuration; whether a workdir belongs to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from endoclip_jax.errors import UserError
from endoclip_jax.files import replace_file

CONFIG_FILE = "config.json"
GOALS = ("stage1", "stage2", "stage3", "pipeline", "dino", "sscd", "table")
_CONFIG_FILES = (*GOALS[:-1], "table1", "table2", "sensitivity", "best")
_CHOICES = {
    "goal": GOALS,
    "preset": ("auto", "demo", "paper"),
    "dtype": ("float32", "bfloat16"),
    "remat": ("none", "dots", "full"),
    "data.split": ("train", "all"),
    "loss.implementation": ("dense", "streaming", "auto"),
    "stage1.selection": ("per_patient", "pooled", "pooled_floor1"),
    "stage1.target": ("onehot", "multi_positive"),
    "stage2.target": ("morphology", "onehot"),
    "stage2.text_init": ("stage1", "clip"),
    "stage3.target": ("morphology", "onehot"),
    "stage3.attention": ("literal", "pairwise", "none"),
    "stage3.start": ("stage2", "stage1"),
    "table.cohort": ("shared", "per_seed"),
    "attributes.include_location": (False,),
}
# Of no influence on what was trained: sections, and single keys.
_FREE_TO_CHANGE = (
    "goal",
    "workdir",
    "eval",
    "log",
    "loss.implementation",
    "distributed",
    "scoring",
    "mesh",
    "remat",
    "table",
    "init.resnet",
)


def read_command_line(argv: Sequence[str], root: Path) -> tuple[ConfigDict, set[str]]:
    """The configuration of the command line, and the dotted keys it set itself.

    `--config=configs/stage1.py` is looked up from the current folder, then from `root`, the folder
    that holds `configs`; so is the default workdir, `runs/default`.

    Raises:
      UserError: for a missing file, an unknown key or a value of another type.
    """
    words = [_found_from(argument, root) for argument in _file_first(argv)]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", None, "A file of configs/, e.g. configs/pipeline.py.", flag_values=values,
        sys_argv=words,
    )  # fmt: skip
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of the run; default runs/default.", flag_values=values
    )
    profile = flags.DEFINE_integer(
        "profile", None, "Writes a trace of so many steps of each stage.", lower_bound=0,
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool("help", False, "Shows this text.", short_name="h", flag_values=values)
    try:
        rest = values(words)
        chosen = None if config.value is None else ConfigDict(config.value.to_dict())
    except OSError:
        raise UserError(
            f"the config file {_given_path(argv)} is not there: take one of "
            f"{', '.join(sorted(f'configs/{name}.py' for name in _CONFIG_FILES))}"
        ) from None
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{_essence(error)} (see configs/base.py for all keys)") from None
    if values["help"].value:
        print(values.get_help())
        raise SystemExit(0)
    if len(rest) > 1:
        raise UserError(
            f"{rest[1]!r} is no flag: write --config=FILE, --workdir=DIR or --config.KEY=VALUE"
        )
    if chosen is None:
        raise UserError("--config is missing: give e.g. --config=configs/pipeline.py")
    chosen.workdir = str(
        Path(workdir.value or chosen.workdir or root / "runs" / "default").expanduser().absolute()
    )
    if profile.value is not None:
        chosen.log.profile = profile.value
    return chosen, set(config_flags.get_override_values(values["config"]))


def _file_first(argv: Sequence[str]) -> list[str]:
    """The arguments with `--config FILE` before what it is changed by, as absl needs them."""
    program, *words = argv
    for at, word in enumerate(words):
        name, equals, _ = word.partition("=")
        if name in ("--config", "-config"):
            own = words[at : at + (1 if equals else 2)]
            return [program, *own, *words[:at], *words[at + len(own) :]]
    return [program, *words]


def _found_from(argument: str, root: Path) -> str:
    name, equals, path = argument.partition("=")
    if name.lstrip("-") != "config" or not equals or Path(path.split(":")[0]).exists():
        return argument
    return f"{name}={root / path}" if (root / path.split(":")[0]).exists() else argument


def _given_path(argv: Sequence[str]) -> str:
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, path = argument.partition("=")
        if name.lstrip("-") == "config":
            return path if equals else following
    return ""


def _essence(error: BaseException) -> str:
    """The one line of a flag library's message that says what is wrong."""
    cause = error.args[0] if error.args and isinstance(error.args[0], KeyError) else error
    if isinstance(cause, KeyError) and cause.args:
        name, *hint = str(cause.args[0]).splitlines()
        name = name.strip("'")
        return " ".join([f"the configuration has no key {name!r}", *hint])
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return (lines[-1] if any("Traceback" in line for line in lines) else lines[0]).rstrip(".")


def resolve(config: ConfigDict, overridden: set[str]) -> ConfigDict:
    """The configuration with its preset decided and applied; keys in `overridden` stay as set.

    Raises:
      UserError: for a value outside a key's choices.
    """
    resolved = ConfigDict(config.to_dict())
    if resolved.preset == "auto":
        resolved.preset = "paper" if resolved.data.shards else "demo"
    demo = resolved.demo.to_dict()
    del resolved["demo"]
    if resolved.preset == "demo":
        for key, value in flatten(demo).items():
            if key not in overridden:
                with resolved.unlocked():
                    _set(resolved, key, value)
    check_choices(resolved)
    pairwise = resolved.goal in ("stage3", "pipeline") and resolved.stage3.attention == "pairwise"
    if pairwise and resolved.loss.implementation == "streaming":
        raise UserError(
            "config.loss.implementation=streaming cannot serve config.stage3.attention=pairwise, "
            "whose similarity is no product of images and texts: take dense or auto"
        )
    for key, value in (("data.shards", resolved.data.shards), ("workdir", resolved.workdir)):
        if ":/" in value:
            raise UserError(
                f"config.{key} is {value}: a bucket cannot be read or written in place, since the "
                "index is memory-mapped and frames are read at byte offsets; mount it (gcsfuse, "
                "goofys) or copy it, and give that folder"
            )
    if resolved.data.shards:
        resolved.data.shards = str(Path(resolved.data.shards).expanduser().absolute())
    return resolved


def check_choices(config: ConfigDict) -> None:
    """Raises `UserError` for the first key whose value is none of its choices, or no share."""
    flat = flatten(config.to_dict())
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            options = ", ".join(str(choice) for choice in choices)
            raise UserError(f"config.{key} is {flat[key]!r}: it can be {options}")
    for key in ("attributes.noise_drop", "attributes.noise_flip"):
        if not 0 <= flat[key] <= 1:
            raise UserError(f"config.{key} is {flat[key]!r}: it is a share between 0 and 1")


def with_settings(config: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """A copy of the configuration with dotted keys set, their choices checked.

    Raises:
      UserError: for a key that the configuration does not have, or a value outside its choices.
    """
    changed = ConfigDict(config.to_dict())
    known = flatten(config.to_dict())
    for key, value in settings.items():
        if key not in known:
            raise UserError(f"the configuration has no key {key!r}")
        _set(changed, key, value)
    check_choices(changed)
    return changed


def adopt_model(config: ConfigDict, model: Mapping[str, Any], overridden: set[str]) -> ConfigDict:
    """The configuration with `model` of the weights it starts from; keys in `overridden` stay."""
    adopted = ConfigDict(config.to_dict())
    for key, value in flatten(model, "model.").items():
        if key not in overridden:
            _set(adopted, key, value)
    return adopted


def _set(config: ConfigDict, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        config = config[section]
    config[last] = value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def claim_workdir(config: ConfigDict, workdir: Path, started: Sequence[str]) -> None:
    """Writes `config.json`, or checks that the one there is of the same run.

    A stage's own keys may change until that stage has started; all others that decide what is
    learned may not change at all.

    Args:
      started: sections (`stage1`, ...) that have a checkpoint already.
    """
    path = workdir / CONFIG_FILE
    stages = {"stage1", "stage2", "stage3", "clip", "dino", "sscd"}
    if path.exists():
        try:
            before = flatten(json.loads(path.read_text()))
        except ValueError:
            raise UserError(f"{path} is not JSON: give another --workdir") from None
        now = flatten(json.loads(json.dumps(config.to_dict())))
        for key in sorted(before.keys() | now.keys()):
            section = key.split(".")[0]
            if {section, key} & set(_FREE_TO_CHANGE) or (
                section in stages and section not in started
            ):
                continue
            if before.get(key) != now.get(key):
                raise UserError(
                    f"{workdir} holds a run with {key}={before.get(key)!r}, this one has "
                    f"{now.get(key)!r}: give another --workdir, or --config.{key}={before.get(key)}"
                )
    elif workdir.exists() and any(workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run: give another --workdir")
    replace_file(path, json.dumps(config.to_dict(), indent=1, sort_keys=True) + "\n")
