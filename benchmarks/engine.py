"""What the engine costs beside the score, and beside datatrove, on the same files in the same run.

    python -m benchmarks.engine [--documents 20000] [--long 24] [--rounds 3] [--workers 2] [--text FOLDER] [--save]
    python -m benchmarks.engine --million: a large run that is killed midway and goes on (engine_million.py)

Files: short documents of 2 kB (as many as --documents) and long ones of 800 kB, windows of generated text or of the
.txt files in --text, as JSON lines in 8 files each. Measured in turn, --rounds times, as whole commands in processes
of their own:

    engine        longlode score with a scorer that returns a constant: the engine, and the columns that all rows have
    scored        longlode score --scorer gzip: every short document gets a score
    refused       longlode score with the default scorer, for which 2 kB are too short
    default       longlode score with the default scorer on documents of 8 kB, a tenth as many
    selected      longlode select --top 0.5 of the scored ones: reads all again, writes half
    datatrove     reads, keeps texts of at least 1,000 characters, writes JSON lines (left out without datatrove)
    long          longlode score with the default scorer on the long documents
    long_engine   longlode score on them with a scorer that returns a constant: neither tokens nor words
    long_encoded  longlode score on them with a scorer that asks for the tokens and returns their number
    long_tokens   longlode score --scorer overlap on them: the tokenizer, and one measure of its tokens

First checked: every input row has one row of output, and every text passes datatrove's filter. Printed: documents and
tokens (4 bytes each) per second of wall time and per second of CPU of all processes, the best of the rounds; the most
memory (resident) of the command's process and of its largest worker. Wall times of a busy machine say little; CPU
seconds say more, but cores that share a unit slow each other down too.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import Any

from benchmarks.saved import about, save
from longlode.core.records import read_record
from longlode.mining.requests import Tokens
from longlode.mining.scorers import DocumentScore, NoOptions, Scorer, SegmentedDocument

SHORT_BYTES, MIDDLE_BYTES, LONG_BYTES = 2000, 8000, 800_000
BYTES_PER_TOKEN = 4
NUM_FILES = 8
_POLL_SECONDS = 0.1
_DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

def long_enough(document):
    return len(document.text) >= 1000

if __name__ == "__main__":
    source, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    steps = [JsonlReader(source), LambdaFilter(long_enough), JsonlWriter(out + "/kept", compression=None)]
    LocalPipelineExecutor(steps, tasks=8, workers=workers, logging_dir=out + "/logs").run()
"""


class ConstantScorer(Scorer):
    """Score of 0 for every document."""

    name = "constant"
    min_segments = 0
    options_type = NoOptions

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """Return the score."""
        return DocumentScore(0.0)


class LengthScorer(ConstantScorer):
    """Score of the number of tokens: everything but a model."""

    name = "length"
    asks = (Tokens,)

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """Return the score."""
        return DocumentScore(float(len(doc.all_tokens)))


@dataclass(frozen=True)
class Run:
    """One command that was measured. Memory in MB: of its own process, and of the largest other."""

    seconds: float
    cpu_seconds: float
    own_mb: float
    worker_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents", type=int, help="short documents; default 20,000, with --million 1,000,000"
    )
    parser.add_argument("--long", type=int, default=24, help="long documents; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--text", type=Path, help="folder of .txt files to cut documents from")
    parser.add_argument("--only", default="", help="some of the names above, comma-separated")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    asked.documents = asked.documents or (1_000_000 if asked.million else 20_000)
    if asked.million:
        from benchmarks.engine_million import run_million

        asked.only = asked.only or "scored"
        run_million(asked)
        return
    with tempfile.TemporaryDirectory(prefix="longlode-engine-") as folder:
        result = measure(Path(folder), asked)
    table = as_table(result)
    print(table)
    if asked.save:
        save("engine", {**about("engine"), **result}, table)


