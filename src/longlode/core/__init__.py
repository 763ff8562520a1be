"""core: what every room may use. Errors, the letters of shapes, records, fingerprints, batches.

May import: nothing of ours, no torch.
Start reading: `errors.py` (the tree of errors), then `records.py` (how results get to disk).
"""
