"""Batch inference that may stop between shards: each item is answered once, however often the job is stopped.

    from carbon_sched_runtime import batch      # travels with every job; `from carbon_sched import batch` is the same

    for shard in batch.shards(prompts, size=64):
        shard.save([answer(prompt) for prompt in shard.items])
    print(sum(1 for row in batch.results()), "answers in", batch.folder())

With Ray Data, a shard is a dataset: `shard.save(ray.data.from_items(shard.items).map_batches(Model).take_all())`. What
a library writes itself goes to `shard.draft`, a file or a folder, and counts from `shard.done()` on.

A shard's answers are moved into place as a whole: a killed job repeats one shard at most. Asked to stop (`submit
--interruptible`), the loop ends the process between two shards with exit code 143; the next attempt goes on with the
shards that are missing. Inside carbon-sched the server hears of every shard: `status` shows the progress with the gCO2e
per item. Outside of it a run begins anew, unless `out` names a folder to go on in.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbon_sched_runtime import job
from carbon_sched_runtime.batch_file import BatchState, write_batch
from carbon_sched_runtime.fields import OWNER, WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

STOPPED = 128 + signal.SIGTERM
"""The exit code of a batch that was asked to stop: the one of a process that SIGTERM has ended."""
PLAN = "batch.json"

log = logging.getLogger("carbon_sched")


@dataclass(frozen=True)
class Shard:
    """Consecutive items of a batch; its answers are written in `draft`, and lie in `output` once it is done."""

    number: int
    items: Sequence[Any]
    output: Path

    @property
    def draft(self) -> Path:
        """A file or a folder that is not there yet: for what a library writes itself."""
        return self.output.with_name(f"draft-{self.output.name}")

    def save(self, rows: Iterable[Any]) -> None:
        """Keep the answers, one line of JSON each, and be done with this shard."""
        with self.draft.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.done()

    def done(self) -> None:
        """Have what lies in `draft` stand for this shard; FileNotFoundError when nothing does."""
        for path in (self.draft, *self.draft.rglob("*")):
            _sync(path)
        self.draft.replace(self.output)
        _sync(self.output.parent)


class _Batch:
    """One batch in its folder; `done` items have their answers."""

    def __init__(self, items: Sequence[Any], size: int, out: Path) -> None:
        self._total, self._start_us = len(items), time.time_ns() // 1000
        starts = range(0, len(items), size)
        self.shards = [
            Shard(number, items[start : start + size], out / f"shard-{number:06d}.jsonl")
            for number, start in enumerate(starts)
        ]
        self.done = sum(len(shard.items) for shard in self.shards if shard.output.exists())

    def tell(self) -> None:
        """Tell the server how far it has come; a job goes on where that cannot be written."""
        attempt = os.environ.get("CARBON_SCHED_ATTEMPT", "")
        if not OWNER.fullmatch(attempt):
            return
        from carbon_sched_runtime.run import journal_folder  # noqa: PLC0415 - outside of a job nobody is told

        state = BatchState(attempt, self.done, self._total, self._start_us, time.time_ns() // 1000)
        try:
            write_batch(journal_folder(), state)
        except (OSError, WireError) as error:
            log.warning("the batch's progress is not told: %s", error)


def folder() -> Path:
    """Where the answers of this run lie, unless `out` named another place: below the job's `--storage`."""
    return job.checkpoint_dir() / "batch"


def shards(items: Sequence[Any], *, size: int, out: str | os.PathLike[str] | None = None) -> Iterator[Shard]:
    """The shards that no attempt has done yet, in order; `items` are values that JSON can hold, `size` of them a shard.

    Ends the process (SystemExit, code 143) between two shards when the job is asked to stop. Raises ValueError where
    the folder holds shards of other items or of another size, and RuntimeError when a shard was not saved.
    """
    if size < 1:
        raise ValueError(f"size is {size}; a shard holds 1 item or more")
    place = Path(out) if out is not None else folder()
    if out is None and job.run_name() == job.LOCAL:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    _agree(place / PLAN, {"items": len(items), "size": size, "sha256": _digest(items)})
    return _pending(_Batch(items, size, place))


def results(out: str | os.PathLike[str] | None = None) -> Iterator[Any]:
    """Every row that `Shard.save` kept, in the order of the items."""
    for path in sorted((Path(out) if out is not None else folder()).glob("shard-*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _pending(batch: _Batch) -> Iterator[Shard]:
    batch.tell()
    for shard in batch.shards:
        if shard.output.exists():
            continue
        if job.stop_asked():
            raise SystemExit(STOPPED)
        _remove(shard.draft)
        yield shard
        if not shard.output.exists():
            raise RuntimeError(f"shard {shard.number} was not saved: call shard.save(rows), or shard.done()")
        batch.done += len(shard.items)
        batch.tell()


def _agree(plan: Path, wanted: dict[str, Any]) -> None:
    """Note what this folder's shards are of, or see that it is the same."""
    if not plan.exists():
        draft = plan.with_name(f"draft-{plan.name}")
        draft.write_text(json.dumps(wanted), encoding="utf-8")
        _sync(draft)
        draft.replace(plan)
        return
    found = json.loads(plan.read_text(encoding="utf-8"))
    if found != wanted:
        told = ", ".join(f"{name} {found.get(name)} (now {wanted[name]})" for name in wanted)
        raise ValueError(f"{plan.parent} holds shards of another batch: {told}. Name another folder with out=")


def _digest(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for number, item in enumerate(items):
        try:
            digest.update(json.dumps(item, sort_keys=True).encode() + b"\n")
        except TypeError as error:
            raise ValueError(f"item {number} is no value that JSON can hold ({error}); give paths as text") from None
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """What a killed attempt left half done."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
