"""Distinct values of an array, against Python's set."""

import numpy as np
import pytest

from longlode.core.distinct import distinct


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (300,), (20, 30)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint64])
def test_distinct_values_are_those_of_a_set_in_order(shape, dtype) -> None:
    values = np.random.default_rng().integers(0, 40, size=shape).astype(dtype)
    before = values.copy()
    found = distinct(values)
    assert found.tolist() == sorted({int(value) for value in values.ravel()})
    assert found.dtype == dtype
    assert (values == before).all(), "the argument stays as it is"
