"""One relay for all tests without special needs, and a factory for the others."""

import itertools

import pytest

from agents import Agent
from bots import Bot
from manager import Manager
from relay import GENEROUS, Relay


@pytest.fixture(scope="session")
def relay(tmp_path_factory):
    """A relay with two shards and no message rates."""
    relay = Relay(tmp_path_factory.mktemp("relay"), *GENEROUS).start()
    yield relay
    assert relay.running(), f"the relay ended by itself with {relay.process.returncode}:\n{relay.log()}"
    relay.stop()


@pytest.fixture
def start_relay(tmp_path):
    """Starts relays with flags of their own; those that still run at the end must stop with exit code 0."""
    started = []
    numbers = itertools.count()

    def start(*flags, spawn_only=False, directory=None, **options):
        if directory is None:
            directory = tmp_path / f"relay-{next(numbers)}"
            directory.mkdir()
        relay = Relay(directory, *flags, **options)
        started.append(relay)
        return relay.spawn() if spawn_only else relay.start()

    yield start
    failures = []
    for relay in started:
        if relay.running():
            try:
                relay.stop()
            except AssertionError as failure:
                failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture
def start_agent(tmp_path, relay):
    """Starts agents of the relay for all tests."""
    started = []

    def start(*flags, env=None, under=()):
        folder = tmp_path / f"agent-{len(started)}"
        folder.mkdir()
        started.append(Agent(folder, f"ws://127.0.0.1:{relay.port}", *flags, env=env, under=under))
        return started[-1]

    yield start
    for agent in started:
        if agent.process.poll() is None:
            agent.kill()


@pytest.fixture
def start_bot(tmp_path, relay):
    started = []

    def start(*flags, **options):
        folder = tmp_path / f"bot-{len(started)}"
        folder.mkdir()
        started.append(Bot(folder, f"ws://127.0.0.1:{relay.port}", *flags, **options))
        return started[-1]

    yield start
    for bot in started:
        if bot.process.poll() is None:
            bot.kill()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()
