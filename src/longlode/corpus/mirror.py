"""Output in remote stores: a local working folder that is copied to its URL.

Results are written locally as ever, under temporary names and by rename, and finished files are copied to the store:
while a run is on, every few seconds; at the end, with the record last, so that a record in the store names nothing that
is missing there. A run that starts on another machine first fetches what the store has and goes on from it. Stores
replace whole objects, so that no reader sees a half-written file.
"""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from longlode.core.errors import InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.kinds import RECORD_NAME, RUNS_FOLDER
from longlode.core.outputs import full_path, remote_url
from longlode.corpus import stores
from longlode.corpus.remote_files import with_retries

PUSH_SECONDS = 20.0
"""Pause between two copies of what is finished while a run is on."""
STAGING_VARIABLE = "LONGLODE_STAGING"
"""Environment variable: the folder of working folders, ~/.cache/longlode/staging by default."""
_READ_ONLY = ("http", "https")

logger = logging.getLogger(__name__)
_State = tuple[int, int]  # bytes, time of the last change in nanoseconds


@dataclass(eq=False)
class Mirror:
    """A local folder and the URL that it is copied to. `push` may be called at any time."""

    url: str
    local: Path

    def __post_init__(self) -> None:
        """Open the store. Raises: as `stores.filesystem`; InputError for one that cannot be written to."""
        if self.url.split("://", 1)[0] in _READ_ONLY:
            raise InputError(
                f"{self.url} cannot be written: web servers are read only. Expected a local path or a store such as "
                "s3://bucket/folder."
            )
        self._store, self._root = stores.filesystem(self.url)
        self._root = self._root.rstrip("/")
        self._known: dict[str, _State] = {}
        self._one_at_a_time = threading.Lock()

    def pull(self, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Fetch what the store has and this folder lacks, and the record in any case.

        Args: wanted, tells by its path below the URL if a file is needed. Raises: InputError.
        """
        self.local.mkdir(parents=True, exist_ok=True)
        for name, size in self.listed().items():
            path = self.local / name
            if not wanted(name):
                continue
            if path.name == RECORD_NAME or not path.is_file() or path.stat().st_size != size:
                self._fetch(name, path)
            self._known[name] = _state(path)

    def listed(self) -> dict[str, int]:
        """Return the files below the URL: path -> bytes. Raises: InputError."""
        try:
            self._store.invalidate_cache(self._root)
            found = with_retries(lambda: self._store.find(self._root, detail=True), self.url)
        except FileNotFoundError:
            return {}
        except Exception as error:  # every store has its own errors
            raise InputError(f"{self.url} cannot be listed: {type(error).__name__}: {error}") from error
        start = len(self._root) + 1
        return {
            path[start:]: int(info.get("size") or 0)
            for path, info in sorted(found.items())
            if info.get("type") == "file" and path.startswith(f"{self._root}/")
        }

    def push(self, *, remove_others: bool = False) -> None:
        """Copy finished files to the store, records last, and remove those there that are no longer here.

        Args: remove_others, also those that this folder never had. Raises: InputError; then files may be missing in the
          store, and no record there names them.
        """
        with self._one_at_a_time:
            here = dict(self._finished())
            changed = [name for name, state in here.items() if self._known.get(name) != state]
            for name in sorted(changed, key=lambda name: (Path(name).name == RECORD_NAME, name)):
                self._send(name)
                self._known[name] = here[name]
            there = self.listed() if remove_others else self._known
            for name in [name for name in there if name not in here]:
                self._remove(name)

    def _finished(self) -> Iterator[tuple[str, _State]]:
        """Yield the files that are neither hidden nor under a temporary name."""
        for folder, folders, names in os.walk(self.local):
            folders[:] = [name for name in folders if not name.startswith(".") and name != RUNS_FOLDER]
            for name in names:
                path = Path(folder) / name
                if not name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # removed just now
                        yield path.relative_to(self.local).as_posix(), _state(path)

    def _fetch(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_name(f".{path.name}.fetched")
        try:
            with_retries(lambda: self._store.get_file(f"{self._root}/{name}", str(arriving)), self.url)
            arriving.replace(path)
        except Exception as error:  # as in listed
            raise InputError(
                f"{self.url}/{name} cannot be fetched: {type(error).__name__}: {error}"
            ) from error
        finally:
            arriving.unlink(missing_ok=True)

    def _send(self, name: str) -> None:
        goal = f"{self._root}/{name}"
        if not (
            self.local / name
        ).is_file():  # merged with others since it was listed: the next copy removes it there
            return

        def send() -> None:
            with contextlib.suppress(NotImplementedError):
                self._store.makedirs(goal.rsplit("/", 1)[0], exist_ok=True)
            self._store.put_file(str(self.local / name), goal)

        try:
            with_retries(send, self.url)
        except Exception as error:  # as in listed
            raise InputError(
                f"{self.url}/{name} cannot be written: {type(error).__name__}: {error}. What is finished is kept in "
                f"{self.local}; run the same command again to go on."
            ) from error

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                with_retries(lambda: self._store.rm_file(f"{self._root}/{name}"), self.url)
            except FileNotFoundError:
                raise
            except Exception as error:  # as in listed
                raise InputError(
                    f"{self.url}/{name} cannot be removed: {type(error).__name__}: {error}"
                ) from error
        self._known.pop(name, None)


def working_folder(url: str) -> Path:
    """Return the local folder that stands for a URL, the same for every run of this user."""
    given = os.environ.get(STAGING_VARIABLE)
    root = Path(given) if given else Path.home() / ".cache" / "longlode" / "staging"
    return (
        root.absolute() / fingerprint(["staging", url.rstrip("/")])[:16] / url.rstrip("/").rsplit("/", 1)[-1]
    )


@contextlib.contextmanager
def mirrored(url: str, *, keep: bool = False) -> Iterator[Mirror]:
    """Yield a mirror of a folder in a store, with what is there already; it is copied there during the block and after.

    After an error or an interrupt, what is finished is still copied, as far as the store allows.
    Args: keep, keep the working folder after success. Raises: InputError, BackendError.
    """
    mirror = Mirror(url, working_folder(url))
    mirror.pull()
    stop = threading.Event()
    copier = threading.Thread(target=_push_until, args=(mirror, stop), daemon=True)
    copier.start()
    try:
        yield mirror
    except BaseException:
        stop.set()
        copier.join()
        with contextlib.suppress(InputError):
            mirror.push()
        raise
    stop.set()
    copier.join()
    mirror.push()
    if not keep:
        shutil.rmtree(mirror.local.parent, ignore_errors=True)


@contextlib.contextmanager
def output_folder(
    out: str | os.PathLike[str], inputs: Sequence[str], *, keep: bool = False
) -> Iterator[Path]:
    """Yield the local folder to write to: `out` itself, or the working folder of its URL, as of `mirrored`.

    Raises: InputError also for a URL inside one of the inputs, which the next run would read as documents.
    """
    url = remote_url(out)
    if url is None:
        yield Path(out)
        return
    for item in inputs:
        if f"{url.rstrip('/')}/".startswith(f"{item.split('*', 1)[0].rstrip('/')}/"):
            raise InputError(
                f"the output folder {url} lies inside the input {item}: the next run would read the scores as "
                "documents. Choose a place outside it."
            )
    with mirrored(url, keep=keep) as mirror:
        yield mirror.local


def input_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a folder to read: `folder` itself, or a local copy of what is at its URL, which is brought up to date.

    Raises: InputError for a URL with nothing below it.
    """
    url = remote_url(folder)
    if url is None:
        return full_path(folder)
    mirror = Mirror(url, working_folder(url))
    mirror.pull()
    if not mirror.listed():
        raise InputError(f"{url} does not exist, or is empty; expected an output folder of longlode.")
    return mirror.local


def _push_until(mirror: Mirror, stop: threading.Event) -> None:
    while not stop.wait(PUSH_SECONDS):
        try:
            mirror.push()
        except InputError as error:  # tried again at the next turn, and at the end
            logger.warning("%s", error)


@contextlib.contextmanager
def new_folder(url: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a local folder that is copied to an empty place in a store after the block, and only then.

    Args: overwrite, the place may hold files, which are removed after the copy. Raises: InputError, BackendError.
    """
    mirror = Mirror(url, working_folder(url))
    there = mirror.listed()
    if there and not overwrite:
        raise InputError(
            f"{url} is not empty ({next(iter(there))}, {len(there):,} files); expected a new place. Name another, or "
            "replace what is there with --overwrite."
        )
    shutil.rmtree(mirror.local, ignore_errors=True)
    yield mirror.local
    mirror.push(remove_others=True)
    shutil.rmtree(mirror.local.parent, ignore_errors=True)


@contextlib.contextmanager
def sent_files(url: str, names: Sequence[str], records: Sequence[str]) -> Iterator[Mirror]:
    """Yield a mirror of some files of a folder in a store, which are copied there after the block, and only then.

    Files that exist in the store are empty here, so that writers see that they exist; `records` are fetched.
    Args: url, of the folder; names, records, paths below it. Raises: InputError, BackendError.
    """
    local = working_folder("/".join([url.rstrip("/"), *names[:1]])) / "files"
    shutil.rmtree(local, ignore_errors=True)
    mirror = Mirror(url, local)
    mirror.pull(lambda name: name in records)
    for name in set(mirror.listed()).intersection(names):
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).touch()
    yield mirror
    mirror.push()
    shutil.rmtree(local.parent.parent, ignore_errors=True)


def _state(path: Path) -> _State:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
