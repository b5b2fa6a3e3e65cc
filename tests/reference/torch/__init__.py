"""The whole method in PyTorch, written from the paper's equations, as the oracle of the JAX code.

Nothing here imports `endoclip_jax` or speeds anything up: each function is the equation it cites,
in its plainest form, on top of `transformers.CLIPModel`.

- `towers`: CLIP's two encoders, unit embeddings
- `targets`: what each stage's similarities are compared with (Eq. 3)
- `losses`: the cross-entropy of Eq. 2, 3 and 5
- `attention`: patient-level cross-attention (Eq. 4), its pairwise form, plain averaging
- `optimizer`: AdamW, decay on matrices only, clipping, schedule, bounds of the logit scale
- `stages`: the loss of each stage, from a batch and a model
- `names`: the package's parameter tree under the names of `transformers`
- `session`: a stage's training, step by step
"""
