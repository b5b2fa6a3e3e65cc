"""From a records folder to a prepared data set, on all cores, interruptible at any moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.choice import Choice, describe
from endoclip_jax.records.frames import MIN_SIDE
from endoclip_jax.records.rows import records_folder
from endoclip_jax.shards.cores import cores
from endoclip_jax.shards.files import full_disk_is_told
from endoclip_jax.shards.index import CARD_FILE, read_card
from endoclip_jax.shards.merge import DISAGREEMENTS_FILE, merge
from endoclip_jax.shards.plan import Earlier, Survey, plan, survey
from endoclip_jax.shards.reports import block_reader
from endoclip_jax.shards.state import State, alone, as_task, clear_unfinished, registering
from endoclip_jax.shards.work import Job, write_shards
from endoclip_jax.shards.writer import Block, Settings

BY_RULES = Choice()


@dataclass(frozen=True)
class Summary:
    """What a preparation did: the data card, and whether there was anything left to do."""

    out: Path
    card: dict[str, Any]
    already_done: bool

    def lines(self) -> Iterator[str]:
        """The accounting, for a person."""
        count, splits, frames = self.card["accounting"], self.card["splits"], self.card["frames"]
        yield (
            f"records: {count['rows_in']} in = {count['records']} stored + "
            f"{count['records_rejected']} rejected"
        )
        yield (
            f"frames: {count['frames_in']} in = {count['frames']} stored + "
            f"{count['frames_rejected']} rejected + "
            f"{count['frames_of_rejected_records']} of rejected records"
        )
        for reason, number in self.card["reject_reasons"].items():
            yield f"  rejected {number}: {reason}"
        yield (
            f"stored frames: {frames['near_duplicates']} near-duplicates; corners blackened on "
            f"{frames['frames_masked']}; writing seems to be left on {frames['frames_with_text']}"
            + (" (flags.jsonl names them: look at them)" if frames["frames_with_text"] else "")
        )
        yield from _reading_lines(self.card)
        for split, size in splits.items():
            yield (
                f"{split}: {size['records']} examinations of {size['patients']} patients, "
                f"{size['frames']} frames ({size['negative']} negative, {size['single']} single, "
                f"{size['multi']} multi)"
            )
        state = "was already prepared" if self.already_done else "prepared"
        yield f"{state}: {self.out} (fingerprint {self.card['fingerprint']})"


def _reading_lines(card: Mapping[str, Any]) -> Iterator[str]:
    """Who read the reports; nothing if it was the rules alone."""
    read = card["extraction"].get("readings")
    if read is None:
        return
    yield (
        f"reports read by {describe(card['extractor'])}: {read['read_by_llm']} by the model, "
        f"{read['read_by_rules']} by rules; {read['corrected']} answers corrected, "
        f"{read['fallback_refused'] + read['fallback_server']} not usable "
        f"({read['fallback_refused']} refused, {read['fallback_server']} not given)"
    )
    if read["compared"]:
        yield (
            f"rules and model differ on {read['differing']} of {read['compared']} reports: "
            f"{DISAGREEMENTS_FILE} in the private folder shows them"
        )


def prepare(
    records: str | Path,
    out: str | Path,
    *,
    long_side: int = 512,
    quality: int = 92,
    splits: Sequence[float | int] = (80, 10, 10),
    records_per_shard: int = 64,
    drop_duplicates: bool = False,
    drop_text: bool = False,
    extractor: Choice = BY_RULES,
    append: bool = False,
    workers: int | None = None,
    salt: bytes | None = None,
    progress: bool = True,
) -> Summary:
    """Prepares a records folder; run again it continues, or says that it is done.

    Args:
      records: folder with a manifest, or with one sub-folder an examination.
      out: folder for shards, index and card; `out`.private beside it takes what is secret.
      long_side: pixels to which a frame's longer side is reduced.
      quality: JPEG quality of the stored frames, 1 to 100.
      splits: shares of patients for training, validation and test.
      records_per_shard: examinations a shard; also the unit of resumption.
      drop_duplicates: leave out frames that nearly repeat another of their examination.
      drop_text: leave out frames on which writing seems to be left.
      extractor: who reads the reports.
      append: add the records to the data set in `out`, under its salt and settings.
      workers: processes, all cores by default. The shards do not depend on it.
      salt: key of the id hashes; by default the one in `out`.private, or a new one.
      progress: whether to show progress on standard error.

    Raises UserError on bad input, on an `out` that is not ours or was made of other records or
    with other settings, and on a full disk; nothing that was there is overwritten.
    """
    settings = _checked(
        long_side, quality, splits, records_per_shard, drop_duplicates, drop_text, extractor
    )  # fmt: skip
    begun = _begin(records, out, settings, append, salt)
    out = begun.job.out
    if begun.is_done:
        return Summary(out, read_card(out), already_done=True)
    with alone(begun.state.private):
        with full_disk_is_told(out):
            clear_unfinished(out, begun.state.private, begun.state.parts)
            _write(begun.job, begun.blocks, workers, extractor, progress)
        return Summary(out, merge(begun.state, out, settings), already_done=False)


def prepare_task(
    records: str | Path,
    out: str | Path,
    *,
    task: int,
    tasks: int,
    long_side: int = 512,
    quality: int = 92,
    splits: Sequence[float | int] = (80, 10, 10),
    records_per_shard: int = 64,
    drop_duplicates: bool = False,
    drop_text: bool = False,
    extractor: Choice = BY_RULES,
    append: bool = False,
    workers: int | None = None,
    salt: bytes | None = None,
    progress: bool = True,
) -> tuple[int, int]:
    """Writes the shards of one task, from 0, of an array job; (its shards, all shards), which are
    there when it returns, written now or before.

    Tasks may run at once, on several machines with one file system. When all are done, `prepare`
    with the same arguments writes what is missing and merges.
    """
    if not 0 <= task < tasks:
        raise UserError(f"--task={task} is not one of --tasks={tasks}: tasks count from 0")
    settings = _checked(
        long_side, quality, splits, records_per_shard, drop_duplicates, drop_text, extractor
    )  # fmt: skip
    begun = _begin(records, out, settings, append, salt)
    if not begun.is_done:
        mine = begun.blocks[task::tasks]
        with as_task(begun.state.private, task, tasks), full_disk_is_told(begun.job.out):
            _write(begun.job, mine, workers, extractor, progress)
    shards = begun.state.deliveries[begun.job.delivery].shards
    return len(shards[task::tasks]), len(shards)


def _checked(
    long_side: int,
    quality: int,
    splits: Sequence[float | int],
    records_per_shard: int,
    drop_duplicates: bool,
    drop_text: bool,
    extractor: Choice,
) -> Settings:
    """The settings; UserError for one that cannot be."""
    if long_side < MIN_SIDE:
        raise UserError(f"--long_side={long_side} is too small: give at least {MIN_SIDE} pixels")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality={quality} is no JPEG quality: give 1 to 100")
    if len(splits) != 3 or min(splits) < 0 or sum(splits) <= 0:
        shares = ",".join(map(str, splits))
        raise UserError(f"--splits={shares} are no three shares: give e.g. 80,10,10")
    if records_per_shard < 1:
        raise UserError(f"--records_per_shard={records_per_shard} is too small: give at least 1")
    train, validation, test = map(float, splits)
    return Settings(
        long_side, quality, (train, validation, test), records_per_shard,
        drop_duplicates, drop_text, extractor.card(),
    )  # fmt: skip


def _write(
    job: Job, blocks: Sequence[Block], workers: int | None, extractor: Choice, progress: bool
) -> None:
    read = None if extractor.llm is None else block_reader(extractor, job.folder, progress)
    write_shards(job, blocks, workers or cores(), read, progress=progress)


class _Begun(NamedTuple):
    """A delivery that is registered: what its shards are, and whether it is in the data set."""

    state: State
    job: Job
    blocks: tuple[Block, ...]
    is_done: bool


def _begin(
    records: str | Path, out: str | Path, settings: Settings, append: bool, salt: bytes | None
) -> _Begun:
    """Surveys the records and registers them, unless they are registered already."""
    folder = records_folder(records)
    out = Path(out).expanduser().absolute()
    if out.resolve().is_relative_to(folder) or folder.is_relative_to(out.resolve()):
        raise UserError(f"{out} and the records folder {folder} contain one another: choose --out")
    while True:
        state = State.load(out)
        _check_ours(out, state)
        _check_settings(out, state, settings)
        key = state.salt(salt)
        surveyed = survey(folder, key)
        number = _delivery_number(state, surveyed, out, append)
        job = Job(folder, out, state.parts, settings, key, number)
        if surveyed.source in state.merged(out):
            return _Begun(state, job, (), is_done=True)
        planned = plan(surveyed, settings, Earlier.read(state, number), number)
        with full_disk_is_told(out):
            state.make_folders()
            with registering(state.private):
                if not out.exists():
                    state.begin_anew()
                    out.mkdir(parents=True)
                if not state.keep_salt(key):
                    continue  # another task was first, with a new salt of its own
                state = State.load(out)
                if number == len(state.deliveries):
                    state.settings = settings.as_json()
                    state.deliveries.append(planned.delivery(key, number))
                    state.save()
        return _Begun(state, job, planned.blocks, is_done=False)


def _delivery_number(state: State, surveyed: Survey, out: Path, append: bool) -> int:
    """Which delivery these records are; UserError if they cannot be one now."""
    sources = [delivery.source for delivery in state.deliveries]
    finished = state.merged(out) == sources
    if surveyed.source in sources:
        number = sources.index(surveyed.source)
        if not finished and number < len(sources) - 1:
            raise UserError(
                f"another delivery was being added to {out}: run that command again first"
            )
        return number
    if sources and not append:
        raise UserError(
            f"{out} was begun from other records than {surveyed.folder} holds now: add them with "
            "--append, or choose another --out"
        )
    if sources and not finished:
        raise UserError(f"{out} is not finished: run the command that began it again first")
    return len(sources)


def _check_ours(out: Path, state: State) -> None:
    """UserError if there is something in `out` that is no preparation of ours, or one that must
    not be continued."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: pass --out=FOLDER")
    if state.removed()[1] and out.exists():
        raise UserError(f"patients were being removed from {out}: run that command again first")
    if state.deliveries or not out.exists() or not any(out.iterdir()):
        return
    if (out / CARD_FILE).exists():
        raise UserError(
            f"{out} is a prepared data set whose private folder {state.private} is not there, so "
            "it cannot be told what it was made of: put it back, or choose another --out"
        )
    raise UserError(f"{out} is not empty and no prepared data set: choose another --out")


def _check_settings(out: Path, state: State, settings: Settings) -> None:
    for key, value in settings.as_json().items():
        before = state.settings.get(key)
        if state.settings and before != value:
            shown = [describe(v) if isinstance(v, dict) else v for v in (before, value)]
            raise UserError(
                f"{out} was begun with {key}={shown[0]} and not {shown[1]}: use the same settings, "
                "or another --out"
            )
