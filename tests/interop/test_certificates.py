"""Certificates from files: which one a client gets, and what happens when the files change."""

import datetime
import functools
import os
import signal
import ssl

import pytest
from certificates import certificate, certificate_until, tls_flags
from relay import GENEROUS, free_port
from secure import der, secure_pair, shown, talk, trusting, unchecked, wait_for


def flags(port, *pairs):
    return [*GENEROUS, "--addr", f"tls://127.0.0.1:{port}", *tls_flags(*pairs)]


def replace(path, source):
    """As careful writers do: the new file takes the name at once."""
    new = path.with_suffix(".new")
    new.write_bytes(source.read_bytes())
    os.replace(new, path)


@pytest.fixture
def make(tmp_path):
    return functools.partial(certificate, tmp_path)


def test_the_name_that_a_client_asks_for_decides(start_relay, make):
    port = free_port()
    a, b = make("a.example"), make("b.example", "b.example", "*.b.example")
    start_relay(*flags(port, a, b))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert shown(port, "a.example", trusting(a[0], version=version)) == der(a[0])
        assert shown(port, "any.b.example", trusting(b[0], version=version)) == der(b[0])
    assert shown(port, "elsewhere.example") == der(a[0])
    assert shown(port, None) == der(a[0])


def test_a_validator_of_the_ca_is_shown_nothing_where_no_challenge_is_under_way(start_relay, make):
    port = free_port()
    start_relay(*flags(port, make("a.example")))
    with pytest.raises(ssl.SSLError):
        shown(port, "a.example", unchecked(alpn=["acme-tls/1"]))


@pytest.mark.parametrize("by_signal", [True, False], ids=["SIGHUP", "by itself"])
async def test_new_files_are_taken_and_connections_go_on(start_relay, make, by_signal):
    port = free_port()
    cert, key = make("a.example")
    new_cert, new_key = make("new", "a.example")
    relay = start_relay(*flags(port, (cert, key)))
    async with secure_pair(relay, port, "a.example", trusting(cert)) as (agent, phone):
        await talk(agent, phone)
        replace(cert, new_cert)
        replace(key, new_key)
        if by_signal:
            relay.process.send_signal(signal.SIGHUP)
        wait_for(relay.log, lambda: shown(port, "a.example") == der(new_cert))
        await talk(agent, phone)
    async with secure_pair(relay, port, "a.example", trusting(new_cert)) as (agent, phone):
        await talk(agent, phone)


def test_a_broken_new_file_leaves_the_old_certificate_and_is_told(start_relay, make):
    port = free_port()
    cert, key = make("a.example")
    _, other_key = make("other", "a.example")
    relay = start_relay(*flags(port, (cert, key)))
    assert relay.health()["certificates"] == "ok"
    before, own_key = der(cert), key.read_bytes()
    replace(key, other_key)
    wait_for(relay.log, lambda: relay.health()["certificates"] != "ok")
    report = relay.health()
    assert report["status"] == "degraded" and str(cert) in report["certificates"], report
    assert "the old one stays in use" in relay.log() and "does not belong" in relay.log()
    assert shown(port, "a.example") == before
    key.write_bytes(own_key)
    relay.process.send_signal(signal.SIGHUP)
    wait_for(relay.log, lambda: relay.health()["status"] == "ok")


def test_what_cannot_be_presented_is_told_and_the_relay_starts_and_heals(start_relay, make, tmp_path):
    good, ended = make("a.example"), make("ended", "a.example", days=-1)
    other = make("b.example")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n")
    for cert, key, said in [
        (tmp_path / "none.pem", good[1], ["--tls-cert", "link.pem", "No such file"]),
        (good[0], tmp_path / "none.key", ["--tls-key", "link.key", "No such file"]),
        (broken, good[1], ["--tls-cert", "link.pem", "PEM"]),
        (good[0], broken, ["--tls-key", "link.key", "private key"]),
        (good[0], other[1], ["--tls-cert", "--tls-key", "does not belong"]),
        (*ended, ["--tls-cert", "link.pem", "expired on 20"]),
    ]:
        links = [tmp_path / "link.pem", tmp_path / "link.key"]
        for path, source in zip(links, (cert, key)):
            path.unlink(missing_ok=True)
            path.symlink_to(source)
        port = free_port()
        relay = start_relay(*flags(port, links))
        report = relay.health()
        assert report["status"] == "degraded" and str(links[0]) in report["certificates"], report
        for part in said:
            assert part in relay.log(), (part, relay.log())
        for path, source in zip(links, good):
            replace(path, source)
        wait_for(relay.log, lambda: relay.health()["status"] == "ok")
        assert shown(port, "a.example") == der(good[0])
        relay.stop()


def test_one_bad_certificate_of_several_holds_up_no_other(start_relay, make, tmp_path):
    port = free_port()
    a, ended = make("a.example"), make("ended", "a.example", "b.example", days=-1)
    relay = start_relay(*flags(port, (tmp_path / "none.pem", tmp_path / "none.key"), ended, a))
    assert shown(port, "a.example") == der(a[0]), "the valid one of the two"
    assert shown(port, "b.example") == der(ended[0]), "the client says that it has ended"
    certificates = relay.health()["certificates"]
    assert "none.pem" in certificates and "ended.pem" in certificates and str(a[0]) not in certificates


def test_a_certificate_that_ends_while_the_relay_runs_is_told_once_and_once_when_it_is_renewed(start_relay, make, tmp_path):
    port = free_port()
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    cert, key = certificate_until(tmp_path, "a.example", end)
    other = make("b.example")
    relay = start_relay(*flags(port, (cert, key), other))
    assert relay.health()["certificates"] == "ok" and not relay.lines("a certificate in use has a problem")
    wait_for(relay.log, lambda: relay.lines("a certificate in use has a problem"))
    assert relay.health()["status"] == "degraded"
    new_cert, new_key = make("new", "a.example")
    replace(cert, new_cert)
    replace(key, new_key)
    relay.process.send_signal(signal.SIGHUP)
    wait_for(relay.log, lambda: relay.lines("the certificate is in order again"))
    [told], [healed] = relay.lines("a certificate in use has a problem"), relay.lines("the certificate is in order again")
    assert (told["level"], told["certificate"]) == ("WARN", str(cert)) and told["state"].startswith("ended 20")
    assert (healed["level"], healed["certificate"]) == ("INFO", str(cert))
