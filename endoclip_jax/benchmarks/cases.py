"""What the parity suite compares: every stage, target and attention the configuration offers."""

from __future__ import annotations

from dataclasses import dataclass

TARGETS = ("l1", "power(4)", "softmax(0.1)", "none", "onehot")


@dataclass(frozen=True)
class Case:
    """One way to train.

    Attributes:
      target_norm: how attributes become targets, or `onehot` (the ablation without them); in
        stage 1 `onehot` or `multi_positive`.
      attention, qk_norm, residual: of stage 3.
    """

    stage: str
    target_norm: str
    attention: str = "literal"
    qk_norm: bool = True
    residual: bool = False

    @property
    def label(self) -> str:
        """As the table names it."""
        words = [self.stage, self.target_norm]
        if self.stage == "stage3":
            words.append(self.attention)
            words += [] if self.qk_norm else ["without qk_norm"]
            words += ["with residual"] if self.residual else []
        return " ".join(words)


def all_cases() -> list[Case]:
    """Every target in every stage that has it, every form of attention with the default target."""
    cases = [Case("stage1", target) for target in ("onehot", "multi_positive")]
    cases += [Case("stage2", target) for target in TARGETS]
    for attention in ("literal", "pairwise", "none"):
        cases += [Case("stage3", target, attention) for target in TARGETS]
    for attention in ("literal", "pairwise"):
        for qk_norm, residual in ((False, False), (True, True), (False, True)):
            cases.append(Case("stage3", TARGETS[0], attention, qk_norm, residual))
    return cases
