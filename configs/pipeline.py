"""All of it: three stages, the baseline, evaluation and report.

    python launch/main.py --config=configs/pipeline.py --config.data.shards=DIR

Without shards: the demonstration on the embedded cohort, two CPU cores, within 15 minutes (the
README's table has its measured scores). At the paper's scale (13,000 examinations, ViT-B/32,
8 GPUs): not yet run.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.goal = "pipeline"
    return config
