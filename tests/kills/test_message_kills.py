"""Several processes that send each other messages and are killed: nothing is lost, doubled or out of order."""

from __future__ import annotations

from pathlib import Path

from tests.kills.message_campaign import FEWEST_KILLS, MessageCampaign

PAIRS = 8
MESSAGES = 4096
SEED = 1


def test_each_message_is_received_once_and_in_order_whoever_is_killed(database_url: str, tmp_path: Path) -> None:
    """04 section 2.4, section 12, 3."""
    campaign = MessageCampaign(database_url, tmp_path, SEED, PAIRS, MESSAGES)
    campaign.run()
    print(campaign.report())
    assert campaign.kills >= FEWEST_KILLS
