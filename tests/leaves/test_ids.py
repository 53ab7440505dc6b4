"""Fresh ids are UUIDs of version 7 (RFC 9562)."""

import uuid
from unittest.mock import patch

from dbos import ids


def test_an_id_is_a_uuid_of_version_7_in_its_usual_form() -> None:
    for _ in range(100):
        text = ids.new_id()
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)


def test_all_bits_but_those_of_the_time_and_the_version_are_random() -> None:
    with patch("time.time_ns", return_value=0x0123456789AB * 1_000_000):
        with patch("os.urandom", return_value=b"\xff" * 10):
            assert ids.new_id() == "01234567-89ab-7fff-bfff-ffffffffffff"
        with patch("os.urandom", return_value=b"\x00" * 10):
            assert ids.new_id() == "01234567-89ab-7000-8000-000000000000"


def test_ids_of_the_same_millisecond_differ_and_later_ones_sort_behind() -> None:
    with patch("time.time_ns", return_value=1_700_000_000_000_000_000):
        early = {ids.new_id() for _ in range(1000)}
    with patch("time.time_ns", return_value=1_700_000_000_001_000_000):
        late = ids.new_id()
    assert len(early) == 1000
    assert max(early) < late
