"""Choice of one document from an input that may hold many."""

from longlode.api.scored_rows import is_scores, scored_document
from longlode.core.errors import InputError
from longlode.corpus import Document, Unreadable, find_files, read
from longlode.corpus.document import SKIPPED

_NUM_LISTED = 5


def pick_document(
    given: str,
    *,
    row: int | None = None,
    document_id: str | None = None,
    text_field: str = "text",
    encoding: str = "utf-8",
) -> Document:
    """The document of `given` with this row or id; without either, its only one.

    Args: given, a file, folder, glob, URL or scores folder.

    Of an id that occurs twice the first is taken, as in `longlode select`.
    Raises: InputError when there is none, when there are several to choose from, and with the reason when it is
      unreadable.
    """
    if is_scores(given):
        return scored_document(given, row=row, document_id=document_id)
    single_file = len(find_files(given)) == 1
    found: list[Document | Unreadable] = []
    skipped = ""
    for item in read(given, text_field=text_field, encoding=encoding):
        if document_id is None and isinstance(item, Unreadable) and item.status == SKIPPED:
            skipped = skipped or f": {item.reason} ({item.id})"
            continue  # what lies beside the documents of a folder: hidden files, pictures
        if (row is None or item.row == row) and (document_id is None or item.id == document_id):
            found.append(item)
        if found and (document_id is not None or (row is not None and single_file)):
            break
        if len(found) > _NUM_LISTED:
            break
    wanted = " and ".join(
        [
            *([f"row {row}"] if row is not None else []),
            *([f"id {document_id!r}"] if document_id is not None else []),
        ]
    )
    if not found:
        raise InputError(
            f"{given} holds no document of {wanted}. Rows count from 0; the columns `id` and `row` of the parts "
            "that longlode score writes name every document."
            if wanted
            else f"{given} holds no document{skipped}."
        )
    if len(found) > 1:
        names = ", ".join(item.id for item in found[:_NUM_LISTED]) + (
            ", ..." if len(found) > _NUM_LISTED else ""
        )
        raise InputError(
            f"{given} holds several documents{f' of {wanted}' if wanted else ''}; expected one. Say which with "
            f"--id ID or --row N. Ids: {names}"
        )
    item = found[0]
    if isinstance(item, Unreadable):
        raise InputError(f"{item.id} cannot be read ({item.status}): {item.reason}")
    if not item.text:
        raise InputError(f"{item.id} has an empty text; there is nothing to explain.")
    return item
