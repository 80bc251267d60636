"""Alert rules and dashboard against a real Prometheus that scrapes a real relay with traffic on it."""

import asyncio
import contextlib
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from certificates import certificate, tls_flags
from client import Client, pair, sized
from metrics import measured, scrape_until
from nats import Nats
from relay import GENEROUS, ROOT, free_port

RULES = ROOT / "deploy" / "prometheus" / "coralmux.rules.yml"
RULE_TESTS = ROOT / "deploy" / "prometheus" / "coralmux.rules.test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "coralmux.json"
# What has nothing to show while all goes well: only its metrics have to exist.
QUIET = ("> 0", "failures_total")


def expressions():
    """All queries of the dashboard, as Grafana would send them."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 50
    return [query.replace("$__rate_interval", "5s").replace("$instance", ".*") for query in queries]


def metrics_named(text):
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bcoralmux_\w+", text)}


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules_and_fire_on_what_they_are_for():
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULE_TESTS)
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    tested = set(re.findall(r"name: (Coralmux\w+)", RULE_TESTS.read_text()))
    assert alerts == tested
    documented = set(re.findall(r"^\| `(Coralmux\w+)` \|", (ROOT / "docs" / "operations" / "monitoring.md").read_text(), re.M))
    assert documented == alerts, "docs/operations/monitoring.md says what to do for each alert"


class Prometheus:
    """A real one, with the alert rules, that scrapes one relay each second."""

    def __init__(self, directory, target):
        self.port = free_port()
        config = directory / "prometheus.yml"
        config.write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
            f"rule_files: [{RULES}]\n"
            f"scrape_configs: [{{ job_name: coralmux, static_configs: [{{ targets: ['127.0.0.1:{target}'] }}] }}]\n"
        )
        self.log = directory / "prometheus.log"
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=1h"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log.open("w"), cwd=directory)

    async def get(self, path, **query):
        if query:
            path += "?" + urllib.parse.urlencode(query)

        def ask():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return json.load(answer)["data"]

        return await asyncio.to_thread(ask)

    async def query(self, expression):
        return (await self.get("/api/v1/query", query=expression))["result"]

    async def until(self, holds, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if await holds():
                    return
            await asyncio.sleep(0.25)
        raise AssertionError(f"not within {seconds} s:\n{self.log.read_text()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


async def talk(relay):
    """Traffic of all kinds, until it is cancelled."""
    text, _ = sized("chat.send", 800)
    async with pair(relay) as (agent, phone):
        while True:
            for _ in range(20):
                await phone.send_text(text)
                await agent.receive()
            await phone.send("ping")
            await phone.expect("pong")
            async with await Client.authed(relay, await relay.token(), "agent") as lonely:
                await lonely.send("key_exchange")
                await lonely.expect_error("PEER_OFFLINE")
            await asyncio.sleep(0.05)


@pytest.fixture
def watched(start_relay, tmp_path):
    tls = tls_flags(certificate(tmp_path, "cert", "localhost"))
    nats = Nats(tmp_path / "nats").start()
    shared = ("--cluster", nats.url)
    relay, port = measured(start_relay, "-addr", f"tls://127.0.0.1:{free_port()}", *tls, *GENEROUS, *shared)
    prometheus = Prometheus(tmp_path, port)
    yield relay, port, prometheus
    prometheus.stop()
    nats.kill()


async def test_every_metric_that_is_named_exists_and_every_query_has_data(watched):
    relay, port, prometheus = watched
    figures = await scrape_until(port, lambda figures: "coralmux_receive_buffers" in figures.kinds)
    named = metrics_named(RULES.read_text()) | metrics_named(DASHBOARD.read_text())
    assert named <= set(figures.kinds), named - set(figures.kinds)
    assert set(figures.kinds) <= metrics_named(DASHBOARD.read_text()), "a metric that the dashboard does not show"

    traffic = asyncio.create_task(talk(relay))
    try:
        # Rates need figures of some seconds.
        enough = 'count_over_time(coralmux_messages_total{direction="phone_to_agent",outcome="forwarded"}[1m]) > 7'
        await prometheus.until(lambda: prometheus.query(enough))
        missing = []
        for expression in expressions():
            result = await prometheus.query(expression)
            values = [float(series["value"][1]) for series in result]
            if not values and not any(quiet in expression for quiet in QUIET):
                missing.append(expression)
            assert all(value == value or "_seconds" in expression for value in values), (expression, values)
        assert not missing, missing
        (sent,) = await prometheus.query(
            'sum(rate(coralmux_messages_total{direction="phone_to_agent",outcome="forwarded"}[5s]))'
        )
        assert float(sent["value"][1]) > 0
        (half,) = await prometheus.query(
            "histogram_quantile(0.5, sum by (le) (rate(coralmux_forward_seconds_bucket[5s])))"
        )
        assert 0 < float(half["value"][1]) < 5
    finally:
        traffic.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await traffic
    groups = (await prometheus.get("/api/v1/rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(re.findall("alert:", RULES.read_text()))
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
    assert not firing, firing


async def test_an_alert_fires_when_the_relay_is_gone(watched):
    relay, _, prometheus = watched
    await prometheus.until(lambda: prometheus.query('up{job="coralmux"} == 1'))
    relay.stop()

    async def pending():
        alerts = (await prometheus.get("/api/v1/alerts"))["alerts"]
        return "CoralmuxDown" in {alert["labels"]["alertname"] for alert in alerts}

    await prometheus.until(pending)
