"""Fresh ids are UUIDs of version 7 (RFC 9562)."""

import threading
import uuid
from unittest.mock import patch

import pytest

from dbos import ids


@pytest.fixture(autouse=True)
def first_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)


def test_an_id_is_a_uuid_of_version_7_in_its_usual_form() -> None:
    for _ in range(100):
        text = ids.new_id()
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        (b"\xff" * 10, "01234567-89ab-7fff-bfff-ffffffffffff"),
        (b"\x00" * 10, "01234567-89ab-7000-8000-000000000000"),
    ],
)
def test_all_bits_but_those_of_the_time_and_the_version_are_random(random: bytes, expected: str) -> None:
    with patch("time.time_ns", return_value=0x0123456789AB * 1_000_000), patch("os.urandom", return_value=random):
        assert ids.new_id() == expected


def test_ids_grow_within_a_millisecond_from_one_to_the_next_and_when_the_clock_steps_back() -> None:
    made = []
    for time_ns in (1_700_000_000_001_000_000, 1_700_000_000_002_000_000, 1_600_000_000_000_000_000):
        with patch("time.time_ns", return_value=time_ns):
            made += [ids.new_id() for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(uuid.UUID(text).version == 7 for text in made)


def test_ids_made_together_are_like_others() -> None:
    made = [ids.new_id(), *ids.new_ids(1000), ids.new_id(), *ids.new_ids(1000), ids.new_id()]
    assert made == sorted(set(made))
    assert all(uuid.UUID(text).version == 7 for text in made)
    assert ids.new_ids(0) == []


def test_threads_never_make_the_same_id() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def make(own: list[str]) -> None:
        own.extend(ids.new_id() for _ in range(5000))

    threads = [threading.Thread(target=make, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({text for own in made for text in own}) == 20_000
    assert all(own == sorted(own) for own in made)


def test_an_owner_token_is_a_uuid_that_begins_with_the_name_of_its_process() -> None:
    process = ids.new_process()
    new_token = ids.tokens_of(process)
    tokens = [new_token() for _ in range(1000)]
    assert len(set(tokens)) == 1000
    for token in tokens:
        parsed = uuid.UUID(token)
        assert str(parsed) == token
        # Version 8: nobody else's, since those with random content are of version 4 and those with the time of 7.
        assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
        assert token[:18] == process


def test_a_process_has_a_key_of_60_bits() -> None:
    names = {ids.new_process() for _ in range(1000)}
    assert len({ids.process_key(name) for name in names}) == len(names) == 1000
    assert ids.process_key("12345678-9abc-8def") == 0x123456789ABCDEF
    assert ids.process_key("ffffffff-ffff-8fff") == 2**60 - 1
