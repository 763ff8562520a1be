"""Read a long document once, save what the model remembers, and continue from it many times.

A DeltaNet's memory has a fixed size, so the saved state is as small after a million tokens as after a thousand.
"""

import argparse
from pathlib import Path

import torch

from longlode.models import LonglodeCache, load, starter_folder

model, tokenizer = load(starter_folder())
text = Path(argparse.__file__).read_text(encoding="utf-8")[:20_000]
document = tokenizer(text, return_tensors="pt")["input_ids"]

cache = LonglodeCache(model.config.num_hidden_layers)
with torch.inference_mode():
    model.model(document, cache=cache)
cache.save("document.state", model=model)
print(f"read {document.shape[1]:,} tokens; the state is {Path('document.state').stat().st_size:,} bytes")

for question in ("def add_argument(", "class ", "raise "):
    remembered = LonglodeCache.load("document.state", model=model)
    tokens = tokenizer(question, return_tensors="pt")["input_ids"]
    mask = torch.ones(1, remembered.num_positions + tokens.shape[1], dtype=torch.int64)
    answer = model.generate(tokens, attention_mask=mask, cache=remembered, max_new_tokens=12, do_sample=False)
    print(repr(tokenizer.decode(answer[0])))
