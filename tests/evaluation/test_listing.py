"""The terminal's further lines: every row once, differences with their p, sentences at the end."""

from __future__ import annotations

from endoclip_jax.evaluation.listing import format_rest
from endoclip_jax.evaluation.results import Row

ROWS = [
    Row("a", "detection", "zero-shot", "auroc", 0.8, 0.7, 0.9, 0.5),  # in the headline table
    Row("a", "detection", "as trained", "ece", 0.25),
    Row("a", "detection", "as trained", "brier", 0.125, 0.11, 0.14),
    Row("a − b", "detection", "zero-shot", "auroc difference", 0.05, -0.01, 0.1, p=0.0667),
    Row("a", "retrieval", "image to text", "recall@5", 0.4, 0.3, 0.5, 0.1),
    Row("a", "malignancy", "one sentence of P2: Pale.", "auroc", 0.6, 0.5, 0.7, 0.5),
    Row("a", "malignancy", "one sentence of P2: Pale.", "aupr", 0.9, 0.8, 1.0, 0.8),
    Row("a", "malignancy", "zero-shot, segment cecum", "auroc", None),
]


def test_lines():
    text = format_rest(ROWS)
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert [block[0] for block in blocks] == [
        "detection", "retrieval", "malignancy", "AUROC of each sentence alone",
    ]  # fmt: skip
    assert blocks[0][1].split("  ")[0] == "as trained"
    assert "ece .250   brier .125 (.11–.14)" in blocks[0][1]
    assert "auroc difference +0.050 (-0.010 to +0.100), p = 0.0667" in blocks[0][2]
    assert "recall@5 .400 (.30–.50), chance .100" in blocks[1][1]
    assert blocks[2][1:] == ["zero-shot, segment cecum  a  auroc –"]
    assert blocks[3][1:] == ["a  .600 (.50–.70)  one sentence of P2: Pale."]
    assert ".800 (" not in text
    assert format_rest(ROWS[:1]) == ""
