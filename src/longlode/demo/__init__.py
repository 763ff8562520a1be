"""demo: the main job, end to end, on text that every machine has.

May import: every room, and the console of `cli`.
Start reading: `run.py` (the stages, one after the other), then `material.py` (the documents) and `findings.py`.
"""
