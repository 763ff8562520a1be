"""demo: all steps from scoring to the report, on text that every machine has.

May import: every package, and the console of `cli`.
Start reading: `run.py` (the stages, one after the other), then `material.py` (the documents) and `findings.py`.
"""
