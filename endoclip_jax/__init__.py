"""Endo-CLIP: progressive image-text pre-training on raw colonoscopy records, in JAX."""

__version__ = "0.1.0"
