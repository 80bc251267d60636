"""Tests of what gets deployed to a server, under the same conditions. Namespaces and chroots need root."""

import os

import pytest

from machine import Booted, Machine


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            if "needs_root" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs root, for namespaces and chroots"))


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_root: makes namespaces or chroots")


@pytest.fixture
def machine(tmp_path):
    """A machine without an init."""
    folder = tmp_path / "machine"
    folder.mkdir()
    with Machine(folder) as machine:
        yield machine.with_devices()


@pytest.fixture
def booted(tmp_path):
    """One with systemd as its PID 1."""
    folder = tmp_path / "machine"
    folder.mkdir()
    with Booted(folder) as machine:
        yield machine
