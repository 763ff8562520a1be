"""A folder of records as the other rooms write them, with made-up numbers and, if asked, hostile text."""

import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.records import write_json, write_jsonl, write_record
from longlode.core.rows import write_rows

NASTY = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "evil\u202egnp.exe",
    "nul\x00byte",
    "'; </style><svg onload=alert(3)> {{ 7*7 }} ]]> -->",
    "line\u2028separator\u200bhidden\ufeff",
)
_TEXT = """the ledger of the harbour master names every ship that came in before the frost, and among them a
barque whose captain had paid his dues twice; the second receipt, she thought, was the forgery"""
_WORDS = _TEXT.split()


def make_records(folder: Path, *, nasty: bool = False, num_documents: int = 240) -> Path:
    """Write a demo folder with all kinds of records below it."""
    rng = random.Random(0)
    salt = (lambda text: f"{text} {rng.choice(NASTY)}") if nasty else (lambda text: text)
    labels = _scores(folder / "scores", rng, salt, num_documents)
    write_record(
        folder / "selected",
        "selection",
        num_documents=num_documents,
        num_selected=100,
        dropped={"below": num_documents - 100},
        top=0.5,
        by=["length"],
        column=salt("score"),
        scores=salt("demo/scores"),
    )
    write_record(
        folder / "shards",
        "shards",
        num_documents=100,
        num_tokens=1_234_567,
        num_skipped=2,
        settings={"length": 1024, "tokenizer": salt("starter")},
    )
    for index, name in enumerate(("selected", "random")):
        _run(folder / "runs" / name, rng, index, salt)
        _evaluation(folder / "evaluations" / name, rng, index, salt)
        _harness(folder / "harness" / name, index, salt)
    compare = _compare(rng, salt)
    write_json(folder / "labels.json", labels)
    write_record(
        folder,
        "demo",
        stages=[
            {"name": salt(name), "seconds": seconds, "summary": salt(what)}
            for name, seconds, what in (
                ("score", 41.2, "240 documents, 226 scored"),
                ("select", 0.4, "113 documents kept of 226"),
                ("pack", 2.1, "1,234,567 tokens in 2 shards"),
                ("train", 141.0, "two models of 2.1 M parameters, 1.2 M tokens each"),
                ("evaluate", 37.5, "3 tasks at 3 lengths"),
            )
        ],
        labels="labels.json",
        auc={"score": {"spliced": 0.93, "lists": 0.88}, "gzip": {"spliced": 0.81, "lists": 0.11}},
        findings=[
            salt("The score told 93 % of intact files from spliced ones."),
            salt("Mining did not help here: no better on held-out files (0.004 nats, \u22120.01 to 0.02)."),
            salt("Neither model recalls a passkey beyond 512 tokens; both know a repeated list again."),
        ],
        compare=compare,
    )
    return folder


def _scores(folder, rng, salt, num):
    rows, labels = [], {}
    for index in range(num):
        kind = ("intact", "spliced", "list")[0 if index % 5 < 3 else index % 5 - 2]
        score = rng.gauss({"intact": 0.34, "spliced": 0.16, "list": 0.08}[kind], 0.09)
        ok = index % 17 != 0
        name = salt(f"lib/python/module_{index:03d}.py")
        labels[name] = salt(kind)
        rows.append(
            {
                "id": name,
                "source": salt("stdlib" if index % 2 else "site-packages"),
                "file": salt(f"/usr/lib/python3/module_{index:03d}.py"),
                "row": 0,
                "num_bytes": 9000,
                "num_tokens": rng.randrange(500, 30_000) if ok else 40,
                "num_segments": 20,
                "num_pairs": 190,
                "score": score if ok else None,
                "strength_mean": score / 2 if ok else None,
                "strength_max_mean": score if ok else None,
                "gain_nats": score / 3 if ok else None,
                "specificity_mean": rng.random() if ok else None,
                "repetition": rng.random() / 3 if ok else None,
                "gzip_ratio": 0.2 + rng.random() / 4 if ok else None,
                "status": "ok" if ok else ("too_short" if index % 34 else "failed"),
                "reason": "" if ok else salt("40 tokens are less than two segments of 128"),
            }
        )
    (folder / "parts").mkdir(parents=True)
    names = [f"{part:016x}.parquet" for part in range(3)]
    pq.write_table(
        pa.Table.from_pylist(rows), folder / "parts" / "ffffffffffffffff.parquet"
    )  # of earlier settings
    for part in range(3):
        pq.write_table(pa.Table.from_pylist(rows[part::3]), folder / "parts" / names[part])
    write_record(
        folder,
        "scores",
        settings={"scorer": "default", "segment": 128, "pairs": 500},
        reader=salt("starter"),
        reader_fingerprint="0123456789abcdef",
        num_documents=num,
        complete=True,
        parts=[{"part": name, "unit": {"file": salt("x")}} for name in names],
    )
    ranked = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: -row["score"])
    chosen = [*((row, "best") for row in ranked[:3]), *((row, "worst") for row in ranked[-2:])]
    write_json(folder / "explain.json", [_explained(row, label, rng, salt) for row, label in chosen])
    return labels


