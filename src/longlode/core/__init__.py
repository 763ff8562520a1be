"""core: shared by all packages. Errors, names of dimensions, records, fingerprints, batches.

May import: nothing of ours, no torch.
Start reading: `errors.py` (the tree of errors), then `records.py` (how results are written to disk).
"""
