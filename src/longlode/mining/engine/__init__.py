"""mining/engine: score a corpus in units of work that survive a kill, on one process or several.

May import: core, corpus, the rest of mining. Start with `run.py` (`score`), then `work.py` (one unit).
    settings.py, run.py                  settings of a run; `score`
    flow.py, tally.py                    jobs through a run: taken, done, counted
    fit.py                               the pass over the corpus of scorers that make one
    work.py, reading.py, token_reader.py one unit: batches across documents, one row per document
    workers.py, pool.py, pulse.py        worker processes: start, watch, replace
    ray_cluster.py                       the same on a Ray cluster
    claims.py                            several runs on one folder
    parts.py, merging.py                 results on disk: a unit each, then many units together
    part_queries.py, scored.py           reading them with SQL, and the documents of their rows
    summary.py, outcome.py               the record of a run, or of shards
"""
