"""Stage 3, unification: multi-polyp patients, cross-attention and union targets.

    python launch/main.py --config=configs/stage3.py --config.data.shards=DIR

Paper's score: malignancy AUROC .728, AUPR .921 zero-shot. Paper's scale (ViT-B/32,
13,000 examinations, 8 GPUs, 100 epochs a round or stage): not yet run here. Without shards: the
demonstration.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.goal = "stage3"
    return config
