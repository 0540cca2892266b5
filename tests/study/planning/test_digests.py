"""What determines results besides their specs."""

import re

import pytest

from ablations.core.errors import UserError
from ablations.study.planning.digests import Pins


def test_a_line_that_is_no_pin_is_named(tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text("torch==2.13.0\nnumpy>=1\n")
    with pytest.raises(UserError, match=re.escape(f"{path}:2: 'numpy>=1' is not an exact pin")):
        Pins.read(path)
