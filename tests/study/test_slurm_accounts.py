"""Accounts of a Slurm with accounting; small programs stand in for Slurm's commands."""

import pytest

from ablations.core.errors import UserError
from ablations.study.slurm import require_account, status_command


@pytest.fixture
def answering(monkeypatch, tmp_path):
    """Replaces commands by programs that print a text and exit with a code."""

    def answer(**programs: tuple[str, int]) -> None:
        for name, (text, code) in programs.items():
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return answer


def test_an_account_must_be_one_of_the_users_whatever_its_case(answering):
    answering(sacctmgr=("  physics\\n  Biology\\n", 0))
    require_account("biology")
    with pytest.raises(UserError, match=r"'ablations' is none of your accounts; give one of Biology, ph"):
        require_account("ablations")


def test_the_shares_know_accounts_that_the_database_does_not_list(answering):
    answering(sacctmgr=("", 0), sshare=("chemistry\\n", 0))
    require_account("chemistry")
    with pytest.raises(UserError, match="give one of chemistry"):
        require_account("physics")


def test_accounts_that_nobody_keeps_are_refused_as_the_executor_would(answering):
    answering(sacctmgr=("", 1), sshare=("not running a supported plugin\\n", 1))
    with pytest.raises(UserError, match=r"keeps accounts \(sshare: not running a supported plugin\)"):
        require_account("physics")


@pytest.mark.parametrize("configured", ["sacct", "squeue"])
def test_the_configured_command_stays_where_there_is_accounting(answering, configured):
    answering(sacct=("", 0))
    assert status_command(configured, 40) == configured
