"""adapters: published benchmarks from local files in their own record format, as tasks.

May import: core and tasks. Start reading: `base.py` (a task of records), then `longbench.py`. Nothing is downloaded: a
user brings the files. `FORMATS` names the adapters for `longlode evaluate --records FORMAT:FILE`.
"""

from longlode.evaluate.adapters.base import Record, RecordTask, find_records
from longlode.evaluate.adapters.longbench import LongBench
from longlode.evaluate.adapters.lra import LRARetrieval, LRAText
from longlode.evaluate.adapters.others import BABILong, BookSort, Helmet, LEval, LooGLE

FORMATS: dict[str, type[RecordTask]] = {
    one.format: one for one in (LongBench, LEval, LooGLE, Helmet, BABILong, BookSort, LRAText, LRARetrieval)
}

__all__ = [
    "FORMATS",
    "BABILong",
    "BookSort",
    "Helmet",
    "LEval",
    "LRARetrieval",
    "LRAText",
    "LongBench",
    "LooGLE",
    "Record",
    "RecordTask",
    "find_records",
]
