"""The smallest models that train: for a process of their own, and for many meshes in one."""

from endoclip_jax.benchmarks.material import Size
from endoclip_jax.models.clip import CLIPConfig, TextConfig, VisionConfig

TINY_KEYS = {
    "vision.image_size": 32,
    "vision.patch_size": 16,
    "vision.width": 32,
    "vision.layers": 1,
    "vision.heads": 1,
    "text.width": 16,
    "text.layers": 1,
    "text.heads": 1,
    "embed_dim": 16,
}
"""Of `config.model`."""

TINY_CLIP = CLIPConfig(VisionConfig(32, 16, 32, 1, 1), TextConfig(width=16, layers=1, heads=1), 16)
"""The same as a model's configuration."""

MICRO_CLIP = CLIPConfig(
    vision=VisionConfig(image_size=16, patch_size=8, width=16, layers=1, heads=2),
    text=TextConfig(width=16, layers=1, heads=2),
    embed_dim=8,
)


def micro(*, batches: tuple[int, int, int], max_images: int, examinations: int = 0) -> Size:
    """The micro model with batches of the three stages."""
    return Size(
        MICRO_CLIP, batches=batches, max_images=max_images, max_texts=2, learning_rate=1e-3,
        examinations=examinations,
    )  # fmt: skip
