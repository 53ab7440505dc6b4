"""What an execution knows of its mailbox without looking."""

from __future__ import annotations

from dbos.engine.mailbox import Mailbox
from dbos.engine.signals import Signals
from dbos.types import StoredMessage

KEY = ("message", ("w", "topic"))


def message(name: str) -> StoredMessage:
    return StoredMessage(name, '"text"', "portable_json")


def looked_into(*found: StoredMessage, listens: bool = True) -> Mailbox:
    mailbox = Mailbox(KEY)
    mailbox.listens = listens
    mailbox.window = 4
    mailbox.fill(found, mailbox.begin_look())
    return mailbox


def test_after_a_look_that_found_nothing_a_mailbox_is_empty_until_something_comes() -> None:
    mailbox = Mailbox(KEY)
    mailbox.listens = True
    assert not mailbox.is_empty, "nobody has looked"
    mailbox = looked_into()
    assert mailbox.is_empty
    mailbox.fire(message("a"))
    assert not mailbox.is_empty


def test_a_mailbox_that_does_not_listen_is_never_known_to_be_empty() -> None:
    assert not looked_into(listens=False).is_empty


def test_what_came_with_its_signal_and_is_received_leaves_it_empty() -> None:
    mailbox = looked_into()
    mailbox.fire(message("a"))
    mailbox.fire(message("b"))
    for name in ("a", "b"):
        assert not mailbox.is_empty
        claimed = mailbox.claim(message(name))
        assert claimed is not None
        mailbox.give_back(claimed)
    assert mailbox.is_empty


def test_what_was_found_has_to_be_received_first() -> None:
    mailbox = looked_into(message("a"))
    assert not mailbox.is_empty
    taken = mailbox.take()
    assert taken is not None
    mailbox.give_back(taken)
    assert mailbox.is_empty


def test_a_signal_without_its_message_asks_for_a_look() -> None:
    mailbox = looked_into()
    mailbox.fire()
    assert not mailbox.is_empty


def test_a_look_that_may_have_missed_something_does_not_count() -> None:
    mailbox = looked_into(*(message(str(number)) for number in range(4)))
    while mailbox.take():
        pass
    assert not mailbox.is_empty, "the window was full"

    mailbox = looked_into()
    look = mailbox.begin_look()
    mailbox.fire()
    mailbox.fill([], look)
    assert not mailbox.is_empty, "something came while it was read"

    mailbox = looked_into()
    look = mailbox.begin_look()
    later = mailbox.begin_look()
    mailbox.fill([], look)
    assert not mailbox.is_empty, "a later look is under way, and forgot what was announced since"
    mailbox.fill([], later)
    assert mailbox.is_empty


def test_one_listens_to_a_key_and_hears_of_it_before_those_who_wait() -> None:
    signals = Signals()
    first, second = Mailbox(KEY), Mailbox(KEY)
    assert signals.listen(first, KEY)
    assert not signals.listen(second, KEY)
    first.listens = True
    first.fill([], first.begin_look())
    assert signals.awaited("message") == []
    heard: list[bool] = []
    with signals.watch(KEY) as waiter:
        waiter.install(lambda: heard.append(first.is_empty))
        signals.fire(*KEY, message("a"))
    assert heard == [False]
    signals.unlisten(KEY)
    assert signals.listen(second, KEY)


def test_something_of_a_kind_concerns_those_who_listen_too() -> None:
    signals = Signals()
    mailbox = looked_into()
    signals.listen(mailbox, KEY)
    signals.fire_kind("message")
    assert not mailbox.is_empty
