"""Reading of the scorers' requests: those of one type together, and a document alone where that fails."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from longlode.core.errors import ModelError
from longlode.mining.engine import pulse
from longlode.mining.requests import BatchSize, Reading, Request

Attempt = Callable[[int, str, Callable[[], list[Reading]]], list[Reading] | None]
"""Called with the number of a document, the stage and a step: what the step returns, None when the document failed."""


def read_requests(
    reader: Any, asked: Sequence[Sequence[Request]], size: BatchSize, attempt: Attempt
) -> list[list[Reading] | None]:
    """Read the requests of several documents, type by type, each type for all documents together.

    Where a type cannot be read together it is read document by document, so that one that cannot be read fails alone.

    Args: asked, the requests of each document; size, halved in place when the reader runs out of memory; attempt, does
      the reading of a single document.
    Returns: per document its readings, in the order of its requests; None for one that failed.
    """
    found: list[dict[int, Reading]] = [{} for _ in asked]
    failed: set[int] = set()
    kinds = dict.fromkeys(type(request) for requests in asked for request in requests)
    for count, kind in enumerate(kinds):
        pulse.enter_span(count, len(kinds))
        places = {
            number: [place for place, request in enumerate(requests) if type(request) is kind]
            for number, requests in enumerate(asked)
            if number not in failed
        }
        places = {number: of_kind for number, of_kind in places.items() if of_kind}
        together: list[Reading] | None = None
        if len(places) > 1:
            requests = [asked[number][place] for number, of_kind in places.items() for place in of_kind]
            with contextlib.suppress(Exception):  # whose fault it is shows when each goes alone
                together = _read(kind, reader, requests, size)
        for number, of_kind in places.items():
            if together is None:
                own = [asked[number][place] for place in of_kind]
                readings = attempt(number, kind.stage, partial(_read, kind, reader, own, size))
            else:
                readings, together = together[: len(of_kind)], together[len(of_kind) :]
            if readings is None:
                failed.add(number)
            else:
                found[number] |= zip(of_kind, readings, strict=True)
    return [
        None if number in failed else [readings[place] for place in range(len(readings))]
        for number, readings in enumerate(found)
    ]


def _read(kind: type[Request], reader: Any, requests: Sequence[Request], size: BatchSize) -> list[Reading]:
    found = list(kind.read(reader, requests, size))
    if len(found) != len(requests):
        raise ModelError(f"{kind.__name__} gave {len(found)} readings for {len(requests)} requests.")
    return found
