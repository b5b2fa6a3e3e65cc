"""The numbers that Endo-CLIP's Tables 1 and 2 print, and nothing computed here.

They were measured on real records with weights of OpenAI's CLIP: bands to look at (16 benign
polyps: a 95 % interval of the 72.79 runs from about 60 to 85), no target for synthetic patients.
Section 3.3 calls 92.13 an AUROC; it is Table 1's AUPR, and is used as such.
"""

from __future__ import annotations

from endoclip_jax.evaluation.results import HEADLINE_COLUMNS

Column = tuple[str, str, str]

_PERCENT: dict[str, tuple[float | None, ...]] = {
    "Random": (None, 55.61, 59.34, None, 24.75, 26.57, None, 48.02, 53.16, None, 79.80, 83.29),
    "ImageNet": (None, 73.45, 78.31, None, 42.95, 50.05, None, 48.17, 54.40, None, 82.06, 86.79),
    "DINO": (None, 67.11, 68.96, None, 35.97, 38.36, None, 51.58, 57.55, None, 82.98, 85.93),
    "SSCD": (None, 57.07, 62.85, None, 27.15, 31.91, None, 52.12, 53.41, None, 83.51, 84.96),
    "CLIP": (
        66.45, 70.25, 75.00, 31.27, 37.80, 45.41, 45.22, 45.63, 47.39, 78.18, 80.53, 81.28,
    ),
    "Endo-CLIP": (
        76.38, 79.08, 82.38, 45.60, 50.38, 54.37, 72.79, 58.72, 62.73, 92.13, 87.68, 89.61,
    ),
}  # fmt: skip

TABLE_1: dict[str, dict[Column, float]] = {
    model: {
        column: round(value / 100, 6)
        for column, value in zip(HEADLINE_COLUMNS, values, strict=True)
        if value is not None
    }
    for model, values in _PERCENT.items()
}
"""Table 1: model → column → share; a dash of the paper's is missing."""

MALIGNANCY_COLUMNS: tuple[Column, ...] = HEADLINE_COLUMNS[6:]
FULL = "every mark"

_ABLATION: dict[str, tuple[float, ...]] = {
    "row 1": (48.81, 38.47, 48.28, 80.17, 77.21, 81.09),
    "row 2": (50.00, 50.13, 52.35, 81.83, 81.62, 83.25),
    "row 3": (39.71, 54.23, 59.36, 78.25, 84.78, 87.32),
    "row 4": (48.35, 58.05, 55.17, 84.33, 84.76, 86.50),
    FULL: (72.79, 58.72, 62.73, 92.13, 87.68, 89.61),
}

TABLE_2: dict[str, dict[Column, float]] = {
    row: {
        column: round(value / 100, 6)
        for column, value in zip(MALIGNANCY_COLUMNS, values, strict=True)
    }
    for row, values in _ABLATION.items()
}
"""Table 2 from top to bottom. Only the last row, with every mark, is the full method for certain;
which marks of SP, MP, MC and CA the others carry cannot be told from the text."""

GAINS: dict[str, float] = {
    "cleansing": 0.0993,
    "endo_clip": 0.2757,
}
"""What the paper's Table 1 says is gained over CLIP: detection and malignancy AUROC, zero-shot."""
