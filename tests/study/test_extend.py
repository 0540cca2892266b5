"""Which open predictions go on: those of which a minute decides most, and no series is paid for twice."""

from types import SimpleNamespace

import pytest

from ablations.study.extend import Choice, Step, spend, told
from ablations.study.planning.extension import EXTENSION, Extended, Extension, read_extension, write_extension

pytestmark = pytest.mark.usefixtures("working_folder")


def step(name, chance, *series, items=120, there=60):
    decision = SimpleNamespace(experiment=name, aspect="text", against="baseline")
    jobs = tuple(SimpleNamespace(digest=digest, count=there) for digest in series)
    return Step(decision, "text", there, items, chance, jobs)


def names(steps):
    return [each.decision.experiment for each in steps]


def test_a_minute_goes_where_it_decides_most():
    times = {"baseline": 1.0, "A": 1.0, "B": 10.0, "C": 1.0}
    waiting = [
        step("A", 0.3, "A", "baseline"),
        step("B", 0.9, "B", "baseline"),
        step("C", 0.6, "C", "baseline"),
    ]
    # C and the baseline take two minutes, A then one more, and B ten.
    assert (names(spend(waiting, times, 180)[0]), spend(waiting, times, 180)[1]) == (["C", "A"], 180)
    chosen, seconds = spend(waiting, times, 780)
    assert (names(chosen), seconds) == (["C", "A", "B"], 780)
    assert spend(waiting, times, 119) == ([], 0)


def test_what_is_hopeless_is_not_measured_in_any_time():
    assert spend([step("A", 0.04, "A")], {"A": 0.001}, 1e9) == ([], 0)


def test_a_series_that_was_extended_before_is_paid_for_as_far_as_it_is_lacking():
    assert spend([step("A", 0.5, "A", there=100)], {"A": 1.0}, 1e9)[1] == 20


def test_what_goes_on_and_what_does_not_is_told():
    closed = SimpleNamespace(experiment="K3", aspect="about", against="F2b")
    choice = Choice((step("C", 0.6, "C"),), (step("A", 0.02, "A"),), (closed,), 60.0)
    assert [*told(choice)] == [
        "1 prediction goes on, in about 60 s:",
        "  C text: 120 documents (60 so far); decided in 60% of such studies",
        "not measured further, for want of time or because hardly any such study would decide it:",
        "  A text: 120 documents (60 so far); decided in 2% of such studies",
        "open, and not added to by a declared look: K3 about F2b",
    ]
    assert [*told(Choice((), (), (), 0.0))] == ["nothing goes on"]


def test_a_series_goes_on_from_what_was_planned_and_no_other_number():
    write_extension({"a": Extended(planned=60, items=120)})
    write_extension({"b": Extended(planned=40, items=80)})
    extension = read_extension()
    assert [extension.items("a", 60), extension.items("a", 20), extension.items("c", 60)] == [120, 20, 60]
    # Extended once more, it still goes on from what the configuration says.
    write_extension({"a": Extended(planned=120, items=240)})
    assert read_extension().series["a"] == Extended(planned=60, items=240)
    EXTENSION.unlink()
    assert read_extension() == Extension(series={})
