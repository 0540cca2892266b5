"""Shared by all tests: one thread, quiet libraries, no network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items):
    """The workflow's tests, minutes each, come first: at the end one process would wait for the other's."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")
