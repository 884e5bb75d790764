"""A PostgreSQL server for tests: Debian's own binaries, in a directory of its own, as a user that is not root."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

USER = "harness"


class Unavailable(Exception):  # noqa: N818 - a reason to skip
    """Why there is no server here."""


def binaries() -> Path:
    """The newest installed ones.

    Raises:
        Unavailable: there are none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise Unavailable("no PostgreSQL server is installed; apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


class Server:
    """Listens on a socket in its own directory without a password, and on a loopback port with one."""

    def __init__(self) -> None:
        """Make a cluster and start it.

        Raises:
            Unavailable: nothing is installed, or root has nobody to run it as.
        """
        self._bin, self._numbers = binaries(), itertools.count()
        self._as: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
        self.data = self.folder / "data"
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise Unavailable("root cannot run PostgreSQL, and there is no user postgres") from None
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self.password = "s3cret%word"  # noqa: S105 - of a server that lives for a minute
        secret = self.folder / "password"
        secret.write_text(self.password, encoding="utf-8")
        secret.chmod(0o644)
        self._run(
            "initdb", "-D", str(self.data), "-U", USER, "--auth-local=trust", "--auth-host=scram-sha-256",
            f"--pwfile={secret}", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers; after a kill, until the older one's processes have gone."""
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder,
            "fsync": "off", "max_connections": 60, "shared_buffers": "16MB", "jit": "off",
        }  # fmt: skip
        command = [*self._as, str(self._bin / "postgres"), "-D", str(self.data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
            while self.process.poll() is None and time.monotonic() < until:
                ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
                if subprocess.run(ready, check=False).returncode == 0:
                    return
                time.sleep(0.05)
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text(encoding="utf-8", errors="replace")[-4000:])

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT in order, SIGQUIT at once as in a crash, SIGKILL without a chance to do anything."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(30)

    def database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"results{next(self._numbers)}"
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def url(self, database: str) -> str:
        """URL of a database, through the socket."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}&port={self.port}"

    def url_with_password(self, database: str, password: str) -> str:
        """URL of a database, through the loopback port; `password` percent-encoded."""
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        """End it and remove its directory."""
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr
