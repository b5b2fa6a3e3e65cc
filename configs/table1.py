"""Table 1: Endo-CLIP beside its baselines, detection and malignancy, zero-shot and few-shot.

    python launch/main.py --config=configs/table1.py --workdir=runs/tables
    python launch/main.py --config=configs/table1.py:search --workdir=runs/tables
    python launch/main.py --config=configs/table1.py --config.data.shards=DIR \\
        --config.eval.malignancy=POLYPS --workdir=runs/tables_real

Without shards: the embedded cohort at the scale of `table_scale.py`, 5 seeds. After table2 in the
same workdir a seed takes 2 min of one core of an AMD EPYC for CLIP, 12.5 for DINO and SSCD.
`search` tries each baseline with other rates and the like, on seed 0; what it found stands in
base.py. Figures: docs/tables.md. Paper's scale: not yet run. Stop it at any time: the same command
goes on.

Endo-CLIP is stage 1 for detection and stage 3 for malignancy. Every trained baseline takes as many
updates as the three stages together. A model whose weights were not given is a row of dashes with
the reason below the table.
"""

from configs import table_scale

_COLUMNS = table_scale.DETECTION + table_scale.MALIGNANCY

# What the baselines are tried with at the demonstration's scale, seed 0.
_SEARCHED = {
    "clip": ({"learning_rate": 2e-4}, {"learning_rate": 5e-4}, {"learning_rate": 1e-3}),
    "dino": (
        {"learning_rate": 5e-4, "momentum": 0.996},
        {"learning_rate": 2e-3, "momentum": 0.996},
        {"learning_rate": 5e-4, "momentum": 0.98},
        {"learning_rate": 2e-3, "momentum": 0.98},
    ),
    "sscd": (
        {"learning_rate": 5e-4, "entropy_weight": 10.0},
        {"learning_rate": 2e-3, "entropy_weight": 10.0},
        {"learning_rate": 5e-4, "entropy_weight": 3.0},
    ),
}


def get_config(what="table"):
    if what not in ("table", "search"):
        raise ValueError(f"configs/table1.py:{what} is not there: table or search")
    config = table_scale.get_config()
    return _search(config) if what == "search" else _table(config)


def _search(config):
    config.table.name = "table1_search"
    config.table.title = "The baselines: what they learn best with"
    config.table.seeds = (0,)
    config.table.columns = tuple(column for column in _COLUMNS if column[1] == "auroc")
    config.table.rows = tuple(
        _both(_named(stage, settings), stage, settings=_of(stage, settings))
        for stage, tried in _SEARCHED.items()
        for settings in tried
    )
    return config


def _table(config):
    config.table.name = "table1"
    config.table.title = "Table 1: detection and malignancy"
    config.table.columns = _COLUMNS
    config.table.rows = (
        _both("Random (ResNet-50)", "random_resnet", paper="Random"),
        _both("ImageNet (ResNet-50)", "imagenet_resnet", paper="ImageNet"),
        _both("DINO", "dino", paper="DINO"),
        _both("SSCD", "sscd", paper="SSCD"),
        _both("CLIP (pre-trained)", "pretrained_clip", paper="CLIP"),
        _both("CLIP (trained here)", "clip"),
        {"name": "Endo-CLIP, round 1", "detection": "stage1_round1"},
        {
            "name": "Endo-CLIP",
            "detection": "stage1_round2",
            "malignancy": "stage3",
            "selection": True,
            "paper": "Endo-CLIP",
        },
    )
    config.table.arranged = (
        "DINO", "SSCD", "CLIP (pre-trained)", "CLIP (trained here)", "Endo-CLIP",
    )  # fmt: skip
    config.table.claims = (
        _claim("cleansing lifts detection", "CLIP (trained here)", gain="cleansing"),
        _claim("cleansing lifts detection", "CLIP (pre-trained)", gain="cleansing"),
        _claim("round 2 adds to round 1", "Endo-CLIP, round 1"),
        _claim("three stages lift malignancy", "CLIP (trained here)", "malignancy", "endo_clip"),
        _claim("three stages lift malignancy", "CLIP (pre-trained)", "malignancy", "endo_clip"),
    )
    return config


def _named(stage, settings):
    return f"{stage.upper()}, {', '.join(f'{key} {value:g}' for key, value in settings.items())}"


def _of(stage, settings):
    return {f"{stage}.{key}": value for key, value in settings.items()}


def _both(name, source, **rest):
    return {"name": name, "detection": source, "malignancy": source, **rest}


def _claim(claim, worse, task="detection", gain=""):
    return {
        "claim": claim, "task": task, "better": "Endo-CLIP", "worse": worse, "paper_gain": gain,
    }  # fmt: skip
