"""The S3 server of `benchmarks.s3_store` for tests, which are skipped without it."""

from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.s3_store import NoStoreError, s3_environment


@contextmanager
def s3_server(monkeypatch):
    """Serve an empty store; the environment leads s3:// there. Yields its file system."""
    with ExitStack() as stack:
        try:
            values = stack.enter_context(s3_environment())
        except NoStoreError as error:
            pytest.skip(str(error))
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        store = s3fs.S3FileSystem()
        store.mkdir("corpus")
        yield store
