"""The page of the agent inbox in a real browser, while the server is killed and started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

from tests.examples.inbox_server import CHROMIUM, DRIVER, Browser, Server
from tests.helpers import rows

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="Chromium and its driver are not installed (on Debian: apt-get install chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.severe_messages()
    chromium.received()
    yield chromium
    chromium.driver.get("about:blank")


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Server]:
    server = Server(tmp_path, database_url)
    yield server
    server.stop()
    assert "Traceback" not in server.log.read_text()


def start_agent(browser: Browser, letter: str) -> None:
    Select(browser.one("#letter")).select_by_value(letter)
    browser.one("#start button").click()


def test_a_person_approves_after_two_kills_and_one_letter_is_sent(
    browser: Browser, server: Server, database_url: str
) -> None:
    server.start(token_seconds=0.3)
    browser.open(server.url)
    browser.script("window.neverReloaded = true")
    start_agent(browser, "dented-kettle")

    # Token by token.
    seen = browser.wait_until(lambda: browser.text("#draft"))
    grown = browser.wait_until(lambda: browser.text("#draft") != seen and browser.text("#draft"))
    assert grown.startswith(seen)
    assert browser.texts("#steps .what") == ["plan", "find the order", "read the policy"]
    assert browser.text("#phase") == "Drafting"
    assert not browser.sees("#decision")

    # Killed in the middle of the draft: that step is run again, and no other.
    server.kill()
    browser.wait_until(lambda: browser.text("#connection"))
    server.start()
    browser.wait_until(lambda: browser.sees("#decision"))
    browser.wait_until(lambda: not browser.text("#connection"))
    assert browser.texts("#steps .what") == ["plan", "find the order", "read the policy", "draft again"]
    draft = browser.text("#draft")
    assert draft.count("Dear Mara") == 1
    assert draft.endswith("the coffee desk")
    browser.wait_until(lambda: browser.text("#summary") == "1 letter waits for you")
    assert "left" in browser.text("#waiting .phase")

    # Killed while it waits.
    server.kill()
    browser.wait_until(lambda: browser.text("#connection"))
    assert browser.sees("#decision")
    server.start()
    browser.wait_until(lambda: not browser.text("#connection"))

    ActionChains(browser.driver).double_click(browser.one("#approve")).perform()
    browser.wait_until(lambda: browser.sees("#outcome"))
    assert browser.text("#outcome") == "Approved, and sent."
    browser.wait_until(lambda: browser.texts("#done .phase") == ["Sent"])
    assert not browser.sees("#decision")
    assert browser.script("return window.neverReloaded") is True
    (sent,) = server.sent()
    assert sent.startswith("To: Mara Lindqvist\n")
    assert draft.split("\n")[0] in sent
    assert len(rows(database_url, "SELECT message_uuid FROM notifications")) == 1

    # Over three connections each entry came once: the browser has said which one it had seen last.
    received = browser.received()
    assert received == list(range(len(received)))
    assert len(received) > 60

    # Everything is still there for a browser that comes new.
    browser.driver.refresh()
    browser.wait_until(lambda: browser.sees("#outcome"))
    # The outcome is in the list, the draft comes with the stream.
    browser.wait_until(lambda: browser.text("#draft") == draft)


def test_what_was_rejected_or_has_expired_is_not_sent(browser: Browser, server: Server) -> None:
    server.start()
    browser.open(server.url)
    assert browser.script("return [...document.querySelectorAll('input, select')].every((e) => e.labels.length)")

    start_agent(browser, "old-grinder")
    browser.wait_until(lambda: browser.sees("#decision"))
    browser.one("#note").send_keys("we do <b>refund</b>")
    browser.one("#reject").click()
    browser.wait_until(lambda: browser.sees("#outcome"))
    assert browser.text("#outcome") == "Rejected. Nothing was sent. Note: we do <b>refund</b>"
    assert browser.text("#announcement") == "Rejected"

    request = {"id": "quick", "letter": "late-beans", "approval_seconds": 0.5}
    httpx.post(f"{server.url}api/agents", json=request).raise_for_status()
    browser.wait_until(lambda: sorted(browser.texts("#done .phase")) == ["Expired", "Rejected"])
    browser.one("#done [data-agent=quick]").click()
    browser.wait_until(lambda: browser.text("#outcome") == "Nobody decided in time. Nothing was sent.")
    assert browser.text("#subject") == "Where are my beans?"
    assert browser.one("#done [data-agent=quick]").get_attribute("aria-current") == "true"

    assert server.sent() == []
    assert browser.severe_messages() == []


def test_the_server_stops_though_a_browser_reads_along(browser: Browser, server: Server) -> None:
    server.start()
    browser.open(server.url)
    start_agent(browser, "decaf-question")
    browser.wait_until(lambda: browser.sees("#decision"))
    assert server.stop() is not None
    server.start()
    browser.one("#approve").click()
    browser.wait_until(lambda: browser.text("#outcome") == "Approved, and sent.")
