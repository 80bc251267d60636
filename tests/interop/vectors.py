"""The test vectors of clients/vectors, and the randomness that they were made with."""

import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "clients/vectors"


def read(name):
    return json.loads((FOLDER / name).read_text())


def drawn(*values):
    """A source of randomness that gives out these values (hex), in this order, and no more."""
    values = [bytes.fromhex(value) for value in values]

    def random(count):
        value = values.pop(0)
        assert len(value) == count
        return value

    return random
