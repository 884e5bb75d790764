"""The client of a worker in the session's own process: for an optimizer or an author's debugger, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.blackbox import wire
from harness.blackbox.client import RemoteBlackBox

if TYPE_CHECKING:
    import socket

    from harness.blackbox.session import Session
    from harness.contract import Budget, ModelInfo, Task


class InProcessBlackBox(RemoteBlackBox):
    """A `RemoteBlackBox` whose frames go to a session in this process instead of a socket."""

    def __init__(self, session: Session, info: ModelInfo, task: Task, budget: Budget) -> None:
        """Ask `session`. `task` gives the default template and words."""
        nowhere: Any = None
        sock: socket.socket = nowhere
        super().__init__(sock, info, task, budget)
        self._session = session

    def _exchange(self, frame: bytes) -> bytes:
        return self._session.reply(frame[wire.PREFIX :])[wire.PREFIX :]
