"""What was read in one report, and how, as a prepared data set accounts for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reading:
    """The extraction that counts, and what a model had to do with it.

    Attributes:
      extraction: of `records/data/schema.json`.
      source: "rules" or "llm".
      corrected: whether a model was told what was wrong with its first answer.
      reworded: whether code wrote a model's description anew.
      fallback: why the rules' reading stands for the model's, None if it does not.
      differences: where the two read otherwise, None unless they were compared.
      model: the model's reading, where it was compared and differs.
      answers: the files that keep the model's answers, so that they can be removed.
    """

    extraction: dict[str, Any]
    source: str = "rules"
    corrected: bool = False
    reworded: bool = False
    fallback: str | None = None
    differences: tuple[str, ...] | None = None
    model: dict[str, Any] | None = None
    answers: tuple[Path, ...] = ()

    def note(self) -> dict[str, Any]:
        """What may be told of it to anybody: no word of the report."""
        return {
            "source": self.source,
            "corrected": self.corrected,
            "reworded": self.reworded,
            "fallback": self.fallback.partition(":")[0] if self.fallback else None,
            "differs": None if self.differences is None else bool(self.differences),
        }

    def private(self) -> dict[str, Any]:
        """What only the hospital may see: a fallback's reason, what two readers differ in."""
        kept: dict[str, Any] = {}
        if self.fallback:
            kept["fallback"] = self.fallback
        if self.differences:
            kept["disagreement"] = {
                "differences": list(self.differences),
                "rules": self.extraction,
                "llm": self.model,
            }
        return kept
