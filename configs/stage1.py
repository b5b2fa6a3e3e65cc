"""Stage 1, cleansing: two rounds of contrast with two sentences, and the selection of frames.

    python launch/main.py --config=configs/stage1.py --config.data.shards=DIR

Paper's score: detection AUROC .764, AUPR .456 zero-shot. Paper's scale (ViT-B/32,
13,000 examinations, 8 GPUs, 100 epochs a round or stage): not yet run here. Without shards: the
demonstration.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.goal = "stage1"
    return config
