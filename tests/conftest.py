"""Shared by all tests: one thread, quiet libraries, no network, nothing of this machine's user."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Of this process alone, and short: the path of a Unix socket in it may have 107 characters.
_FOLDER = tempfile.TemporaryDirectory(prefix="t-")
# Slurm's daemons refuse a socket in a folder that others cannot enter.
Path(_FOLDER.name).chmod(0o755)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = f"{_FOLDER.name}/huggingface"
if not os.environ.get("ABLATIONS_TEST_GPU"):
    # A process keeps the GPU that it claimed to its end, and a second one of pytest would wait for it.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# What a user's profile or the scheduler that runs the tests says is not for the jobs under test.
_FOREIGN = ("SNAKEMAKE_PROFILE", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
for _name in [*os.environ]:
    if _name in _FOREIGN or _name.startswith("SLURM_"):
        del os.environ[_name]

settings.register_profile("repeatable", derandomize=True, print_blob=True)
settings.load_profile("repeatable")


def pytest_make_parametrize_id(val, argname):
    """No bytes in a test's name: a compressed file holds the time, so that two processes would disagree."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items):
    """The workflow's tests, minutes each, come first: at the end one process would wait for the other's."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory) -> Iterator[None]:
    """Temporary files, and with them the locks of devices, apart from real measurements on this machine."""
    # Pytest's own folders stay where whoever looks into a failure expects them.
    tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", _FOLDER.name)
        patch.setattr(tempfile, "tempdir", _FOLDER.name)
        yield
