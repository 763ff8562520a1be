"""Packing of files in parallel, unit by unit; a run that was killed goes on with the units that are missing.

A unit of work is a stretch of one file, or a few files. Its result, a part, lies beside the output folder in
`.NAME.parts/` under the fingerprint of everything that determines it. Done = the part is there and whole; there is no
other state. So any number of processes, and a kill at any time, give the same shards byte for byte.
"""

import multiprocessing
import pickle
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from longlode.core.errors import BackendError, ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.core.kinds import kind_of
from longlode.core.outputs import full_path
from longlode.core.processes import end_with_parent
from longlode.core.records import remove_leftovers, sync_folder
from longlode.corpus import Unit, read_unit
from longlode.packing.chat import ChatTokenizer
from longlode.packing.part_files import PART_FORMAT, PartInfo, Row, encode_rows, read_info, write_part
from longlode.packing.scored import UnitScores, with_scores
from longlode.packing.shards import KIND
from longlode.packing.steady import steady
from longlode.packing.writer import (
    AnyTokenizer,
    Progress,
    assemble,
    check_settings,
    claimed,
    move,
    new_folder,
)

_IN_HAND = 2
"""Units per process that are handed out ahead, so that none waits for the next."""


@dataclass(frozen=True)
class PackUnit:
    """A unit of input, and the place of the scores of its rows in a scores folder, if any."""

    unit: Unit
    scores: UnitScores | None = None


@dataclass(frozen=True)
class _Job:
    """All that a process needs for one part."""

    unit: PackUnit
    path: Path
    text_field: str
    encoding: str


