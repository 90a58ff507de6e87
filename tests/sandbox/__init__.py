"""A real OpenStack identity and image service on this machine, for tests and for trying things.

Everything it runs belongs to it alone: its services listen on loopback ports of their own,
keep their records in a temporary directory and are gone when it is taken down.
"""

from tests.sandbox.cloud import Sandbox
from tests.sandbox.identity import ApplicationCredential, Credentials
from tests.sandbox.image_service import Request
from tests.sandbox.service import SandboxError

__all__ = ["ApplicationCredential", "Credentials", "Request", "Sandbox", "SandboxError"]
