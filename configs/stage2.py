"""Stage 2, attunement: single-polyp patients and soft targets from nine morphological aspects.

    python launch/main.py --config=configs/stage2.py --config.data.shards=DIR

Paper's score: none of its own. Paper's scale (ViT-B/32, 13,000 examinations,
8 GPUs, 100 epochs a round or stage): not yet run here. Without shards: the demonstration.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.goal = "stage2"
    return config
