"""mining/racing: read only as many pairs per document as the decision to keep it needs.

May import: core, corpus, `mining.engine`, `mining.scorers`. Start with `race.py`.
    race.py         the run: rounds until every document is decided
    rounds.py       one round: which documents are read again, and how many pairs
    standings.py    intervals, the cut, decided documents
"""
