"""File access: local paths by plain calls, anything with `://` through fsspec, with retries."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlsplit

from longlode.core.errors import BackendError, InputError
from longlode.core.outputs import full_path
from longlode.corpus.remote_files import RemoteFile, with_retries

FILE, FOLDER, OTHER = "file", "folder", "other"
_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http", "gs": "gcs", "gcs": "gcs"}
_SECRET_FIELDS = """
x-amz-signature x-amz-credential x-amz-security-token x-goog-signature x-goog-credential signature sig
awsaccesskeyid googleaccessid token access_token auth authorization key api_key apikey password secret
"""
_VERSION_FIELDS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "Content-MD5",
    "Digest",
    "Last-Modified",
    "LastModified",
)
"""Names that stores give to the version of a file, the most telling first."""


@dataclass(frozen=True)
class Entry:
    """An entry of a folder. kind: "file", "folder" or "other"; num_bytes is -1 when the store does not say."""

    path: str
    kind: str
    num_bytes: int = -1
    reason: str = ""

    @property
    def base(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]


def is_url(path: str) -> bool:
    """Return True for paths that fsspec opens (`s3://bucket/x`); `file://` was made a plain path by `local_path`."""
    return "://" in path


def local_path(path: str) -> str:
    """Make a local path or `file://` URL an absolute path; other URLs are returned unchanged."""
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    return path if is_url(path) else str(full_path(path))


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path inside it.

    Raises: BackendError when the store's package is missing; InputError for an unknown or chained protocol.
    """
    import fsspec  # here, because local files do not need it

    if "::" in url:
        raise InputError(f"{url} chains several stores; expected one, such as s3://bucket/folder.")
    check_no_secrets(url)
    protocol = url.split("://", 1)[0]
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'longlode[{extra}]'" if extra else "pip install it"
        raise BackendError(f"{url} needs a package that is not installed ({error}); {advice}.") from None
    except ValueError as error:
        raise InputError(f"{url}: {protocol}:// is no store that fsspec knows ({error}).") from None


def check_no_secrets(url: str) -> None:
    """Refuse a URL that carries a password, a key or a signature: records and messages name their inputs by URL.

    Raises: InputError, which does not repeat the secret.
    """
    parts = urlsplit(url)
    named = [name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRET_FIELDS.split()]
    if "@" in parts.netloc and parts.scheme not in (
        "abfs",
        "abfss",
    ):  # there it separates container and account
        named.insert(0, "a user name or password before the @")
    if named:
        host = parts.netloc.rsplit("@", 1)[-1]
        raise InputError(
            f"{parts.scheme}://{host}{parts.path} was given with credentials ({', '.join(named)}), which the records "
            "of the run would keep. Expected a URL without them: give credentials to the store by its environment "
            "variables or files (AWS_ACCESS_KEY_ID, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS, fsspec's configuration)."
        )


def describe(path: str) -> Entry | None:
    """Return the entry at `path`, or None. Raises: InputError when the store gives no answer."""
    if not is_url(path):
        return _local_entry(path) if os.path.lexists(path) else None
    store, inner = filesystem(path)
    try:
        store.invalidate_cache(inner)  # a listing made earlier in this process may be out of date
        return _store_entry(store, with_retries(lambda: store.info(inner), path))
    except FileNotFoundError:
        return None
    except Exception as error:  # every store has its own errors: credentials, network, throttling
        raise InputError(f"{path} cannot be reached: {type(error).__name__}: {error}") from error


def list_folder(path: str) -> list[Entry]:
    """List the entries of a folder, sorted by path. Raises: OSError; InputError for a remote store's own errors."""
    if not is_url(path):
        with os.scandir(path) as entries:
            return sorted((_local_entry(entry.path) for entry in entries), key=lambda entry: entry.path)
    store, inner = filesystem(path)
    try:
        infos = with_retries(lambda: store.ls(inner, detail=True), path)
        found = [_store_entry(store, info) for info in infos]
    except Exception as error:  # as in describe
        raise InputError(f"{path} cannot be listed: {type(error).__name__}: {error}") from error
    itself = store.unstrip_protocol(inner).rstrip("/")
    return sorted(
        (entry for entry in found if entry.path.rstrip("/") != itself), key=lambda entry: entry.path
    )


def match_remote(pattern: str) -> list[Entry]:
    """List what a glob in a URL matches, sorted by path, with one listing per folder. Raises: as `list_folder`."""
    store, inner = filesystem(pattern)
    try:
        found = with_retries(lambda: store.glob(inner, detail=True), pattern)
    except Exception as error:  # as in describe
        raise InputError(f"{pattern} cannot be listed: {type(error).__name__}: {error}") from error
    return sorted((_store_entry(store, info) for info in found.values()), key=lambda entry: entry.path)


def open_bytes(path: str) -> BinaryIO:
    """Open a file for reading bytes; reads of a remote one are tried again after errors.

    Raises: OSError (a remote store's own errors are converted to it).
    """
    if not is_url(path):
        return Path(path).open("rb")
    store, inner = filesystem(path)
    return cast(BinaryIO, RemoteFile(store, inner, path))


def modified(path: str) -> int:
    """Return the time of a local file's last change in nanoseconds; -1 for a remote file, or if unknown."""
    try:
        return -1 if is_url(path) else Path(path).stat().st_mtime_ns
    except OSError:
        return -1


def remote_version(path: str) -> str:
    """Return the store's name of this version of a file (its ETag or the like), without reading it.

    Raises: OSError (a remote store's own errors are converted to it).
    """
    store, inner = filesystem(path)
    try:
        store.invalidate_cache(inner)
        info = with_retries(lambda: store.info(inner), path)
        named = next((f"{field} {info[field]}" for field in _VERSION_FIELDS if info.get(field)), "")
        return named or str(store.ukey(inner))
    except OSError:
        raise
    except Exception as error:  # as in describe
        raise OSError(f"{type(error).__name__}: {error}") from error


def _local_entry(path: str) -> Entry:
    target = Path(path)
    try:
        if target.is_symlink() and target.is_dir():
            return Entry(path, OTHER, reason="a link to a folder, not followed")
        if target.is_dir():
            return Entry(path, FOLDER)
        if target.is_file():
            return Entry(path, FILE, target.stat().st_size)
    except OSError as error:
        return Entry(path, OTHER, reason=error_text(error))
    if target.is_symlink():
        return Entry(path, OTHER, reason="a link that leads nowhere")
    return Entry(path, OTHER, reason="not a regular file")


def _store_entry(store: Any, info: dict[str, Any]) -> Entry:
    size = info.get("size")
    kind = {"file": FILE, "directory": FOLDER}.get(info["type"], OTHER)
    reason = "" if kind != OTHER else "not a regular file"
    return Entry(store.unstrip_protocol(info["name"]), kind, -1 if size is None else int(size), reason)


def error_text(error: OSError) -> str:
    """Return an OSError's message without its number and path."""
    return (error.strerror or str(error) or type(error).__name__).lower()
