"""Waiters: woken once, by key, by kind, or by the end of everything; never missed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dbos.engine.signals import Signals, Waiter
from tests.helpers import PATIENCE_SECONDS


def test_a_waiter_is_woken_by_its_key_and_gets_the_value() -> None:
    signals = Signals()
    with signals.watch(("finished", "w")) as waiter:
        signals.fire("finished", "other")
        signals.fire("cancelled", "w")
        assert not waiter.fired
        signals.fire("finished", "w", 42)
        assert waiter.fired
        signals.fire("finished", "w", 43)
        assert waiter.value == 42
        assert waiter.sleep(None)


def test_a_waiter_may_wait_for_several_keys() -> None:
    signals = Signals()
    for kind in ("finished", "cancelled"):
        with signals.watch(("finished", "w"), ("cancelled", "w")) as waiter:
            signals.fire(kind, "w", kind)
            assert (waiter.fired, waiter.value) == (True, kind)


def test_a_waiter_is_deaf_while_its_condition_holds_but_not_to_the_end_of_everything() -> None:
    """An execution does not take a signal for an earlier one of the same workflow for its own."""
    signals = Signals()
    deaf = True
    with signals.watch(("cancelled", "w"), unless=lambda: deaf) as waiter:
        signals.fire("cancelled", "w")
        assert not waiter.fired
        deaf = False
        signals.fire("cancelled", "w")
        assert waiter.fired
    deaf = True
    with signals.watch(("cancelled", "w"), unless=lambda: deaf) as waiter:
        signals.close()
        assert waiter.fired


def test_every_waiter_of_a_key_is_woken() -> None:
    signals = Signals()
    with signals.watch(("finished", "w")) as one, signals.watch(("finished", "w")) as other:
        signals.fire("finished", "w", 1)
        assert (one.value, other.value) == (1, 1)


def test_a_kind_wakes_all_its_keys() -> None:
    signals = Signals()
    with signals.watch(("finished", "a")) as a, signals.watch(("finished", "b")) as b, signals.watch(("c", "a")) as c:
        signals.fire_kind("finished")
        assert (a.fired, b.fired, c.fired) == (True, True, False)


def test_nothing_is_left_of_a_watch_that_ended() -> None:
    signals = Signals()
    with (
        signals.watch(("finished", "a"), ("finished", "b"), ("finished", "a")) as waiter,
        signals.watch(("finished", "b")),
    ):
        assert sorted(signals.awaited("finished")) == ["a", "b"]
        assert signals.awaited("cancelled") == []
    with pytest.raises(KeyError), signals.watch(("finished", "c")):
        raise KeyError
    assert signals.awaited("finished") == []
    signals.fire("finished", "a")
    assert not waiter.fired


def test_closing_wakes_everybody_and_everybody_who_comes_later() -> None:
    signals = Signals()
    with signals.watch(("finished", "w")) as early:
        signals.close()
        assert early.fired
    with signals.watch(("cancelled", "v")) as late:
        assert late.fired
        assert late.sleep(None)


def test_registering_is_told_to_whoever_watches_for_it() -> None:
    signals = Signals()
    seen: list[list[str]] = []
    signals.on_register = lambda: seen.append(signals.awaited("finished"))
    with signals.watch(("finished", "w")):
        assert seen == [["w"]]


def test_a_sleeping_thread_is_woken() -> None:
    signals = Signals()
    found: list[bool] = []
    with signals.watch(("finished", "w")) as waiter:
        thread = threading.Thread(target=lambda: found.append(waiter.sleep(PATIENCE_SECONDS)))
        thread.start()
        signals.fire("finished", "w")
        thread.join(PATIENCE_SECONDS)
    assert found == [True]


@pytest.mark.parametrize("seconds", [0, -5.0, 0.001])
def test_a_sleep_ends_when_its_time_is_up(seconds: float) -> None:
    assert Waiter().sleep(seconds) is False


def test_a_sleep_may_be_longer_than_the_system_can_count() -> None:
    class Fired(Waiter):
        """Fires as soon as somebody sleeps on it."""

        __slots__ = ()

        def install(self, wake: Callable[[], None] | None) -> bool:
            installed = super().install(wake)
            self.fire()
            return installed

    assert Fired().sleep(2**63 / 1000) is True


def test_firing_before_and_after_installing_wakes() -> None:
    waiter = Waiter()
    woken: list[str] = []
    assert waiter.install(lambda: woken.append("first"))
    assert waiter.install(lambda: woken.append("second")), "the later one replaces the earlier"
    waiter.fire("first")
    assert (woken, waiter.value) == (["second"], "first")
    # The first time may have been interrupted.
    waiter.fire("again")
    assert (woken, waiter.value) == (["second", "second"], "first")
    assert not waiter.install(lambda: woken.append("late"))
    uninstalled = Waiter()
    uninstalled.install(lambda: woken.append("never"))
    uninstalled.install(None)
    uninstalled.fire()
    uninstalled.fire()
    assert woken == ["second", "second"]
