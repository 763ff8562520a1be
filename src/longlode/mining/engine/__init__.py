"""mining/engine: score a corpus in units of work that survive a kill, on one process or several.

May import: core, corpus, the rest of mining. Start with `run.py` (`score`), then `work.py` (one unit).
    settings.py, run.py                  settings of a run; `score`
    fit.py                               the pass over the corpus of scorers that make one
    work.py, reading.py, token_reader.py one unit: batches across documents, one row per document
    workers.py, pool.py, pulse.py        worker processes: start, watch, replace
    parts.py, part_queries.py            results on disk, and reading them with SQL
    summary.py                           the record of a run
"""
