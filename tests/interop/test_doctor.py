"""`coralmux-relay doctor`: each finding on a machine prepared for it."""

import json
import os
import socket
import sqlite3
import subprocess

import pytest

import no_io_uring
from certificates import certificate, tls_flags
from relay import binary, free_port

DEADLINE = 60


def doctor(directory, *flags, preexec=None, under=(), **environment):
    done = subprocess.run(
        [*under, binary(), "doctor", "--json", "--admin-key", "k", *map(str, flags)],
        env={k: v for k, v in os.environ.items() if not k.startswith("CORALMUX_")} | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=directory,
        preexec_fn=preexec,
    )
    report = json.loads(done.stdout)
    findings = report["findings"]
    assert report["ok"] == all(f["state"] != "fail" for f in findings)
    assert done.returncode in (0, 1, 2) and (done.returncode == 0) == report["ok"], done.stderr
    for finding in findings:
        assert finding["state"] == "ok" or finding["to_do"], f"nothing to do about {finding}"
    return findings


def of(findings, name):
    found = [f for f in findings if f["name"].startswith(name)]
    assert len(found) == 1, (name, findings)
    return found[0]


def test_a_machine_that_runs_the_relay_is_well(tmp_path):
    findings = doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}")
    assert not [f for f in findings if f["state"] == "fail"], findings
    names = [f["name"] for f in findings]
    for name in ("kernel", "io_uring", "io_uring accept", "io_uring recv", "seccomp", "driver", "limit nofile", "clock", "store relay.db"):
        assert name in names, names
    assert of(findings, "store")["text"].startswith("not there yet")
    assert not (tmp_path / "relay.db").exists(), "it changes nothing"


def test_the_file_of_the_mailbox_is_looked_at(tmp_path):
    flags = ("--addr", f"127.0.0.1:{free_port()}")
    assert of(doctor(tmp_path, *flags), "mailbox")["text"].startswith("not there yet")
    assert "off" in of(doctor(tmp_path, *flags, "--mailbox", "off"), "mailbox")["text"]
    mail = tmp_path / "relay.db.mail"
    mail.write_bytes(b"x" * 100)
    assert "100 bytes" in of(doctor(tmp_path, *flags), "mailbox")["text"]
    mail.unlink()
    mail.mkdir()
    found = of(doctor(tmp_path, *flags), "mailbox")
    assert found["state"] == "warn" and "not a file" in found["text"]


def test_for_people_it_is_a_line_for_each_finding(tmp_path):
    done = subprocess.run(
        [binary(), "doctor", "-addr", f"127.0.0.1:{free_port()}", "-admin-key", "k", "-db", "/nowhere/relay.db"],
        capture_output=True, text=True, timeout=DEADLINE, cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("FAIL"))
    assert done.returncode == 1 and "/nowhere/relay.db" in lines[at] and lines[at + 1].strip() == "mkdir -p /nowhere"


def test_doctor_and_the_log_say_how_receive_buffers_are_used(start_relay, tmp_path):
    relay = start_relay("--io", "uring")
    text = of(doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}"), "io_uring receive buffers")["text"]
    assert text.startswith(("incremental: ", "one for each receive: ")), text
    lines = [json.loads(line) for line in relay.log().splitlines()]
    said = next(line for line in lines if "receive_buffers" in line)
    assert (said["receive_buffers"], said["kernel"]) == (text, os.uname().release)


def test_a_port_that_is_taken_is_told_from_one_that_a_relay_has(relay, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        findings = doctor(tmp_path, "--addr", f"127.0.0.1:{port},127.0.0.1:{relay.port}", "--db", relay.db)
    assert of(findings, f"port 127.0.0.1:{port}")["state"] == "fail"
    assert of(findings, f"port 127.0.0.1:{relay.port}")["state"] == "ok"
    assert of(findings, "store")["text"].startswith("whole, "), "while the relay uses it"


def test_a_store_that_is_damaged_or_somebody_elses_fails(tmp_path):
    flags = ("--addr", f"127.0.0.1:{free_port()}")
    (tmp_path / "text.db").write_text("this is no database " * 500)
    assert of(doctor(tmp_path, *flags, "--db", "text.db"), "store")["state"] == "fail"
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE recipes (x)")
    other.close()
    assert "another program" in of(doctor(tmp_path, *flags, "--db", "other.db"), "store")["text"]
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.executescript("PRAGMA application_id = 0x434d5852; PRAGMA user_version = 99; CREATE TABLE token (x)")
    newer.close()
    assert "newer relay (schema 99" in of(doctor(tmp_path, *flags, "--db", "newer.db"), "store")["text"]
    with sqlite3.connect(tmp_path / "go.db") as go:
        go.execute("CREATE TABLE tokens (token TEXT PRIMARY KEY, created_at)")
        go.execute("CREATE TABLE bandwidth (id, token, bytes, recorded_at)")
    go.close()
    finding = of(doctor(tmp_path, *flags, "--db", "go.db"), "store")
    assert finding["state"] == "warn" and "copy" in finding["to_do"]


def test_a_store_that_is_only_locked_is_not_to_be_replaced(tmp_path):
    locker = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    locker.execute("CREATE TABLE token (x)")
    locker.execute("BEGIN EXCLUSIVE")
    finding = of(doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}", "--db", "relay.db"), "store")
    locker.close()
    assert finding["state"] == "fail" and finding["text"].startswith("locked by another program"), finding
    assert finding["to_do"] == "end it and start again"


def test_the_usual_metrics_port_is_looked_at_too(tmp_path):
    # In a network of its own, where somebody else has the port.
    taken = """
        ip link set lo up
        python3 -m http.server -b 127.0.0.1 9464 >/dev/null 2>&1 & trap "kill $!" EXIT
        until (echo >/dev/tcp/127.0.0.1/9464) 2>/dev/null; do sleep 0.05; done
        "$@"
    """
    under = ("unshare", "--net", "bash", "-c", taken, "bash")
    finding = of(doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}", under=under), "port 127.0.0.1:9464")
    assert finding["state"] == "warn" and "without metrics" in finding["text"], finding


def test_limits_that_are_too_low_are_named(tmp_path):
    import resource

    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))

    findings = doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}", preexec=lower)
    # The relay runs on epoll where too little memory may be locked.
    for name, what, state in (("limit nofile", "LimitNOFILE", "fail"), ("limit memlock", "LimitMEMLOCK", "warn")):
        finding = of(findings, name)
        assert finding["state"] == state and what in finding["to_do"], finding


