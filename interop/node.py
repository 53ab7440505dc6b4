"""The TypeScript SDK as a black box: installed from npm when it is missing, and run with the programs of typescript/.

Its files are never read; its standard error, where its tracebacks show, goes to a file that nobody reads.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
SDK = "@dbos-inc/dbos-sdk"
SDK_VERSION = "5.3.0"
HOME = ROOT / ".node-interop"
PROGRAMS = Path(__file__).with_name("typescript")
INSTALL_SECONDS = 300
PATIENCE_SECONDS = 90


def missing() -> str | None:
    """Why the SDK cannot run on this machine, if it cannot."""
    absent = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    return f"needs {' and '.join(absent)} (Node.js 20 or later), not found on this machine" if absent else None


def install() -> None:
    """Make the folder with the SDK when it is not there in this version, and put the programs into it."""
    note = HOME / "installed"
    if not note.exists() or note.read_text(encoding="utf-8") != SDK_VERSION:
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir()
        package = {"name": "interop", "private": True, "type": "module", "dependencies": {SDK: SDK_VERSION}}
        (HOME / "package.json").write_text(json.dumps(package), encoding="utf-8")
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel", "error"]
        subprocess.run(command, cwd=HOME, check=True, timeout=INSTALL_SECONDS)
        note.write_text(SDK_VERSION, encoding="utf-8")
    for program in PROGRAMS.glob("*.mjs"):
        # A program finds the packages of the folder in which it is.
        shutil.copy(program, HOME)


@contextmanager
def running(program: str, *arguments: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A Node.js process while the block lasts, with its input and output open."""
    with (directory / f"{program}.stderr").open("ab") as errors:
        process = subprocess.Popen(
            ["node", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            cwd=HOME,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


class ForeignError(Exception):
    """What the SDK has raised. `type` is its class; the rest is what a portable error carries."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.type: str = error["type"]
        self.name: str = error["name"]
        self.code: Any = error.get("code")
        self.data: Any = error.get("data")


@dataclass
class Answered:
    value: Any
    at_seconds: float


@dataclass
class Remote:
    """The process of remote.mjs: clients of the SDK, told what to do from here."""

    output: IO[str]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, Future[Answered]] = field(default_factory=dict)

    def client(self, url: str) -> ForeignClient:
        return ForeignClient(self, url)

    def begin(self, url: str, method: str, arguments: tuple[Any, ...]) -> Future[Answered]:
        number = next(self._numbers)
        future = self._waiting[number] = Future()
        request = {"id": number, "url": url, "method": method, "args": arguments}
        self.output.write(f"{json.dumps(request)}\n")
        self.output.flush()
        return future

    def listen(self, replies: IO[str]) -> None:
        """Hand every reply to who waits for it, until the process ends."""
        for line in replies:
            reply = json.loads(line)
            future = self._waiting.pop(reply["id"])
            if "error" in reply:
                future.set_exception(ForeignError(reply["error"]))
            else:
                future.set_result(Answered(reply["value"], reply["at"]))
        for future in self._waiting.values():
            future.set_exception(EOFError("remote.mjs has ended"))


@dataclass
class ForeignClient:
    """A DBOSClient of the TypeScript SDK. Its methods, and those that remote.mjs adds, are called by name."""

    remote: Remote
    url: str

    def begin(self, method: str, *arguments: Any) -> Future[Answered]:
        return self.remote.begin(self.url, method, arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        return self.begin(method, *arguments).result(PATIENCE_SECONDS).value


@contextmanager
def remote(directory: Path) -> Iterator[Remote]:
    with running("remote.mjs", directory=directory) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == '"ready"\n'
        remote = Remote(process.stdin)
        listener = threading.Thread(target=remote.listen, args=(process.stdout,), daemon=True)
        listener.start()
        yield remote
        process.kill()
        listener.join()
