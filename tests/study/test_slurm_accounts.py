"""Accounts of a Slurm that keeps them: small programs answer, as its database is not installed for tests."""

import pytest

from ablations.study.errors import UserError
from ablations.study.planning.slurm import require_account, status_command


@pytest.fixture
def answering(monkeypatch, tmp_path):
    """Have commands answer: by name, what they print and their exit code."""

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


@pytest.mark.parametrize("asked", ["sacct", "squeue"])
def test_what_the_site_chose_stays_where_there_is_accounting(answering, asked):
    answering(sacct=("", 0))
    assert status_command(asked, 40) == asked