@pytest.mark.parametrize("days, state", [(90, "ok"), (3, "warn")])
def test_a_certificate_is_looked_at(tmp_path, days, state):
    flags = tls_flags(certificate(tmp_path, "relay.test", days=days))
    assert of(doctor(tmp_path, "--addr", f"tls://127.0.0.1:{free_port()}", *flags), "certificate")["state"] == state


def test_a_certificate_with_another_key_fails(tmp_path):
    cert, _ = certificate(tmp_path, "relay.test", days=90)
    _, key = certificate(tmp_path, "other.test", days=90)
    flags = tls_flags((cert, key))
    assert of(doctor(tmp_path, "--addr", f"tls://127.0.0.1:{free_port()}", *flags), "certificate")["state"] == "fail"


def test_a_domain_that_does_not_resolve_fails(tmp_path):
    flags = ("--addr", f"tls://127.0.0.1:{free_port()}", "--http-addr", "off", "--domain", "relay.invalid")
    # In a network of its own, so that nobody outside is asked.
    finding = of(doctor(tmp_path, *flags, under=("unshare", "--net")), "name relay.invalid")
    assert finding["state"] == "fail" and "record" in finding["to_do"]


@pytest.mark.parametrize(
    "mode,text,state,to_do",
    [
        (0o644, "b1946ac92492d2347c6235b4d2611184", "warn", "chmod 600"),
        (0o666, "b1946ac92492d2347c6235b4d2611184", "fail", "chmod 600"),
        (0o600, "secret", "warn", "openssl rand"),
        (0o600, "", "fail", ""),
        (0o600, "b1946ac92492d2347c6235b4d2611184", "ok", None),
    ],
)
def test_a_key_that_others_may_read_or_guess_is_told(tmp_path, mode, text, state, to_do):
    file = tmp_path / "relay.db.admin-key"
    file.write_text(f"{text}\n")
    file.chmod(mode)
    done = subprocess.run(
        [binary(), "doctor", "--json", "--addr", f"127.0.0.1:{free_port()}"],
        env={k: v for k, v in os.environ.items() if not k.startswith("CORALMUX_") and k != "RELAY_ADMIN_KEY"},
        capture_output=True, text=True, timeout=DEADLINE, cwd=tmp_path,
    )
    finding = of(json.loads(done.stdout)["findings"], "admin key")
    assert finding["state"] == state and (text or "no such text") not in done.stdout
    assert to_do in finding["to_do"] if to_do is not None else "to_do" not in finding
    assert file.stat().st_mode & 0o777 == mode, "it only looks"


def test_an_address_without_tls_beside_certificates_is_told(tmp_path):
    pair = tls_flags(certificate(tmp_path, "a.example"))
    port = free_port()
    findings = [f for f in doctor(tmp_path, "--addr", f":{port}", *pair) if f["name"] == "configuration"]
    assert [f["state"] for f in findings] == ["ok", "warn"]
    assert f":{port} is without TLS" in findings[1]["text"] and f"tls://:{port}" in findings[1]["to_do"]
    findings = doctor(tmp_path, "--addr", f"tls://:{port}", *pair)
    assert [f["state"] for f in findings if f["name"] == "configuration"] == ["ok"]


def test_a_wrong_configuration_is_the_finding(tmp_path):
    done = subprocess.run(
        [binary(), "doctor", "--json", "--phone-rate", "many"], capture_output=True, text=True, timeout=DEADLINE, cwd=tmp_path
    )
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 2 and "--phone-rate" in of(findings, "configuration")["text"]


@pytest.mark.parametrize("io, state", [("auto", "warn"), ("uring", "fail")])
def test_a_seccomp_filter_is_found_out(tmp_path, io, state):
    findings = doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}", "--io", io, preexec=no_io_uring.forbid)
    for name in ("io_uring", "seccomp"):
        finding = next(f for f in findings if f["name"] == name)
        assert finding["state"] == state and "seccomp" in finding["to_do"], finding
    driver = of(findings, "driver")
    assert driver["state"] == state and "io_uring is forbidden here" in driver["text"], driver


def test_who_asks_for_epoll_hears_nothing_of_io_uring(tmp_path):
    findings = doctor(tmp_path, "--addr", f"127.0.0.1:{free_port()}", "--io", "epoll", preexec=no_io_uring.forbid)
    assert of(findings, "driver")["text"] == "epoll, as --io says"
    assert not [f for f in findings if "io_uring" in json.dumps(f)], findings
