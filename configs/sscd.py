"""The baseline SSCD (arXiv 2202.10261): copy-detection contrast on two crops of frames.

    python launch/main.py --config=configs/sscd.py --config.data.shards=DIR

Trained for its own `epochs`; as a row of Table 1 for as many updates as the three stages together.
Without shards: the demonstration. Paper's scale: not yet run here.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.goal = "sscd"
    return config
