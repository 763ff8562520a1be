"""report: one self-contained HTML page from the records that other packages wrote.

May import: core (and pyarrow, jinja2); no torch. It never opens a corpus: all that it shows is in records.
Start reading: `build.py` (the sections of the page), then `text.py` (the escaping of corpus text).
"""

from longlode.core.callable_packages import make_callable
from longlode.report.build import build

__all__ = ["build"]

make_callable(__name__, "longlode.report.build:build")  # longlode.report(...)
