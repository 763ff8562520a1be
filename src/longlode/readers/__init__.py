"""readers: language models as mining uses them: surprisal of a segment alone, and after other segments.

May import: core, corpus, models and what models may import, and mining's protocols (`mining/reader.py`).
Start reading: `lm.py` (any causal language model), then `tokens.py` (a model's tokenizer, without the model).
    prefix.py, attention.py               prefix states to continue from; attention between segments
    source.py, dtype.py                   loading a model for reading; choice of the faster dtype
"""
