"""The container image, built and run for real: a Docker engine, a base without any registry, runs.

What a machine lacks is made where that can be done (root on Debian), and taken down again.
"""

from tests.container.base import base_image
from tests.container.build import Built, build
from tests.container.engine import EngineError, engine, lacking
from tests.container.run import Contained, Container

__all__ = [
    "Built",
    "Contained",
    "Container",
    "EngineError",
    "base_image",
    "build",
    "engine",
    "lacking",
]
