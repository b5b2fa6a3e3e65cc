"""Which trainings a table needs: rows share every stage whose settings, and whose parents', agree.

A cell is one stage trained with one group of settings. Its settings are those of the row's that
reach it, through its own section or an ancestor's, and differ from the table's base; its folder is
named after them (`stage3,attention=none,stage2.target=onehot`). Two rows with the same cell train
it once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from endoclip_jax.errors import UserError
from endoclip_jax.pipeline.run import FOLDERS_OF

STAGES = ("stage1", "stage2", "stage3")
_READ_BY = {"attributes": ("stage2", "stage3")}  # a section of no stage reaches all but these

STAGE_OF = {folder: stage for stage, folders in FOLDERS_OF.items() for folder in folders}


@dataclass(frozen=True)
class Row:
    """One line of a table: settings over the base, and what of the run is evaluated.

    Attributes:
      detection, malignancy: what is evaluated there: the folder of a trained stage
        (`stage1_round2`, `clip`), or a name of `subjects.UNTRAINED`; empty: not at all.
      selection: whether the kept frames are compared with truth.
      leak: whether match rates on true and shuffled pairs are taken.
      marks: what is printed under the table's marks.
      paper: the paper's row to print beside it.
    """

    name: str
    detection: str = ""
    malignancy: str = ""
    selection: bool = False
    leak: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """What has to be there before the row can be evaluated."""
        kept = ("stage1_round2",) if self.selection or self.leak else ()
        attended = ("stage3",) if self.leak else ()
        named = (self.detection, self.malignancy, *kept, *attended)
        return tuple(dict.fromkeys(source for source in named if source))

    @property
    def folder(self) -> str:
        """A name for a folder."""
        return re.sub(r"[^A-Za-z0-9.,=+-]+", "_", self.name).strip("_")


@dataclass(frozen=True)
class Cell:
    """One stage with the settings that reach it, sorted by key."""

    stage: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def folder(self) -> str:
        """A name that tells the settings: `stage2,target=onehot`."""
        parts = [f"{key.removeprefix(self.stage + '.')}={value}" for key, value in self.settings]
        return re.sub(r"[^A-Za-z0-9.,=_-]", "_", ",".join([self.stage, *parts]))


def parents(stage: str, start: str) -> tuple[str, ...]:
    """The stages that have to be there first; baselines count the updates of all three."""
    if stage == "stage3":
        return ("stage1", "stage2") if start == "stage2" else ("stage1",)
    return {"stage1": (), "stage2": ("stage1",)}.get(stage, STAGES)


def cells_of(row: Row, base: Mapping[str, Any]) -> dict[str, Cell]:
    """The cells a row needs, by stage, in the order of training.

    Args:
      base: the table's configuration, flat.

    Raises:
      UserError: for a setting that is no key of the configuration.
    """
    unknown = sorted(set(row.settings) - set(base))
    if unknown:
        raise UserError(f"the row {row.name!r} sets {unknown[0]!r}, which is no key")
    start = row.settings.get("stage3.start", base["stage3.start"])
    wanted = {STAGE_OF[source] for source in row.sources if source in STAGE_OF}
    needed = {parent for stage in wanted for parent in parents(stage, start)} | wanted
    order = [*STAGES, *sorted(needed - set(STAGES))]
    changed = {key: value for key, value in row.settings.items() if value != base[key]}
    cells = {}
    for stage in (stage for stage in order if stage in needed):
        lineage = (stage, *parents(stage, start))
        reaching = sorted(
            (key, value) for key, value in changed.items() if _reaches(key.split(".")[0], lineage)
        )
        cells[stage] = Cell(stage, tuple(reaching))
    return cells


def _reaches(section: str, lineage: Sequence[str]) -> bool:
    if section in FOLDERS_OF:
        return section in lineage
    return bool(set(_READ_BY.get(section, lineage)) & set(lineage))


def rows_of(table: Mapping[str, Any]) -> tuple[Row, ...]:
    """All rows of the table.

    Raises:
      UserError: for two rows whose folders would be one.
    """
    rows = tuple(Row(**row) for row in table["rows"])
    if len({row.folder for row in rows}) < len(rows):
        raise UserError(f"two rows of {table['name']} have names that make the same folder")
    return rows


def wanted(rows: Sequence[Row], table: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows to train and evaluate now: those that the table's `only` names, or all.

    Raises:
      UserError: for a name in `only` that no row has.
    """
    names = [name.strip() for name in table["only"].split(";") if name.strip()]
    unknown = sorted(set(names) - {row.name for row in rows})
    if unknown:
        raise UserError(
            f"config.table.only names {unknown[0]!r}; the table's rows are: "
            f"{'; '.join(row.name for row in rows)}"
        )
    return tuple(row for row in rows if not names or row.name in names)