def _explained(row, label, rng, salt):
    num = 40 if label == "best" else 26
    segments = [salt(f"[{index}] " + " ".join(rng.choices(_WORDS, k=70))) for index in range(num)]
    pairs = []
    for i in range(1, num):
        for j in range(i):
            if rng.random() < 0.85:
                near = 0.45 * math.exp(-(i - j) / 4) + (
                    0.3 if (i + 2 * j) % 13 == 0 and label == "best" else 0.0
                )
                strength = near * (0.5 + rng.random()) - 0.02
                pairs.append([i, j, strength, strength * 1.4])
    found = {
        "id": row["id"],
        "file": row["file"],
        "row": 0,
        "score": row["score"],
        "label": label,
        "segments": segments,
        "pairs": pairs,
    }
    if label == "worst":
        return found  # as before there were words
    return found | {"strongest": _strongest(found, rng), "order": _order(salt)}


def _strongest(document, rng):
    """The five strongest pairs with the later segment cut into tokens of seven characters."""
    found = []
    for i, j, strength, gain in sorted(document["pairs"], key=lambda pair: -pair[2])[:5]:
        text = document["segments"][i]
        cuts = [text[k : k + 7] for k in range(0, len(text), 7)]
        pieces = [[cut, rng.gauss(0.5, 1.0) if k else None] for k, cut in enumerate(cuts)]
        found.append(
            {"target": i, "source": j, "strength": strength, "gain_nats": gain, "target_tokens": pieces}
        )
    return found


def _order(salt):
    """Three words: one within the map, one beyond it, one within a single segment."""
    words = []
    for number, (announced, used) in enumerate(((700, 1500), (9000, 9900), (3, 100))):
        places = [
            {
                "token": token,
                "segment": token // 128,
                "before": salt("paid to the "),
                "text": " harb",
                "after": salt(f"our{number} master,\n  who named"),
            }
            for token in (announced, used)
        ]
        words.append(
            {
                "word": salt(f"harbour{number}"),
                "tokens": [" harb"],
                "contribution_nats": 0.01 / (number + 1),
                "num_uses": 9,
                "num_announced": 7,
                "expected": 0.25,
                "announced": places[0],
                "used": places[1],
            }
        )
    return {
        "score": 0.21,
        "score_se": 0.03,
        "reason": "",
        "near": 128,
        "span": 1024,
        "announcements": words,
    }


def _run(folder, rng, index, salt):
    rows = []
    for step in range(1, 401):
        row = {
            "step": step,
            "tokens": step * 3072,
            "loss": 3.1 + 0.06 * index + 6 * math.exp(-step / 25) + 2.2 * step**-0.45 + rng.gauss(0, 0.06),
            "lr": 1e-3,
            "grad_norm": 0.7,
            "tokens_per_second": 16_000 + rng.gauss(0, 300),
        }
        if step % 80 == 0:
            row["eval_loss"] = row["loss"] + 0.05
        rows.append(row)
    folder.mkdir(parents=True)
    write_jsonl(folder / "metrics.jsonl", rows)
    write_record(
        folder,
        "run",
        status="finished",
        steps=400,
        tokens=400 * 3072,
        seconds=70.4,
        num_parameters=2_100_000,
        recipe={"model": {"mixers": "D*4", "hidden_size": 128}, "note": salt("x")},
        data_fingerprint="ab" * 8,
        loss=3.2,
    )


