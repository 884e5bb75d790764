"""The client of a worker in the session's own process: for an optimizer or an author's debugger, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.blackbox import wire
from harness.blackbox.client import RemoteBlackBox
from harness.blackbox.text_client import RemoteTextBlackBox
from harness.contract import TextTask

if TYPE_CHECKING:
    import socket

    from harness.blackbox.session import Session
    from harness.contract import Budget, ModelInfo, Shots, Task


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


class InProcessTextBlackBox(RemoteTextBlackBox):
    """A `RemoteTextBlackBox` whose frames go to a session in this process instead of a socket."""

    def __init__(self, session: Session, info: ModelInfo, task: TextTask, budget: Budget, shots: Shots) -> None:
        """Ask `session`. `task` gives what a query leaves out."""
        nowhere: Any = None
        sock: socket.socket = nowhere
        super().__init__(sock, info, task, budget, shots)
        self._session = session

    def _exchange(self, frame: bytes) -> bytes:
        return self._session.reply(frame[wire.PREFIX :])[wire.PREFIX :]


def in_process(
    session: Session, info: ModelInfo, task: Task | TextTask, budget: Budget, shots: Shots
) -> InProcessBlackBox | InProcessTextBlackBox:
    """The client for a task of either kind."""
    if isinstance(task, TextTask):
        return InProcessTextBlackBox(session, info, task, budget, shots)
    return InProcessBlackBox(session, info, task, budget)
