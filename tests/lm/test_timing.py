"""Rounds side by side, the stopwatch and the lock of the device."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from ablations.lm import timing
from ablations.lm.timing import device_lock, stopwatch, timed_rounds

CPU = torch.device("cpu")


class Clock:
    """A stopwatch that reads off how long each run is said to take, and keeps their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[str] = []
        self._seconds = 1.0
        monkeypatch.setattr(timing, "stopwatch", lambda _, work: (work(), self._seconds))

    def run(self, name: str, *seconds: float) -> Callable[[], str]:
        """Work that takes the given seconds one after another, the last one from then on."""

        def work() -> str:
            done = self.runs.count(name)
            self.runs.append(name)
            self._seconds = seconds[min(done, len(seconds) - 1)]
            return f"{name}{done}"

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def alone(_: str) -> nullcontext:
    return nullcontext()


@pytest.mark.parametrize("arms", [1, 2, 3, 4])
def test_each_is_first_equally_often_and_the_reference_runs_twice(arms: int, clock: Clock) -> None:
    names = "ABCD"[:arms]
    works = {name: clock.run(name, 1.0) for name in names}
    firsts: Counter[str] = Counter()
    for number in range(arms + 2):
        clock.runs.clear()
        measured = timed_rounds(CPU, clock.run("r", 1.0), works, alone, 2, number)
        assert {name: len(rounds) for name, rounds in measured.items()} == dict.fromkeys(names, 2)
        length = arms + 2
        rounds = [clock.runs[:length], clock.runs[length:]]
        for order in rounds:
            assert Counter(order) == Counter(names) + Counter("rr")
            firsts[order[0]] += 1
        # The order moves on by one.
        assert rounds[1] == rounds[0][1:] + rounds[0][:1]
    # The reference has two places of each order.
    assert firsts == Counter(dict.fromkeys(names, 2) | {"r": 4})


def test_the_reference_is_on_both_sides_of_some_arm(clock: Clock) -> None:
    timed_rounds(CPU, clock.run("r", 1.0), {name: clock.run(name, 1.0) for name in "ABC"}, alone, 1, 0)
    assert "".join(clock.runs) == "rABrC"


def test_a_round_has_both_results_and_three_times(clock: Clock) -> None:
    reference = clock.run("r", 2.0, 3.0, 4.0, 5.0)
    (first, second) = timed_rounds(CPU, reference, {"A": clock.run("A", 1.0, 2.0)}, alone, 2, 0)["A"]
    assert first == (("A0", 1.0), ("r0", 2.0), 3.0)
    # The ratio to the reference is compared, so that a device that slows down for both changes nothing.
    assert second == (("A1", 2.0), ("r2", 4.0), 5.0)


def test_only_an_arm_whose_rounds_differ_gets_one_more(clock: Clock) -> None:
    works = {"same": clock.run("same", 1.0, 1.04), "other": clock.run("other", 1.0, 1.06, 1.2, 9.0)}
    measured = timed_rounds(CPU, clock.run("r", 1.0), works, alone, 2, 5)
    assert [arm[1] for arm, _, _ in measured["same"]] == [1.0, 1.04]
    # One more, and no other where that differs too.
    assert [arm[1] for arm, _, _ in measured["other"]] == [1.0, 1.06, 1.2]
    assert clock.runs.count("r") == 6
    assert Counter(clock.runs[-3:]) == Counter(["other", "r", "r"])


def test_one_round_is_not_compared(clock: Clock) -> None:
    measured = timed_rounds(CPU, clock.run("r", 1.0, 7.0), {"A": clock.run("A", 1.0, 9.0)}, alone, 1, 0)
    assert len(measured["A"]) == 1


def test_three_rounds_are_three_whatever_they_say(clock: Clock) -> None:
    measured = timed_rounds(CPU, clock.run("r", 1.0), {"A": clock.run("A", 1.0, 9.0)}, alone, 3, 0)
    assert len(measured["A"]) == 3


def test_without_arms_nothing_runs(clock: Clock) -> None:
    assert timed_rounds(CPU, clock.run("r", 1.0), {}, alone, 2, 0) == {}
    assert clock.runs == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_arm_whose_error_is_swallowed_drops_out(at: int, clock: Clock) -> None:
    """In any round, and the others' rounds are whole."""
    bad = clock.run("bad", 1.0, 2.0)

    def failing() -> str:
        if clock.runs.count("bad") == at:
            clock.runs.append("failed")
            raise ValueError("mine")
        return bad()

    failures = []

    @contextmanager
    def at_work(name: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            failures.append((name, str(error)))

    works = {"good": clock.run("good", 1.0, 2.0), "bad": failing}
    measured = timed_rounds(CPU, clock.run("r", 1.0), works, at_work, 2, 0)
    assert failures == [("bad", "mine")]
    assert list(measured) == ["good"]
    assert len(measured["good"]) == 3
    assert (clock.runs.count("bad"), clock.runs.count("failed")) == (at, 1)


@pytest.mark.parametrize("name", ["A", "r"])
def test_other_errors_pass(name: str, clock: Clock) -> None:
    def failing() -> str:
        raise ValueError(name)

    works = {"r": clock.run("r", 1.0), "A": clock.run("A", 1.0)} | {name: failing}
    with pytest.raises(ValueError, match=name):
        timed_rounds(CPU, works.pop("r"), works, alone, 2, 0)


def test_what_the_context_does_is_not_timed() -> None:
    @contextmanager
    def at_work(_: str) -> Iterator[None]:
        time.sleep(0.05)
        yield
        time.sleep(0.05)

    (measured,) = timed_rounds(CPU, lambda: None, {"A": lambda: None}, at_work, 1, 0)["A"]
    assert measured.arm[1] < 0.05


def test_stopwatch() -> None:
    result, seconds = stopwatch(CPU, lambda: time.sleep(0.05) or 7)
    assert result == 7
    assert seconds >= 0.05


def test_the_device_is_locked_while_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with device_lock(CPU):
        (path,) = tmp_path.glob("*/*.lock")
        with pytest.raises(Timeout):
            FileLock(path).acquire(timeout=0)
    with FileLock(path).acquire(timeout=0):
        pass
