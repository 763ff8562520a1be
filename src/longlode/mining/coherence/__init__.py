"""mining/coherence: the probability that a document is one text in its own order, without a model.

May import: core, corpus, `mining.baselines`. Start with `features.py`.
    features.py            features, factors, weights, the score
    order.py               dependence of passages on the text before them
    boundaries.py          rare words that link both sides of every cut
    background.py          frequency of words in general text
    announcements.py       the words behind the order contrast
    uncertainty.py         the standard error of the score
"""
