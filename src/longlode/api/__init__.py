"""api: what the commands do, as Python functions with the commands' names and defaults.

Holds what needs both towers: scores by the names of a model and a scorer, explanations, generation, checks of this
machine, and results read back as tables. `longlode.score`, `longlode.explain` ... are these functions.

May import: every room but `cli` and `demo`; lazily, so that `import longlode` loads no torch.
Start reading: `scoring.py`, then `explanation.py`.
    results.py                                    any output folder as an object that reads back as tables
    scoring.py, scores.py                         score by name; what a scores folder says
    readers.py, estimate.py                       a tokenizer or a model by name; what a run will find and take
    scored_rows.py                                rows of a scores folder, with the beginnings of their texts
    explanation.py, announced_words.py, dependency_maps.py, pick_document.py    one document, and why it scores so
    score_fitting.py                              weights of the profile for a corpus of one's own
    generation.py, prompt.py                      texts continued, states kept
    training.py                                   a run from a recipe and shards
    checks.py                                     what this machine offers
    watch.py                                      progress and notes, for whoever wants them
"""
