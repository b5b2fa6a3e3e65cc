"""The scale that the tables share at demonstration size, so that one workdir serves all of them.

1,600 training examinations instead of 1,000 (the 307 multi-polyp patients stand alone in stage 3,
as SP and MP of the paper's Table 2 ask) and 1,000 labelled polyps instead of 400 (a difference of
two AUROCs is then known to about ±.02 over patients); updates as in the demonstration: about 550
a round of stage 1, 300 in stage 2, 270 in stage 3.
"""

from ml_collections import ConfigDict

from configs import base

DETECTION = tuple(
    ("detection", metric, setting)
    for metric in ("auroc", "aupr")
    for setting in ("zero-shot", "5 %", "10 %")
)
MALIGNANCY = tuple(
    ("malignancy", metric, setting)
    for metric in ("auroc", "aupr")
    for setting in ("zero-shot", "10 %", "20 %")
)


def get_config() -> ConfigDict:
    """The base of a table: only its rows, columns and claims are missing."""
    config = base.get_config()
    config.goal = "table"
    config.demo.update(
        {
            "cohort": {"train": 1600, "polyps": 1000},
            "stage1": {"epochs": 22, "warmup_epochs": 3},
            "stage2": {"epochs": 50},
            "stage3": {"epochs": 30, "warmup_epochs": 3, "include_single": False},
            "clip": {"warmup_epochs": 6},
        }
    )
    return config
