"""integrations: longlode's scores inside other tools' pipelines.

May import: every package except `cli` and `demo`. Each module needs the package that it is named after.
Start reading: `datatrove.py`.
    datatrove.py      steps for datatrove's pipelines, on one machine, Slurm or Ray by its executors
"""
