"""HTTP servers for tests: ``BadServer`` says exactly what it is told, ``ImageServer`` serves files.

Both listen on the loopback only, run in threads, and end with their ``with`` block.
"""

from tests.servers.certificates import Authority
from tests.servers.images import ImageServer, Served
from tests.servers.raw import Action, BadServer, Break, Request, head

__all__ = ["Action", "Authority", "BadServer", "Break", "ImageServer", "Request", "Served", "head"]
