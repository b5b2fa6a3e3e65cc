"""Packaging of endoclip_jax. A GPU or TPU build of jax is the user's choice: see the README."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="endoclip_jax",
    version="0.1.0",
    description="Endo-CLIP in JAX: image-text pre-training on raw colonoscopy records",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=[
        *find_packages(include=["endoclip_jax", "endoclip_jax.*", "configs"]),
        "endoclip_jax._third_party.openai_clip_bpe",
    ],
    package_dir={"endoclip_jax._third_party.openai_clip_bpe": "third_party/openai_clip_bpe"},
    package_data={
        "endoclip_jax": ["**/*.json", "**/*.css", "**/*.html", "**/*.txt", "**/*.jpg"],
        "endoclip_jax._third_party.openai_clip_bpe": ["*.gz", "LICENSE", "README.md"],
    },
    install_requires=[
        "absl-py",
        "clu>=0.0.12",
        "flax>=0.12.8",
        "google-crc32c>=1.7",
        "grain>=0.2.18",
        "huggingface_hub>=1",
        "jax>=0.10.2",
        "jaxtyping>=0.3",
        "matplotlib>=3.10",
        "ml_dtypes>=0.5",
        "ml_collections>=1.1",
        "numpy>=2.4",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=12",
        "protobuf>=6",
        "safetensors>=0.6",
        "scikit-learn>=1.8",
        "simplejpeg>=1.8",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "threadpoolctl>=3.6",
        "tokenizers>=0.22",
        "transformers>=5.17",
    ],
    extras_require={
        "test": [
            "beartype",
            "hypothesis",
            "mypy",
            "pyarrow>=20",
            "pydicom>=3.0",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "torch==2.13.0",  # as a reference to compare with; never torchvision
        ],
        "dicom": ["pydicom>=3.0"],
        "torch": ["torch==2.13.0"],
        "parquet": ["pyarrow>=20"],
        "dev": ["tensorboard"],
    },
)
