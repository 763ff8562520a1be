"""synthetic: generated text with known dependencies: controls without any, and documents with planted ones.

For the demo, `fit-score`, the benchmarks and the tests. May import: core.
    families.py, disorder.py    40 families of text that is not one coherent document, made from works
    controls.py     a coherent document spoiled in one known way: spliced, shuffled, glued, names changed
    generated.py    controls that need no text: logs, tables, pages of a web site
    lego.py         chains of assignments with a question, a skill for each depth
    planted.py      documents with names that are defined and used again at a known distance
"""
