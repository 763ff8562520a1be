"""Fingerprints, shapes and batches: conventions shared by all packages."""

import hashlib

import numpy as np
import pytest

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.core.fingerprints import file_sha256, fingerprint, text_fingerprint
from longlode.core.shapes import check_shape


def test_fingerprint_depends_on_content_alone():
    assert fingerprint({"a": 1, "b": [2, None]}) == fingerprint({"b": [2, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert len(fingerprint("x")) == 16


def test_fingerprint_is_the_same_on_every_machine():
    # A change of this value would orphan every part that users have scored.
    assert (
        fingerprint({"reader": "starter", "segment": 128})
        == hashlib.blake2b(b'{"reader":"starter","segment":128}', digest_size=8).hexdigest()
    )


def test_text_fingerprint_takes_lone_surrogates():
    assert text_fingerprint("\ud800") != text_fingerprint("\udc00")


def test_file_sha256_reads_past_one_block(tmp_path):
    blob = b"longlode" * 200_000
    (tmp_path / "blob").write_bytes(blob)
    assert file_sha256(tmp_path / "blob") == hashlib.sha256(blob).hexdigest()


def test_check_shape_records_sizes_and_names_the_tensor():
    sizes: dict[str, int] = {}
    check_shape("q", np.zeros((2, 5, 4, 8)), "B T H K", sizes)
    check_shape("v", np.zeros((2, 5, 4, 3)), "B T H V", sizes)
    assert sizes == {"B": 2, "T": 5, "H": 4, "K": 8, "V": 3}
    with pytest.raises(ConfigError, match=r"beta has shape \[2, 6, 4\]; expected \[B=2, T=5, H=4\]"):
        check_shape("beta", np.zeros((2, 6, 4)), "B T H", sizes)
    with pytest.raises(ConfigError, match=r"g has shape \[2, 5\]; expected \[B=2, T=5, H=4\]"):
        check_shape("g", np.zeros((2, 5)), "B T H", sizes)


def test_batch_counts_labelled_tokens():
    labels = np.array([[3, 4, -100], [5, -100, -100]])
    assert Batch(tokens=np.zeros((2, 3), np.int64), labels=labels).num_tokens == 3
