"""longlode among its neighbours: transformers, PEFT, TRL, accelerate, lm-eval, datasets, torchao, fla's op settings.

`make peers` runs this folder in an environment of its own (.venv-peers) and renews the table of
docs/compatibility.md. Every model is tiny and built from a config, every text is made on the spot, and nothing
asks the network once the environment stands. Tests go through the public, Hugging Face facing API alone.

Start reading: `tiny.py` (models and texts), `conftest.py`, `table.py` (the table).
"""
