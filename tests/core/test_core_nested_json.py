"""JSON of any depth, the same as orjson's where that can."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longlode.core.nested_json import dumps_nested

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(values)
def test_the_same_as_orjson_where_that_can(value):
    assert dumps_nested(value, str) == orjson.dumps(value)


@pytest.mark.parametrize("depth", [255, 1000, 100_000])
def test_any_depth(depth):
    value = 1
    for level in range(depth):
        value = {"a": value, "b": level} if level % 2 else [0, value]
    with pytest.raises(TypeError):
        orjson.dumps(value)
    found = dumps_nested(value, str)
    assert found.count(b"[") == found.count(b"]") == (depth + 1) // 2
    if depth == 255:
        for _ in range(2):  # what is inside can be read by orjson, which has the words for all of it
            value = value["a"] if isinstance(value, dict) else value[1]
        assert orjson.dumps(value) in found
    if depth <= 1000:
        assert dumps_nested(orjson.loads(found), str) == found


def test_values_without_a_form_go_to_default_or_raise():
    deep = [Decimal("1.5")]
    for _ in range(300):
        deep = [deep]
    assert b'"1.5"' in dumps_nested(deep, str)
    with pytest.raises(TypeError, match="key"):
        dumps_nested({1: 2}, str)
