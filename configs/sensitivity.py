"""Sensitivity: kept fraction, targets, temperature, and errors of extraction.

    python launch/main.py --config=configs/sensitivity.py --workdir=runs/tables

3 seeds at the scale of `table_scale.py`; all but `rho 1` were run (docs/tables.md). About an hour
of one core a seed beside other work, in the workdir of a finished table2, whose cells it shares;
parts of it with `--config.table.only="base; rho 0.05"`. Stop it at any time: the same command goes
on.

`rho 1` keeps every frame: round 2 without cleansing, with as many updates. `target power(4)` is the
demonstration's base under its own name, as `target l1` is the paper preset's. The temperature of
stage 1 has no row: without CLIP's weights it starts at log(1/0.07) whether reset or kept.
"""

from configs import table_scale

BASE = "base"


def get_config():
    config = table_scale.get_config()
    config.table.name = "sensitivity"
    config.table.title = "Sensitivity of Endo-CLIP"
    config.table.seeds = (0, 1, 2)
    config.table.columns = (
        ("detection", "auroc", "zero-shot"),
        ("detection", "aupr", "zero-shot"),
        ("selection", "precision", "after round 2"),
        ("malignancy", "auroc", "zero-shot"),
        ("malignancy", "auroc", "20 %"),
    )
    changes = {
        BASE: {},
        **{f"rho {rho:g}": {"stage1.rho": rho} for rho in (0.05, 0.10, 0.45, 1.0)},
        **{
            f"target {norm}": {"stage2.target_norm": norm, "stage3.target_norm": norm}
            for norm in ("l1", "none", "power(4)", "softmax(0.1)")
        },
        "target onehot": {"stage2.target": "onehot", "stage3.target": "onehot"},
        "temperature kept in stage 2": {"stage2.logit_scale_init": "keep"},
        "temperature kept in stage 3": {"stage3.logit_scale_init": "keep"},
        "temperature kept in both": {
            "stage2.logit_scale_init": "keep", "stage3.logit_scale_init": "keep",
        },
        **{f"{p:.0%} of set bits lost": {"attributes.noise_drop": p} for p in (0.1, 0.3)},
        **{f"{p:.0%} of bits inverted": {"attributes.noise_flip": p} for p in (0.1, 0.3)},
    }  # fmt: skip
    config.table.rows = tuple(_row(name, settings) for name, settings in changes.items())
    config.table.claims = tuple(
        {"claim": f"{name} changes", "task": task, "better": name, "worse": BASE}
        for name, settings in changes.items()
        if name != BASE
        for task in (("detection", "malignancy") if "rho" in name else ("malignancy",))
    )
    return config


def _row(name, settings):
    row = {"name": name, "malignancy": "stage3", "settings": settings}
    if name == BASE or name.startswith("rho"):
        row |= {"detection": "stage1_round2", "selection": True}
    return row
