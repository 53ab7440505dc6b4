"""A real worker process is killed, again and again, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

from tests.kills.campaign import Campaign

KILLS = 50
SEED = 1


def test_fifty_kills_under_load_lose_no_workflow_and_repeat_no_recorded_step(database_url: str, tmp_path: Path) -> None:
    campaign = Campaign(database_url, tmp_path, SEED)
    try:
        for _ in range(KILLS):
            campaign.kill_once()
        assert campaign.caught > KILLS / 2, f"only {campaign.caught} kills caught workflows in the middle"
        campaign.finish()
    finally:
        campaign.close()
