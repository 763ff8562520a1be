"""readers: language models as mining sees them: how surprising is a segment alone, and after others?

May import: core, corpus, models and what models may import, and mining's protocols (`mining/reader.py`).
Start reading: `lm.py` (any causal language model), then `tokens.py` (a model's tokenizer, without the model).
    prefix.py, attention.py               states that reading goes on from; where attention goes
    source.py, dtype.py                   loading a model for reading; which dtype is faster here
"""
