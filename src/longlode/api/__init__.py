"""api: the commands as Python functions, with the commands' names and defaults.

Holds what needs both mining and models: scores by the names of a model and a scorer, explanations, generation, checks
of this machine, and results read back as tables. `longlode.score`, `longlode.explain` ... are these functions.

May import: every package except `cli` and `demo`; lazily, so that `import longlode` loads no torch.
Start reading: `scoring.py`, then `explanation.py`.
    results.py                                    any output folder as an object that reads back as tables
    scoring.py, scores.py                         score by name; contents of a scores folder
    readers.py, estimate.py                       a tokenizer or a model by name; estimates of a run
    scored_rows.py                                rows of a scores folder, with the beginnings of their texts
    explanation.py, announced_words.py, dependency_maps.py, pick_document.py    reasons for a document's score
    score_fitting.py                              weights of the profile for the user's own corpus
    generation.py, prompt.py                      texts continued, states saved
    training.py                                   a run from a recipe and shards
    checks.py                                     report on this machine
    watch.py                                      callbacks for progress and notes
"""