def measure(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Make the files, check the commands, and measure them in turn."""
    text = generated_text(asked.text)
    short = write_files(work / "in-short", text, asked.documents, SHORT_BYTES)
    middle = write_files(work / "in-middle", text, asked.documents // 10, MIDDLE_BYTES)
    long = write_files(work / "in-long", text, asked.long, LONG_BYTES) if asked.long else 0
    commands = _commands(work, asked.workers, has_long=bool(long))
    if asked.only:
        commands = {name: commands[name] for name in asked.only.split(",")}
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(asked.rounds):
        for name, command in commands.items():
            if name != "selected":
                shutil.rmtree(work / name, ignore_errors=True)
            runs[name].append(measured(command))
            check(name, work, asked)
            shutil.rmtree(work / "selected", ignore_errors=True)
    rows = []
    for name, done in runs.items():
        num_documents, num_bytes = {
            "default": (asked.documents // 10, middle),
        }.get(name, (asked.long, long) if name.startswith("long") else (asked.documents, short))
        wall, cpu = min(run.seconds for run in done), min(run.cpu_seconds for run in done)
        rows.append(
            {
                "what": name,
                "documents": num_documents,
                "documents_per_second": num_documents / wall,
                "documents_per_cpu_second": num_documents / cpu,
                "tokens_per_second": num_bytes / BYTES_PER_TOKEN / wall,
                "tokens_per_cpu_second": num_bytes / BYTES_PER_TOKEN / cpu,
                "own_mb": max(run.own_mb for run in done),
                "worker_mb": max(run.worker_mb for run in done),
                "rounds": [asdict(run) for run in done],
            }
        )
    return {"workers": asked.workers, "load": os.getloadavg(), "rows": rows}


def _commands(work: Path, workers: int, *, has_long: bool) -> dict[str, list[str]]:
    longlode = [sys.executable, "-m", "longlode"]
    with_workers = ["--workers", str(workers)]
    score = [*longlode, "score", str(work / "in-short"), "-o"]
    found = {
        "engine": [
            *score,
            str(work / "engine"),
            "--scorer",
            "benchmarks.engine:ConstantScorer",
            *with_workers,
        ],
        "scored": [*score, str(work / "scored"), "--scorer", "gzip", *with_workers],
        "selected": [
            *longlode,
            *("select", str(work / "scored"), "-o", str(work / "selected" / "kept.jsonl"), "--top", "0.5"),
        ],
        "refused": [*score, str(work / "refused"), *with_workers],
        "default": [
            *longlode,
            *("score", str(work / "in-middle"), "-o", str(work / "default"), "--no-explain", *with_workers),
        ],
    }
    if util.find_spec("datatrove") is not None:
        script = work / "pipeline.py"
        script.write_text(_DATATROVE)
        found["datatrove"] = [sys.executable, script, work / "in-short", work / "datatrove", workers]  # type: ignore[list-item]
    if has_long:
        on_long = [*longlode, "score", str(work / "in-long"), "--no-explain", *with_workers, "-o"]
        found["long"] = [*on_long, str(work / "long")]
        found["long_engine"] = [
            *on_long,
            str(work / "long_engine"),
            "--scorer",
            "benchmarks.engine:ConstantScorer",
        ]
        found["long_encoded"] = [
            *on_long,
            str(work / "long_encoded"),
            "--scorer",
            "benchmarks.engine:LengthScorer",
        ]
        found["long_tokens"] = [*on_long, str(work / "long_tokens"), "--scorer", "overlap"]
    return {name: [str(part) for part in command] for name, command in found.items()}


def check(name: str, work: Path, asked: argparse.Namespace) -> None:
    """Raise AssertionError if a command has not given a row for each row of input."""
    if name == "datatrove":
        lines = sum(path.read_bytes().count(b"\n") for path in (work / name / "kept").glob("*.jsonl"))
        assert lines == asked.documents, f"datatrove kept {lines} of {asked.documents}"
    elif name == "selected":
        kept = (work / name / "kept.jsonl").read_bytes().count(b"\n")
        assert kept == round(asked.documents / 2), f"{kept} are selected"
    else:
        counts = read_record(work / name, "scores")["counts"]
        total = asked.long if name.startswith("long") else asked.documents
        total = asked.documents // 10 if name == "default" else total
        status = "too_short" if name == "refused" else "ok"
        assert counts.get(status) == total, f"{name}: {counts}, expected {total} {status}"


def measured(
    command: Sequence[str],
    started: Callable[[int], object] = lambda pid: None,
    statuses: Sequence[int] = (0, 1),
) -> Run:
    """Run a command to its end.

    Args: started, called with the PID; statuses, expected ones (1: nothing could be scored, as is meant for short
      documents). Raises: RuntimeError if it fails.
    """
    begun, before = time.perf_counter(), os.times()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started(process.pid)
    peaks: dict[int, float] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
    watcher.start()
    told, _ = process.communicate()
    seconds, after = time.perf_counter() - begun, os.times()
    ended.set()
    watcher.join()
    if process.returncode not in statuses:
        raise RuntimeError(f"{' '.join(command)} failed:\n{told[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    others = [peak for pid, peak in peaks.items() if pid != process.pid]
    return Run(seconds, cpu, peaks.get(process.pid, 0.0), max(others, default=0.0))


def _watch(root: int, peaks: dict[int, float], ended: threading.Event) -> None:
    """Note the largest resident memory, in MB, of a process and of those it started."""
    while not ended.wait(_POLL_SECONDS):
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                    parents[int(entry.name)] = (int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
                except (OSError, IndexError):
                    continue
        family = {root}
        while more := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
            family |= more
        for pid in family & parents.keys():
            peaks[pid] = max(peaks.get(pid, 0.0), parents[pid][1] / 1e6)


def generated_text(folder: Path | None = None) -> str:
    """A few megabytes of text: of the files of a folder, or words with Zipf's frequencies in sentences."""
    if folder is not None:
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*.txt"))]
        if texts:
            return "\n\n".join(texts)[:16_000_000]
        raise SystemExit(f"{folder} holds no .txt files.")
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "ist")]
    vocabulary = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    words = draw.choices(vocabulary, weights, k=600_000)
    sentences, at = [], 0
    while at < len(words):
        size = draw.randint(5, 25)
        sentences.append(" ".join(words[at : at + size]).capitalize() + ".")
        at += size
    return "\n\n".join(" ".join(sentences[n : n + 6]) for n in range(0, len(sentences), 6))


