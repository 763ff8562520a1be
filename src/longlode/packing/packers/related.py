"""The packer `related`: documents on one subject follow each other in a row."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.core.records import atomic_path
from longlode.packing.document_walk import degree_ordered_walk, near_duplicates
from longlode.packing.embeddings import SCALE, embed, load_vectors
from longlode.packing.neighbours import neighbours
from longlode.packing.ordered_documents import OrderedDocuments
from longlode.packing.packers.base import DocumentSource, Order, Packer, Schedule

_VERSION = 1
ORDERS_FOLDER = "orders"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RelatedPacker(Packer):
    """In-context pretraining: rows are cut from one walk over all documents from neighbour to similar neighbour.

    Documents of a row see each other (`packed = false`), so that the context before a token is on its subject even
    where its own document is short. Near-duplicates are dropped, as copying would be learned from them; rows are read
    in random order. Source: Shi et al. 2024, "In-context pretraining: language modeling beyond document boundaries",
    arXiv 2310.10638.

    dimensions: of the vectors of hashed n-grams. max_tokens: tokens at the beginning of a document that its vector is
    made of. vectors: a .npy file of vectors by a model instead, one row for each document of the shards.
    num_neighbours: of each document in the graph. duplicate_similarity: cosine from which on the later of two
    documents is dropped; 2 keeps all but exact copies. exact_below: number of documents below which neighbours are
    found exactly; above, faiss finds them approximately.
    """

    name: ClassVar[str] = "related"
    needs_joint_documents: ClassVar[bool] = True
    dimensions: int = 256
    max_tokens: int = 1024
    vectors: str = ""
    num_neighbours: int = 10
    duplicate_similarity: float = 0.95
    exact_below: int = 20_000

    def for_documents(self, source: DocumentSource) -> Packer:
        """Find the order of the documents, or read it where it was found before; see `Packer.for_documents`."""
        if min(self.dimensions, self.max_tokens, self.num_neighbours) < 1:
            raise ConfigError(
                "the packer 'related': dimensions, max_tokens and num_neighbours must be at least 1."
            )
        path = source.store / ORDERS_FOLDER / f"related-{self._key(source)}.npy"
        order = _saved(path)
        if order is None:
            order = self._walk(source)
            _save(path, order)
        return OrderedDocuments(walk=order)

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """Refuse: rows need the order of the documents, which `for_documents` finds."""
        raise ConfigError(
            "the packer 'related' needs documents, not their lengths alone; use for_documents first."
        )

    def _walk(self, source: DocumentSource) -> np.ndarray:
        size = len(source.documents)
        logger.info("Ordering %s documents by similarity; the order is kept for later runs.", f"{size:,}")
        copies = _exact_copies(source)
        own = np.flatnonzero(~copies)
        if self.vectors:
            vectors = load_vectors(self.vectors, source.documents[own], source.num_documents)
        else:
            shape = {"dimensions": self.dimensions, "max_tokens": self.max_tokens}
            vectors = embed(lambda place: source.tokens(int(own[place])), len(own), **shape)
        exact = len(own) < self.exact_below
        found, products = neighbours(vectors, self.num_neighbours, exact=exact)
        dropped = near_duplicates(found, products, self.duplicate_similarity * SCALE**2)
        return own[degree_ordered_walk(found, products, ~dropped)]

    def _key(self, source: DocumentSource) -> str:
        """Name of the order: the documents, and every option."""
        chosen = hashlib.blake2b(source.documents.astype("<i8").tobytes(), digest_size=8).hexdigest()
        stat = Path(self.vectors).stat() if self.vectors and Path(self.vectors).exists() else None
        version = None if stat is None else [stat.st_size, stat.st_mtime_ns]
        return fingerprint([_VERSION, source.fingerprint, chosen, vars(self), version])


def _exact_copies(source: DocumentSource) -> np.ndarray:
    """Return which documents have the tokens of an earlier one, bool `[N]`."""
    seen: set[bytes] = set()
    is_copy = np.zeros(len(source.documents), dtype=bool)
    for place in range(len(source.documents)):
        digest = hashlib.blake2b(np.ascontiguousarray(source.tokens(place)).data, digest_size=16).digest()
        is_copy[place] = digest in seen
        seen.add(digest)
    return is_copy


def _saved(path: Path) -> np.ndarray | None:
    try:
        found: Any = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    # The last number is the sum of the others: a torn or damaged file is made again.
    return found[:-1] if found.ndim == 1 and len(found) and found[-1] == found[:-1].sum() else None


def _save(path: Path, order: np.ndarray) -> None:
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.append(order, order.sum()))
    except OSError as error:
        logger.warning(
            "The order of the documents cannot be kept in %s (%s): every run finds it again.", path, error
        )
