"""The pages made from code miss nothing, and the pictures are those of their script."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from longlode.evaluate.tasks import TASKS
from longlode.mining import SCORERS
from longlode.mining.engine.column_meanings import COLUMN_MEANINGS
from longlode.mining.engine.parts import COLUMNS, PAIRS_FIELD

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HOUSE_WORDS = re.compile(
    r"\b(peers?|text at large|seams?|foreign|quirks?|rooms?|told|surely|second coming|pays)\b", re.IGNORECASE
)
"""Words of this repository's own; the pages for newcomers do without them."""
NEW_PAGES = sorted(
    [
        *(DOCS / "guides").glob("*.md"),
        *(DOCS / "experiments").glob("*.md"),
        *(
            DOCS / name
            for name in (
                "start.md",
                "glossary.md",
                "troubleshooting.md",
                "benchmarks.md",
                "index.md",
                "evaluation.md",
                "experiments.md",
            )
        ),
        *(DOCS / "concepts" / name for name in ("score.md", "context_curve.md")),
        DOCS / "reference/columns.md",
    ]
)


def loaded(path: Path):
    """Import a script of docs/ that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def columns():
    """The page of columns, as the site has it."""
    return loaded(DOCS / "_extensions/columns_page.py").columns_page()


def cells(page: str, name: str, after: str = "") -> list[str]:
    """Cells of the row that describes `name`, the first one after the text `after`."""
    (row, *_) = re.findall(rf"^\| `{re.escape(name)}` \|.*$", page[page.index(after) :], flags=re.MULTILINE)
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_every_column_of_the_parts_has_a_meaning():
    assert list(COLUMN_MEANINGS) == [*COLUMNS.names, PAIRS_FIELD.name]
    assert all(column.about for column in COLUMN_MEANINGS.values())


def test_the_page_has_every_column_of_every_scorer(columns):
    for name in COLUMN_MEANINGS:
        assert cells(columns, name)[2]
    for scorer in SCORERS.names():
        for extra in SCORERS.get(scorer).extra_columns:
            found = cells(columns, extra.column, f"scorer `{scorer}`")
            assert found[1] == extra.unit
            assert found[2]
            if "; 0: " in extra.doc:
                assert found[3]


def test_the_page_has_every_metric_of_every_task(columns):
    for name in TASKS.names():
        for metric in TASKS.get(name).metrics:
            _, unit, meaning, better, _, zero = cells(columns, metric.name, f"### {name}\n")
            assert (unit, meaning) == (metric.unit, metric.about)
            assert better == (metric.better or "neither")
            assert zero


def test_the_page_of_the_evaluation_has_every_task_in_its_own_words():
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == set(TASKS.names())
    for name in TASKS.names():
        task = TASKS.get(name)
        _, about, suites, chance, readings, misleads = cells(page, name)
        assert about == task.about
        assert suites == ", ".join(task.suites)
        known = next((m.chance for m in task.metrics if m.name == "hard"), None)
        assert chance == ("" if known is None else f"{known:.3g}")
        assert readings
        assert misleads.endswith(".")


def experiments() -> dict[str, str]:
    """Text of every entry of docs/experiments/, by the link that leads to it."""
    entries = {}
    for page in sorted((DOCS / "experiments").glob("*.md")):
        for entry in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            title = entry.partition("\n")[0]
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            entries[f"- [{title}](experiments/{page.name}#{anchor})"] = entry
    return entries


def test_the_contents_of_the_experiments_are_their_titles():
    lines = (DOCS / "experiments.md").read_text(encoding="utf-8").splitlines()
    assert sorted(line for line in lines if line.startswith("- [")) == sorted(experiments())


def test_every_experiment_has_a_date_and_its_four_parts():
    parts = (
        r"\*20\d\d-\d\d-\d\d",
        r"\*\*(Question|Prediction)",
        r"\*\*Done",
        r"\*\*Result",
        r"\*\*What follows",
    )
    for link, entry in experiments().items():
        missing = [part for part in parts if not re.search(f"^{part}", entry, flags=re.MULTILINE)]
        assert missing == [], link


def test_the_pictures_are_those_of_their_script():
    for name, text in loaded(DOCS / "pictures.py").pictures().items():
        assert (DOCS / "concepts" / name).read_text(encoding="utf-8") == text, (
            f"{name}: python docs/pictures.py"
        )


def test_the_picture_of_the_score_uses_the_formula_of_the_scorer():
    import numpy as np

    from longlode.mining.scorers import profile

    pictures = loaded(DOCS / "pictures.py")
    assert pictures.UNIT_NATS == profile.UNIT_NATS
    rng = np.random.default_rng(0)
    for z, m in zip(rng.uniform(0, 6, 20), rng.uniform(-0.05, 0.1, 20), strict=True):
        wanted = (np.exp(z) - 1) / (np.exp(z) + 1) * np.logaddexp(0, m / profile.UNIT_NATS)
        assert abs(pictures.score(z, m) - wanted) < 1e-12
    assert pictures.score(-1.5, 0.3) == -1.5


@pytest.mark.parametrize("page", NEW_PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_pages_for_newcomers_use_plain_words(page):
    prose = re.sub(
        r"```text.*?```|`[^`]*`|\]\([^)]*\)", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert HOUSE_WORDS.findall(prose) == []


def test_the_recipe_of_the_first_page_is_valid(tmp_path):
    from longlode.train import Recipe

    (text,) = re.findall(
        r"```toml\n(.*?)```", (DOCS / "start.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (tmp_path / "small.toml").write_text(text)
    assert Recipe.load(tmp_path / "small.toml", ["data.shards=shards"]).run.steps == 100


def test_the_corpus_of_the_first_page_can_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "start.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    exec(compile(text, "docs/start.md", "exec"), {})  # our own file
    assert (tmp_path / "corpus/asyncio/events.py").is_file()
    assert (tmp_path / "heldout/json/decoder.py").is_file()


def test_every_registry_of_the_guide_exists():
    table = (DOCS / "guides/extend.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \w+ \| .* \| `([\w.]+)` \| `([\w.]+)` \| .* \|$", table, flags=re.MULTILINE)
    assert len(rows) == 5
    for address, group in rows:
        module, _, name = address.rpartition(".")
        assert getattr(importlib.import_module(module), name).group == group


def test_links_out_of_docs_are_led_to_pages_and_links_within_docs_stay():
    redirected = loaded(DOCS / "_extensions/repository_links.py").redirected
    text = "![p](../profile.svg) [m](../mining.md#gate) [c](../../CHANGELOG.md#x) [r](../../src/a.py)"
    wanted = "![p](../profile.svg) [m](../mining.md#gate) [c](/project/changelog.md#x) r (`src/a.py`)"
    assert redirected(text, "guides/scale") == wanted
    assert redirected("[c](../CHANGELOG.md) [b](../x.md)", "cli") == "[c](/project/changelog.md) b (`x.md`)"