def _evaluation(folder, rng, index, salt):
    name = salt(("selected half", "random half")[index])
    examples, summary, curve = [], [], []
    for length in (512, 1024, 2048):
        for example in range(20):
            depth = (0.0, 0.25, 0.5, 0.75, 1.0)[example % 5]
            gain = max(-0.05, (0.9 * depth**2 + 0.1) * 512 / length + rng.gauss(0, 0.05))
            examples.append(
                {
                    "task": "passkey",
                    "length": length,
                    "depth": depth,
                    "example": example,
                    "hard": 0.0,
                    "smooth": -2.2,
                    "gain": gain,
                }
            )
        for task, metric, mean, spread, unit, better in (
            ("passkey", "hard", 0.2 * 512 / length + 0.05 * index, 0.08, "share", "higher"),
            ("passkey", "gain", 0.5 * 512 / length, 0.1, "nats/token", "higher"),
            ("passkey", "smooth", -2.2, 0.1, "nats/token", "higher"),
            ("repeated_list", "smooth", 0.62 + 0.0001 * length + 0.03 * index, 0.03, "ratio", "lower"),
            ("repeated_list", "ratio_new", 0.97, 0.02, "ratio", ""),
            ("repeated_list", "gain", 0.3, 0.03, "ratio", "higher"),
            ("loss_by_position", "nats", 3.2 + 0.02 * index, 0.05, "nats/token", "lower"),
        ):
            summary.append(
                {
                    "task": task,
                    "length": length,
                    "metric": metric,
                    "mean": mean,
                    "low": mean - spread,
                    "high": mean + spread,
                    "n": 20,
                    "unit": unit,
                    "better": better,
                }
            )
        start, stop = 1, 16
        while start < length:
            nats = 3.0 + 0.05 * index + 2.4 * start**-0.4
            curve.append(
                {
                    "length": length,
                    "start": start,
                    "stop": stop,
                    "mean": nats,
                    "low": nats - 0.09,
                    "high": nats + 0.08,
                    "n": 20,
                }
            )
            start, stop = stop, stop * 2
    folder.mkdir(parents=True)
    write_rows(folder / "examples.parquet", examples)
    write_record(
        folder,
        "evaluation",
        model=name,
        tasks=["passkey", "repeated_list", "loss_by_position"],
        lengths=[512, 1024, 2048],
        task_info=_task_info(salt),
        summary=summary,
        curves={"loss_by_position": curve},
        examples_fingerprint="cd" * 8,
    )


def _harness(folder, index, salt):
    rows = [
        {"task": "lambada", "metric": "acc", "filter": "none", "value": 0.25, "stderr": 0.03, "n": 200},
        {
            "task": "lambada",
            "metric": "perplexity",
            "filter": "none",
            "value": 91.5,
            "stderr": None,
            "n": 200,
        },
        {
            "task": "sums",
            "metric": "exact_match",
            "filter": "strict-match",
            "value": 0.5,
            "stderr": 0.1,
            "n": 8,
        },
    ]
    for row in rows:
        row["value"] += index / 8
        row["task"] = salt(row["task"])
    write_record(
        folder,
        "lm_eval",
        model=salt(("selected half", "random half")[index]),
        tasks=["lambada", "sums"],
        settings={"max_length": 2048, "limit": 200, "seed": 0},
        summary=rows,
    )


def _metric(name, about, unit, better, **more):
    return {"name": name, "about": about, "unit": unit, "better": better, **more}


def _task_info(salt):
    """What tasks say of themselves, as `evaluate` records it."""
    gain = salt("log-probability gained from the line")
    return {
        "passkey": {
            "about": "five digits are asked for",
            "metrics": [
                _metric("hard", "greedy decoding writes all digits right", "share", "higher", headline=True),
                _metric(
                    "gain",
                    gain,
                    "nats/token",
                    "higher",
                    headline=True,
                    baseline=0.0,
                    at_baseline="no use of that line is shown",
                ),
            ],
        },
        "repeated_list": {
            "metrics": [
                _metric(
                    "smooth",
                    "surprisal of the second list over the first",
                    "ratio",
                    "lower",
                    headline=True,
                    baseline=1.0,
                    at_baseline="no memory of the list is shown",
                )
            ]
        },
        "loss_by_position": {
            "curve": {"start": "bucket_start", "stop": "bucket_stop", "metric": "nats"},
            "metrics": [_metric("nats", "loss", "nats/token", "lower", words="held-out loss", headline=True)],
        },
    }


def _compare(rng, salt):
    rows = []
    for task, metric, difference, favours in (
        ("loss_by_position", "nats", 0.004, ""),
        ("passkey", "hard", 0.05, ""),
        ("passkey", "gain", -0.02, ""),
        ("repeated_list", "smooth", 0.03, "a"),
    ):
        for length in (512, 1024, 2048):
            rows.append(
                {
                    "task": task,
                    "length": length,
                    "metric": metric,
                    "a": 1.0,
                    "b": 1.0 + difference,
                    "difference": difference,
                    "low": difference - 0.015,
                    "high": difference + 0.015,
                    "n": 20,
                    "better": "lower",
                    "favours": favours,
                }
            )
    buckets = [(1, 16)] + [(2**k, 2 ** (k + 1)) for k in range(4, 11)]
    curve = [
        {
            "length": 2048,
            "start": a,
            "stop": b,
            "mean": rng.gauss(0.004, 0.01),
            "low": -0.02,
            "high": 0.03,
            "n": 20,
        }
        for a, b in buckets
    ]
    sides = {"a": salt("selected half"), "b": salt("random half")}
    return {**sides, "rows": rows, "curves": {"loss_by_position": curve}, "task_info": _task_info(salt)}