def pack_units(
    units: Sequence[PackUnit],
    tokenizer: AnyTokenizer,
    out: str | Path,
    *,
    length: int,
    shard_tokens: int,
    overwrite: bool = False,
    workers: int = 1,
    mix: Mapping[str, float] | None = None,
    text_field: str = "text",
    encoding: str = "utf-8",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tokenize units of input into a folder of shards, as `writer.pack` does with documents.

    Args: units, in the order of the documents; workers, processes; mix, as of `writer.assemble`; text_field, encoding,
      as of `corpus.read`; the rest as of `writer.pack`.
    Raises: as `writer.pack`; InputError for rows that the system cannot read after several tries; BackendError when a
      process dies or cannot start. What is done is kept then: the same command goes on from there.
    """
    check_settings(tokenizer, length, shard_tokens)
    if workers < 1:
        raise ConfigError(f"workers is {workers}; expected at least 1.")
    folder = full_path(out)
    parts = folder.with_name(f".{folder.name}.parts")
    jobs = [
        _Job(one, parts / f"{_name(one, tokenizer, text_field, encoding)}.part", text_field, encoding)
        for one in _without_own(units, folder)
    ]
    if not overwrite:
        _finish_removal(folder, parts, {job.path.name for job in jobs})
    with claimed(
        folder, overwrite, f"what is done stays in {parts}, and the same command goes on from there"
    ):
        _clear(parts, {job.path.name for job in jobs})
        infos = _make_parts(jobs, tokenizer, workers, progress)
        with new_folder(folder) as temporary:
            paths = [job.path for job in jobs]
            summary = assemble(
                paths, tokenizer, temporary, length, shard_tokens, [infos[path] for path in paths], mix
            )
            move(temporary, folder)
        shutil.rmtree(parts, ignore_errors=True)
    return summary


def _name(one: PackUnit, tokenizer: AnyTokenizer, text_field: str, encoding: str) -> str:
    """Name of a part: the fingerprint of all that determines its bytes."""
    scores = None if one.scores is None else one.scores.part.name
    return fingerprint(
        [PART_FORMAT, one.unit.fingerprint, scores, tokenizer.fingerprint, text_field, encoding]
    )


def _without_own(units: Sequence[PackUnit], out: Path) -> Iterator[PackUnit]:
    """Leave out what this command itself keeps beside `out`, which lies among the inputs if `out` does."""
    own = str(out.with_name(f".{out.name}."))
    for one in units:
        files = tuple(file for file in one.unit.files if not file.path.startswith(own))
        if len(files) == len(one.unit.files):
            yield one
        elif files:
            yield replace(one, unit=replace(one.unit, files=files, stop=len(files)))


def _finish_removal(folder: Path, parts: Path, wanted: set[str]) -> None:
    """Remove parts whose shards are complete: a run that was killed while it removed them has left the others."""
    if parts.is_dir() and kind_of(folder) == KIND and {path.name for path in parts.iterdir()} <= wanted:
        shutil.rmtree(parts, ignore_errors=True)


def _clear(parts: Path, wanted: set[str]) -> None:
    """Make the folder of parts, and remove those of another input or other options."""
    parts.mkdir(exist_ok=True)
    remove_leftovers(parts, sole_writer=True)
    for path in parts.iterdir():
        if path.name not in wanted:
            path.unlink()
    sync_folder(parts)


def _make_parts(
    jobs: Sequence[_Job], tokenizer: AnyTokenizer, workers: int, progress: Progress | None
) -> dict[Path, PartInfo]:
    """Make the parts that are missing; return line 1 of each by path."""
    infos = {job.path: info for job in jobs if (info := read_info(job.path)) is not None}
    missing = list({job.path: job for job in jobs if job.path not in infos}.values())
    done = sum(info.num_documents for info in infos.values()), sum(info.num_tokens for info in infos.values())
    if progress is not None and infos:
        progress(*done)
    makers = (
        _in_pool(missing, tokenizer, workers) if min(workers, len(missing)) > 1 else _here(missing, tokenizer)
    )
    for path, info in makers:
        infos[path] = info
        done = done[0] + info.num_documents, done[1] + info.num_tokens
        if progress is not None:
            progress(*done)
    return infos


def _make(job: _Job, tokenizer: AnyTokenizer) -> tuple[Path, PartInfo]:
    how = {"text_field": job.text_field, "encoding": job.encoding}
    read = partial(read_unit, job.unit.unit, **how, json_text=isinstance(tokenizer, ChatTokenizer))  # type: ignore[arg-type]
    rows: Iterator[Row] = steady(read)
    if job.unit.scores is not None:
        rows = with_scores(rows, job.unit.scores)
    return job.path, write_part(job.path, encode_rows(rows, tokenizer))


def _here(jobs: Sequence[_Job], tokenizer: AnyTokenizer) -> Iterator[tuple[Path, PartInfo]]:
    return (_make(job, tokenizer) for job in jobs)


def _in_pool(jobs: Sequence[_Job], tokenizer: AnyTokenizer, workers: int) -> Iterator[tuple[Path, PartInfo]]:
    """Make parts in spawned processes, in the order of completion."""
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(jobs))
    try:
        executor = ProcessPoolExecutor(workers, context, _start, (pickle.dumps(tokenizer),))
    except (OSError, NotImplementedError, ImportError) as error:
        raise BackendError(f"worker processes cannot start: {error}. Use one worker (--workers 1).") from None
    waiting, in_hand = list(reversed(jobs)), set[Future[tuple[Path, PartInfo]]]()
    try:
        while waiting or in_hand:
            while waiting and len(in_hand) < _IN_HAND * workers:
                in_hand.add(executor.submit(_make_in_worker, waiting.pop()))
            done, in_hand = wait(in_hand, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise BackendError(
            "a worker process died: killed, out of memory, or it could not start (in a script, make the call under "
            "`if __name__ == '__main__':`). Finished units are kept: run the same command again, with fewer workers."
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_tokenizer: AnyTokenizer | None = None
"""The tokenizer of this spawned process, with its cache of words."""


def _start(packed: bytes) -> None:
    global _tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    end_with_parent()
    _tokenizer = pickle.loads(packed)


def _make_in_worker(job: _Job) -> tuple[Path, PartInfo]:
    assert _tokenizer is not None, "the pool starts its processes with `_start`"
    return _make(job, _tokenizer)
