"""Tests of what gets deployed to a server, under the same conditions. Namespaces and chroots need root."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            if "needs_root" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs root, for namespaces and chroots"))


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_root: makes namespaces or chroots")
