"""A relay's /metrics, read."""

import asyncio
import re

import http1
from relay import free_port

SAMPLE = re.compile(r"^([a-z_0-9]+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """What /metrics said: samples by name and labels, kinds and help texts by name."""

    def __init__(self, text):
        self.text = text
        self.samples, self.kinds, self.helps = {}, {}, {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ", 3)
                assert name not in self.kinds, f"{name} has two TYPE lines"
                self.kinds[name] = kind
            elif line.startswith("# HELP "):
                _, _, name, text = line.split(" ", 3)
                self.helps[name] = text
            elif line:
                name, labels, value = SAMPLE.match(line).groups()
                key = (name, frozenset(LABEL.findall(labels or "")))
                assert key not in self.samples, f"{line} stands twice"
                self.samples[key] = float(value)

    def get(self, name, /, **labels):
        """The sum of all samples of `name` that have these labels."""
        found = [
            value
            for (sample, has), value in self.samples.items()
            if sample == name and set(labels.items()) <= has
        ]
        assert found, f"no {name} with {labels} in\n{self.text}"
        return sum(found)


async def scrape(port):
    answer = await http1.request(port, "GET", "/metrics")
    assert answer.status == 200
    return Scrape(answer.body.decode())


async def scrape_until(port, holds):
    """Scrapes until the figures are there: shards publish theirs once a second."""
    for _ in range(100):
        figures = await scrape(port)
        if holds(figures):
            return figures
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within 10 s:\n{figures.text}")


def measured(start_relay, *flags):
    """A relay that shows its metrics, and the port on which it does."""
    port = free_port()
    return start_relay("--metrics-addr", f"127.0.0.1:{port}", *flags), port
