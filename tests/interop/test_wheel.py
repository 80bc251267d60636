"""The Python package as it is installed: its wheel in fresh environments, with the oldest and newest that it takes."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

from agents import Phone
from bots import Bot, answered, coralmux
from coralmux import Protection
from environments import PACKAGE, environment, pythons, wheel

LOWEST = "websockets==13.0", "cryptography==42.0.0", "segno==1.5.2"  # as pyproject.toml has them
ENDS = [("lowest", min(pythons()), LOWEST), *(("newest", minor, ()) for minor in {min(pythons()), max(pythons())})]


@pytest.mark.parametrize(("name", "minor", "requirements"), ENDS, ids=lambda value: str(value))
async def test_an_agent_from_the_wheel_answers(relay, tmp_path, name, minor, requirements):
    python = environment(name, *requirements, minor=minor)
    bot = Bot(tmp_path, f"ws://127.0.0.1:{relay.port}", python=python)
    try:
        async with Phone(bot.link()) as phone:
            await phone.ask("ask")
            await answered(phone)
            await phone.ask("yes")
            end = (await answered(phone))[1]
            assert (end.payload["full_text"], end.protection) == ("You said Allow once", Protection.VERIFIED)
        bot.stop()
    finally:
        bot.kill()


def test_the_wheel_has_the_package_and_nothing_else():
    with zipfile.ZipFile(wheel()) as file:
        names = file.namelist()
        [metadata] = [file.read(name).decode() for name in names if name.endswith("METADATA")]
        [scripts] = [file.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"coralmux"}
    assert not [name for name in names if "test" in name or "__pycache__" in name]
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert sorted(required) == [
        "Requires-Dist: cryptography>=42",
        "Requires-Dist: segno>=1.5.2",
        "Requires-Dist: websockets>=13",
    ]
    assert "coralmux = coralmux.cli:main" in scripts


def test_the_installed_command_says_its_version():
    python = environment("newest", minor=min(pythons()))
    command = [pathlib.Path(python).with_name("coralmux"), "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "0.1.0\n"
    refused = coralmux("link", "--relay", "nonsense", python=python)
    assert refused.stderr.startswith("coralmux: a relay's address begins with wss://")


def test_its_types_are_right_and_go_along():
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=PACKAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(wheel()) as file:
        assert "coralmux/py.typed" in file.namelist()
