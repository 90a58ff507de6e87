"""Fuzzing: random histories of a whole cloud, and random bytes for everything that reads bytes.

- ``market``: what publishers publish, and how it goes wrong
- ``line``: a run's connection to the store, which can break at any call and watches every one
- ``machine``: the state machine whose steps are publications, edits by hand, runs and crashes
- ``targets``: one entry point per parser, with its corpus; ``mutate`` makes variants of documents

``python3 -m tests.fuzz --help`` tells of the long campaigns.
"""
