"""How a client sees the relay's TLS: which certificate, and messages over wss."""

import contextlib
import socket
import ssl
import time
import types

from client import Client

TIMEOUT = 20


def trusting(*pems, alpn=("http/1.1",), version=None):
    """The settings of a client that checks certificates against these: texts or paths."""
    context = ssl.create_default_context()
    for pem in pems:
        text = pem if isinstance(pem, str) else pem.read_text()
        context.load_verify_locations(cadata=text)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def unchecked(alpn=("http/1.1",)):
    """The settings of one that takes any certificate."""
    context = trusting(alpn=alpn)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def handshake(port, name, context):
    """A connection behind its handshake."""
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    try:
        return context.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise


def shown(port, name, context=None):
    """The DER of the certificate that a client is shown; without a name no SNI is sent."""
    with handshake(port, name, context or unchecked()) as connection:
        return connection.getpeercert(True)


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def wait_for(what, check, timeout=TIMEOUT):
    """Asks again and again until `check` gives something, and gives that."""
    deadline = time.monotonic() + timeout
    while True:
        if found := check():
            return found
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.05)


@contextlib.asynccontextmanager
async def secure_pair(relay, port, name, context):
    """An agent and a phone of one token over wss."""
    over_tls = types.SimpleNamespace(url=f"wss://127.0.0.1:{port}/ws")
    token = await relay.token()
    options = {"ssl": context, "server_hostname": name}
    async with await Client.authed(over_tls, token, "agent", **options) as agent:
        async with await Client.authed(over_tls, token, "phone", **options) as phone:
            assert await agent.expect("status") == {"peer": "online"}
            yield agent, phone


async def talk(agent, phone):
    """One message each way."""
    for sender, receiver in ((phone, agent), (agent, phone)):
        sent = await sender.send("chat.text", {"text": "hello"})
        assert (await receiver.receive())["id"] == sent
