"""The AUC of scores against kinds of text: what a record holds is what stands in the table and the chart."""

from longlode.report.auc import auc_chart, auc_table

INTERVALS = {
    "default": {
        "log": {"value": 0.987, "low": 0.9, "high": 1.0, "num_real": 60, "num_fake": 24},
        "<b>glued": {"value": 0.75, "low": 0.6, "high": 0.85, "num_real": 60, "num_fake": 20},
    },
    "gzip": {"log": {"value": 0.0, "low": 0.0, "high": 0.06, "num_real": 60, "num_fake": 24}},
}


def test_the_table_has_every_interval_and_number_of_documents():
    found = auc_table([{"auc_intervals": INTERVALS, "kinds": {"log": "lines of a log", "other": 5}}])
    assert found.scores == ["default", "gzip"]
    log, glued = found.rows
    assert log[:2] == ("log", "lines of a log")
    assert log[2] == [("0.99", "0.90 to 1.00", "60 + 24"), ("0.00", "0.00 to 0.06", "60 + 24")]
    assert glued[1:] == ("", [("0.75", "0.60 to 0.85", "60 + 20"), None])


def test_records_without_intervals_have_a_chart_and_no_table():
    plain = {"auc": {"score": {"log": 0.9, "glued": None}, "gzip": 0.4}}
    assert auc_table([plain]) is None
    assert "score: 0.9" in auc_chart([plain])


def test_strange_records_have_neither():
    for record in (
        {},
        {"auc": [1]},
        {"auc_intervals": {"x": 3, "y": {"log": 5}, "z": {"log": {"value": "a"}}}},
    ):
        assert auc_table([record]) is None
        assert auc_chart([record]) is None


def test_names_of_a_record_are_escaped_in_the_chart():
    assert "<b>glued" not in auc_chart([{"auc_intervals": INTERVALS}])