def write_files(folder: Path, text: str, num_documents: int, size: int) -> int:
    """Write windows of a text as JSON lines into files of equal numbers; returns their bytes of text."""
    folder.mkdir()
    draw = random.Random(1)
    size = min(size, len(text) // 2)
    total = 0
    for file in range(NUM_FILES):
        numbers = range(file, num_documents, NUM_FILES)
        with (folder / f"{file}.jsonl").open("w", encoding="utf-8") as stream:
            for number in numbers:
                begin = draw.randrange(len(text) - size)
                window = text[begin : begin + size]
                total += len(window.encode("utf-8"))
                row = {"id": f"d{number}", "text": window, "url": f"https://host.org/{number}"}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return total


def as_table(result: dict[str, Any]) -> str:
    """The result as a table in Markdown."""
    lines = [
        f"{result['workers']} workers; load of the machine at the end: {result['load'][0]:.1f}",
        "",
        "| what | documents | documents/s | per CPU second | tokens/s | per CPU second | MB, itself | MB, worker |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        numbers = (
            "documents_per_second",
            "documents_per_cpu_second",
            "tokens_per_second",
            "tokens_per_cpu_second",
        )
        cells = [f"{row['documents']:,}", *(f"{row[name]:,.0f}" for name in numbers)]
        lines.append(
            f"| {row['what']} | {' | '.join(cells)} | {row['own_mb']:,.0f} | {row['worker_mb']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
