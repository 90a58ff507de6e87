"""HTTP servers for tests: ``BadServer`` says exactly what it is told, ``ImageServer`` serves files.

``FaultProxy`` stands in front of a real service and lets requests fail. All listen on the loopback
only, run in threads, and end with their ``with`` block.
"""

from tests.servers.certificates import Authority
from tests.servers.faults import (
    Answer,
    Call,
    Cut,
    CutReply,
    EditReply,
    Exchange,
    Fault,
    Flip,
    FlipReply,
    Lose,
    When,
    redirect,
    stall,
)
from tests.servers.images import ImageServer, Served
from tests.servers.proxy import FaultProxy, Script, at, on
from tests.servers.raw import Action, BadServer, Break, Request, head

__all__ = [
    "Action",
    "Answer",
    "Authority",
    "BadServer",
    "Break",
    "Call",
    "Cut",
    "CutReply",
    "EditReply",
    "Exchange",
    "Fault",
    "FaultProxy",
    "Flip",
    "FlipReply",
    "ImageServer",
    "Lose",
    "Request",
    "Script",
    "Served",
    "When",
    "at",
    "head",
    "on",
    "redirect",
    "stall",
]
