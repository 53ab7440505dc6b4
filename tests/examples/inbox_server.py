"""The agent inbox as a process that can be killed, and the browser that looks at it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.helpers import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1180,900",
]


class Server:
    """`python -m agent_inbox` on a free port, which it keeps when it is started again."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.outbox = directory / "outbox"
        self.log = directory / "server.log"
        self._directory = directory
        self._database_url = database_url
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self, token_seconds: float = 0.005) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "examples" / "agent-inbox"), str(ROOT / "src")]),
            "INBOX_DATA": str(self._directory),
            "INBOX_DATABASE_URL": self._database_url,
            "INBOX_TOKEN_SECONDS": str(token_seconds),
        }
        command = [sys.executable, "-m", "agent_inbox", "--port", str(self._port)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("Agent inbox: http://127.0.0.1:"), line + self.log.read_text()
        self._port = httpx.URL(line.split()[-1]).port or 0

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        assert self._process is not None
        self._process.kill()
        self._reap(self._process)

    def stop(self) -> int | None:
        """The exit code after SIGTERM; None if it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return None
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            self._reap(process)
        return process.returncode

    def _reap(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def sent(self) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in self.outbox.glob("*.txt")]


class Browser:
    """A headless Chromium that shows the page."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))

    def close(self) -> None:
        self.driver.quit()

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.wait_until(lambda: self.all("#letter option"))

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def texts(self, selector: str) -> list[str]:
        return [found.text for found in self.all(selector)]

    def sees(self, selector: str) -> bool:
        return any(found.is_displayed() for found in self.all(selector))

    def script(self, text: str) -> Any:
        return self.driver.execute_script(text)

    def wait_until(self, condition: Callable[[], Any]) -> Any:
        """The first true answer of the condition."""
        return WebDriverWait(self.driver, PATIENCE_SECONDS, poll_frequency=0.02).until(lambda _: condition())

    def severe_messages(self) -> list[str]:
        """Errors in its console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def received(self) -> list[int]:
        """The ids of the server-sent events it got, since this was last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        events = [m["params"] for m in messages if m["method"] == "Network.eventSourceMessageReceived"]
        return [int(event["eventId"]) for event in events if event["eventName"] == "message"]
