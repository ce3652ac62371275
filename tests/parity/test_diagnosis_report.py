"""A diagnosis as text, as HTML and as JSON."""

import dataclasses
import json
import re

import numpy as np
import pytest

from tests.parity import loops
from tests.parity.loops import COLUMN, X, by_hand, dense
from tfbig.parity import CATALOGUE, Diagnosis, Report, diagnose
from tfbig.parity.causes.row import found
from tfbig.parity.report import rows

TABLE = Report(rows(["dense/kernel"], [np.array([3.0, 4.0])], [np.array([6.0, 8.0])]), 1e-5)
SUM = found(CATALOGUE["D11"], "every gradient is 2 times fit's", "loop.py:7-9")
SLOTS = dataclasses.replace(found(CATALOGUE["D36"], "in step 2, 1 < 2", None), step=2)
NOTE = "rounding & more"
RIGHT = Diagnosis((), (), None, (), (), TABLE)
ONE = Diagnosis((SUM,), (), None, (), (), TABLE)
TWO = Diagnosis((SUM, SLOTS), (), None, (), (NOTE,), None)
UNKNOWN = Diagnosis((), ("loss (<lambda>)",), "step 3, dense", ("D01", "D02"), (), TABLE)


def plain(page):
    return re.sub("<[^>]*>", "", page)


def test_the_verdict_is_one_line():
    title = CATALOGUE["D11"].title
    assert RIGHT.verdict == "The loop does what model.fit does."
    assert ONE.verdict == f"The loop differs from model.fit: {title} [D11]."
    assert TWO.verdict == f"The loop differs from model.fit: {title} [D11], and 1 more."
    assert UNKNOWN.verdict == "The loop differs from model.fit, for no cause in the catalogue."
    assert [d.matches for d in (RIGHT, ONE, TWO, UNKNOWN)] == [True, False, False, False]


def test_the_text_by_hand():
    assert str(RIGHT) == RIGHT.verdict
    lines = str(TWO).splitlines()
    assert lines == [
        TWO.verdict,
        "",
        f"loop.py:7-9: D11: {CATALOGUE['D11'].title}",
        "    evidence: every gradient is 2 times fit's",
        f"    mend:     {CATALOGUE['D11'].mend}",
        "",
        f"loop: D36: {CATALOGUE['D36'].title}",
        "    evidence: in step 2, 1 < 2 (first in step 2)",
        f"    mend:     {CATALOGUE['D36'].mend}",
        "",
        f"note: {NOTE}",
    ]
    lines = str(UNKNOWN).splitlines()
    assert lines[:5] == [
        UNKNOWN.verdict,
        "",
        "not explained: loss (<lambda>)",
        "    the two first part at step 3, dense",
        "    ruled out: D01, D02",
    ]
    assert str(ONE).endswith(str(TABLE)) and str(UNKNOWN).endswith(str(TABLE))


def test_html_says_the_same_and_escapes():
    assert RIGHT._repr_html_().count("<p>") == 1 and "#1a7f37" in RIGHT._repr_html_()
    page = TWO._repr_html_()
    assert "#cf222e" in page and "rounding &amp; more" in page and "1 &lt; 2" in page
    assert page.index("D11") < page.index("<b>D36</b>") and "(first in step 2)" in page
    page = UNKNOWN._repr_html_()
    assert "<lambda>" not in page and "loss (&lt;lambda&gt;)" in page
    assert "ruled out: D01, D02" in page and "first part at step 3, dense" in page
    assert page.count("<table>") == 1 and TWO._repr_html_().count("<table>") == 0


@pytest.mark.parametrize("diagnosis", [RIGHT, ONE, TWO, UNKNOWN])
def test_json_holds_everything_and_can_be_written(diagnosis):
    values = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert values["matches"] is diagnosis.matches
    assert [cause["id"] for cause in values["causes"]] == [c.id for c in diagnosis.causes]
    for cause, of in zip(values["causes"], diagnosis.causes):
        assert cause == dataclasses.asdict(of)
    assert values["unexplained"] == list(diagnosis.unexplained)
    assert (values["parted"], values["ruled_out"]) == (diagnosis.parted, [*diagnosis.ruled_out])
    assert values["notes"] == list(diagnosis.notes)
    assert (values["gradients"] is None) is (diagnosis.gradients is None)


LOOP = """
import tensorflow as tf

def loop(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((model(x, training=True) - y) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
"""


def test_a_file_of_any_name(tmp_path):
    file, space = str(tmp_path / "<b>&'1' x.py"), {}
    exec(compile(LOOP, file, "exec"), space)
    report = diagnose(dense(), X, COLUMN, loop=space["loop"])
    assert [(c.id, c.where) for c in report.causes] == [("D11", f"{file}:6-7")]
    page = report._repr_html_()
    assert "<b>&'" not in page and "&lt;b&gt;&amp;&#x27;1&#x27; x.py:6-7" in page
    assert f"{file}:6-7: D11" in str(report)
    assert json.loads(json.dumps(report.to_json()))["causes"][0]["where"] == f"{file}:6-7"


def test_causes_come_in_the_order_of_the_step():
    """The forward pass before the loss, the loss before the update; step 1 before step 2."""
    optimizer = loops.twin(loops.dropping(), learning_rate=0.01)
    model = loops.dropping()
    loop = loops.with_optimizer(optimizer, loss=loops.summed, call=lambda m, x: m(x))
    report = diagnose(model, X, COLUMN, loop=loop)
    assert [cause.id for cause in report.causes] == ["D07", "D11", "D35"], str(report)
    assert [cause.step for cause in report.causes] == [1, 1, 1]
    assert report.verdict.startswith(f"The loop differs from model.fit: {CATALOGUE['D07'].title}")
    assert "and 2 more" in report.verdict and plain(report._repr_html_()).count("mend:") == 3


def test_a_cause_that_begins_later_says_so():
    def late(y, p, w):
        return loops.summed(y, p, w) if int(model.optimizer.iterations) else loops.mse(y, p, w)

    model = dense()
    report = diagnose(model, X, COLUMN, loop=by_hand(late))
    assert [(cause.id, cause.step) for cause in report.causes] == [("D11", 2)]
    assert "(first in step 2)" in str(report)
    # The table is that of the step in which it shows.
    assert all(row.ratio == pytest.approx(len(X), rel=1e-4) for row in report.gradients.compared)
