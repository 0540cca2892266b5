"""Every command line of the package says what it does and gives an example."""

import re
import runpy
import sys

import pytest

from ablations.__main__ import main, runnable

MODULES = dict(runnable())


def test_jobs_and_tools_are_listed_with_a_line_each(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablations"])
    main()
    shown = capsys.readouterr().out
    assert {"ablations.study", "ablations.sdtp.evaluate", "ablations.dynatree.decode"} <= set(MODULES)
    for name, about in MODULES.items():
        assert f"{name} " in shown and about in shown


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_each_has_help_with_an_example(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    shown = " ".join(capsys.readouterr().out.split())
    # The one command with two modules gives the example of the other.
    assert re.search(rf"example: python -m ({re.escape(name)}|ablations.dynatree.decode) \S", shown)
