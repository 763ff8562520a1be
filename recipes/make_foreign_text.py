"""Count the packaged tables of foreign text: python -m recipes.make_foreign_text [--sides fit,dev] [--out FOLDER]

One table per language of `benchmarks/works.py` that has four independent works or more: Chinese, with two novels, has
none. What documents share is measured between works of one domain by different hands (`fit_foreign`).
"""

import argparse
from pathlib import Path

from benchmarks.works import SIDES, works_of
from longlode.mining.distance_profile.control import ForeignText, fit_foreign
from longlode.mining.distance_profile.tables import PACKAGED, write_tables

LEAST = 3
_CODE = ("code", "module", "package")
_TOO_FEW = ("zh",)


def main() -> None:
    """Count, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default="fit,dev", help="of the works, with commas between; never heldout")
    parser.add_argument("-o", "--out", type=Path, default=PACKAGED)
    options = parser.parse_args()
    tables = tables_of([side for side in options.sides.split(",") if side in SIDES[:2]])
    write_tables(options.out, tables)
    for table in tables:
        print(f"{table.language}: {len(table.counts):,} words of {table.num_windows:,} windows")


def tables_of(sides: list[str]) -> list[ForeignText]:
    """A table of each language, of the works of some sides."""
    works = [work for side in sides for work in works_of(side) if work.domain != "list"]
    found = []
    for language in sorted({work.language for work in works} - set(_TOO_FEW)):
        documents = [
            (work.group, "code" if work.domain in _CODE else work.domain, work.text)
            for work in works
            if work.language == language
        ]
        found.append(fit_foreign(documents, language, least=LEAST))
    return found


if __name__ == "__main__":
    main()
