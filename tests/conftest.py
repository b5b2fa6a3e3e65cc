"""What holds for every test: eight fake CPU devices, parsed flags, shapes checked at boundaries."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

from absl import flags
from jaxtyping import install_import_hook

install_import_hook("endoclip_jax", "beartype.beartype")
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
