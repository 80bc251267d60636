"""deploy/oracle-cloud/setup.sh on a machine with the firewall rules of Oracle's images for Ubuntu."""

import pytest

from machine import Booted
from release import release

pytestmark = pytest.mark.needs_root

# What those images bring, less the chain for Oracle's own services.
RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p udp -m udp --sport 123 -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
"""
SETUP = "/opt/release/setup.sh"
PID = ("systemctl", "show", "--property=MainPID", "--value", "coralmux-relay")
ALLOW = "-A INPUT -p tcp -m state --state NEW -m tcp --dport {} -j ACCEPT"


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    with Booted(folder, private=True) as machine:
        release(machine.path("/opt/release"))
        rules = machine.path("/etc/iptables/rules.v4")
        rules.parent.mkdir(exist_ok=True)
        rules.write_text(RULES)
        machine.must("iptables-restore", "/etc/iptables/rules.v4")
        yield machine


def reach(machine, port):
    """A request by loopback, without the rule that lets all of loopback in."""
    machine.must("iptables", "-D", "INPUT", "-i", "lo", "-j", "ACCEPT")
    done = machine.run("curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{port}/health")
    machine.must("iptables", "-I", "INPUT", "3", "-i", "lo", "-j", "ACCEPT")
    return done


def test_clients_get_through_the_machines_firewall_to_a_relay_that_runs(machine):
    said = machine.must(SETUP)
    assert '"status":"ok"' in reach(machine, 8080).stdout
    other = reach(machine, 9)
    assert other.returncode != 0 and '"status"' not in other.stdout
    assert "add an ingress rule for TCP" in said and "8080" in said

    # The next boot has the same rules.
    kept = machine.path("/etc/iptables/rules.v4").read_text()
    assert kept == RULES.replace("-A INPUT -j REJECT", ALLOW.format(8080) + "\n-A INPUT -j REJECT")
    rules = machine.must("iptables", "-S", "INPUT")
    machine.must("iptables-restore", "/etc/iptables/rules.v4")
    assert machine.must("iptables", "-S", "INPUT") == rules

    # What the kernel keeps for connections is of the network namespace, so it can be looked at.
    assert machine.must("sysctl", "-n", "net.core.somaxconn").strip() == "8192"

    # Once more, with a newer release: the relay is another, the rules are the same.
    before = machine.must(*PID)
    release(machine.path("/opt/newer"), more=b"newer")
    machine.must(SETUP, "--from", "/opt/newer")
    assert machine.must(*PID) not in (before, "0\n")
    assert machine.must("iptables", "-S", "INPUT") == rules
    assert machine.path("/etc/iptables/rules.v4").read_text() == kept


def test_a_relay_of_before_is_refused_without_the_script(machine):
    """So the rules of this test refuse, and the test above says something."""
    machine.must("/opt/release/install.sh")
    assert reach(machine, 8080).returncode == 7


def test_a_domain_opens_443_and_80_and_is_set_once(machine):
    settings = machine.path("/etc/coralmux/environment")
    settings.parent.mkdir()
    # No certificate can be had here, and the CA is nobody; the relay tries again and again, and listens meanwhile.
    settings.write_text("CORALMUX_PHONE_RATE=60\nCORALMUX_ACME_DIRECTORY=https://127.0.0.1:9/directory\n")
    machine.must(SETUP, "--domain", "relay.example.com")
    said = settings.read_text()
    assert said.endswith("\nCORALMUX_DOMAIN=relay.example.com\n") and said.startswith("CORALMUX_PHONE_RATE=60\n")
    assert "*:443" in machine.must("ss", "-Hltn")
    machine.must(SETUP, "--domain", "relay.example.com")
    done = machine.run(SETUP, "--domain", "other.example.com")
    assert done.returncode == 1 and "names another domain" in done.stdout, done.stdout
    rules = machine.must("iptables", "-S", "INPUT")
    assert ALLOW.format(443) in rules and ALLOW.format(80) in rules and "8080" not in rules
    assert settings.read_text() == said


def test_what_it_does_not_understand_changes_nothing(machine):
    before = machine.must("iptables", "-S")
    for wrong in ["--port 0", "--port 80x", "--port 70000", "--domain -", "--port", "--prot 80"]:
        done = machine.run(SETUP, *wrong.split(" "))
        assert done.returncode == 1 and "setup: " in done.stdout, wrong
    assert machine.must("iptables", "-S") == before
