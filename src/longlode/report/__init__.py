"""report: one self-contained HTML page from the records that other rooms wrote.

May import: core (and pyarrow, jinja2); no torch. It never opens a corpus: all it shows stands in records.
Start reading: `build.py` (what the page is made of), then `text.py` (why corpus text cannot harm its reader).
"""

from longlode.core.callable_rooms import make_callable
from longlode.report.build import build

__all__ = ["build"]

make_callable(__name__, "longlode.report.build:build")  # longlode.report(...)
