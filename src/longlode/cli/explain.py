"""longlode explain: the evidence behind a document's score, as passages, words and distances."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from longlode.cli.console import ConsoleWatch, finish
from longlode.cli.habits import shell
from longlode.cli.options import Encoding, TextField, Weights
from longlode.core.defaults import SCORER

EXAMPLES = (
    "longlode explain book.txt",
    "longlode explain scores --id chapter1.md",
    "longlode explain papers.jsonl.zst --row 17 --top 10",
    "longlode explain corpus/ --id chapter1.md --model facebook/opt-350m --segments 16",
    "longlode explain book.txt --scorer coherence",
    "longlode explain notes.txt --json",
)


Document = Annotated[
    str,
    typer.Argument(
        metavar="DOC",
        help="A file, an input of several documents with --row or --id, or a scores folder with --id.",
    ),
]
PairModel = Annotated[
    str | None,
    typer.Option(
        help="Also read pairs of segments by it: starter, a model or run folder, or a hub id. coherence reads the "
        "starter by default."
    ),
]


def explain(
    document: Document,
    row: Annotated[
        int | None, typer.Option(min=0, help="The row of the document in its file, from 0.")
    ] = None,
    document_id: Annotated[str | None, typer.Option("--id", help="The id of the document.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Pairs and words to show.")] = 5,
    scorer: Annotated[str, typer.Option(help="profile or coherence.")] = SCORER,
    weights: Weights = None,
    model: PairModel = None,
    segment: Annotated[int, typer.Option(min=2, help="Tokens per segment.")] = 128,
    start: Annotated[int, typer.Option(min=0, help="The first segment to read in pairs.")] = 0,
    segments: Annotated[
        int, typer.Option(min=2, help="Segments to read from there, each after every earlier one.")
    ] = 48,
    text_field: TextField = "text",
    encoding: Encoding = "utf-8",
) -> dict[str, Any]:
    """Show what a document's score is made of.

    For the profile: how likely the document is one text in its order, the evidence for and against that compared with
    usual text, and the kinds of text it resembles otherwise; its weakest boundary; what context adds at each octave of
    distance; and the words and pairs of words that carry this gain, with two places of each. Needs no model.

    For coherence: the words that add most to it. Each occurs in the thousand tokens before its near context more
    often than in other parts of the document; both places are shown. "expected" is the share of other places where
    it occurs as well.

    With a model, pairs: the later segment is read alone and after the earlier one; highlighted are the tokens that
    gained most. A pair may help by its format alone; the words show what depends on the order. Next: longlode score.
    """
    from longlode.api.explanation import explain as run_explanation
    from longlode.api.scored_rows import is_scores
    from longlode.cli.explain_view import show_explanation

    found = run_explanation(
        document,
        row=row,
        document_id=document_id,
        top=top,
        scorer=scorer,
        weights=weights,
        model=model,
        segment=segment,
        start=start,
        segments=segments,
        text_field=text_field,
        encoding=encoding,
        watch=ConsoleWatch(),
    )
    show_explanation(found)
    finish(
        f"{found['id']} explained.",
        then=[
            *([] if is_scores(document) else [shell("longlode", "score", document, "-o", "scores")]),
            shell("longlode", "explain", document, *_which(row, document_id), "--json"),
        ],
    )
    return found


def _which(row: int | None, document_id: str | None) -> list[object]:
    """The options that name one document of several."""
    return [*(["--row", row] if row is not None else []), *(["--id", document_id] if document_id else [])]


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: nothing was written."""
    return "Nothing was written."
