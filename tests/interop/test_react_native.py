"""examples/react-native, as far as it goes without a phone: its chat with React Native's own WebSocket in Jest, its bundle by
Metro and Hermes' compiler, and the encryption in the Hermes VM. With WORKS_WITH=all, as `make works-with` sets it."""

import asyncio
import json
import os

import pytest

import phones
import react_native
from test_phones import echo

pytestmark = pytest.mark.skipif(os.environ.get("WORKS_WITH") != "all", reason="make works-with tries it")
VERSION_OF_VM = "0.12.0"


@pytest.fixture(scope="module")
def app():
    return react_native.install()


def kept(name, stands_for, versions):
    phones.record(phones.Library(name, stands_for, None), versions)


async def test_its_websocket_takes_texts_of_every_size(relay, app):
    token = await relay.token()
    agent, lengths, task = await echo(relay, token)
    try:
        sizes = " ".join(map(str, phones.SIZES))
        await asyncio.to_thread(react_native.jest, app, "sizes", URL=relay.url, TOKEN=token, SIZES=sizes)
        assert lengths == list(phones.SIZES)
    finally:
        task.cancel()
        await agent.ws.close()
    kept(*phones.REACT_NATIVE, react_native.versions())


async def test_its_chat_pairs_and_lasts(relay, app, start_agent):
    device, plain = start_agent("--echo"), start_agent("--echo", "--e2e", "2")
    async with asyncio.timeout(30):
        while not (link := device.link(device=True)).agent:
            await asyncio.sleep(0.05)
    links = {"LINK": link.for_apps(), "PLAIN_LINK": plain.link().for_apps()}
    await asyncio.to_thread(react_native.jest, app, "chat", **links, OTHER_SECRET=links["LINK"].split("&k=")[1][:43])


async def test_metro_bundles_it_and_hermes_compiles_that(app):
    (app / "build").mkdir(exist_ok=True)
    await asyncio.to_thread(phones.run, "npx", "react-native", "bundle", "--platform", "android", "--dev", "false", "--entry-file", "index.js",
                            "--bundle-output", "build/index.js", cwd=app, env=react_native.environment())
    compiler = app / "node_modules/hermes-compiler/hermesc/linux64-bin/hermesc"
    await asyncio.to_thread(phones.run, compiler, "-O", "-w", "-emit-binary", "-out", "build/index.hbc", "build/index.js", cwd=app)
    assert (app / "build/index.hbc").stat().st_size > 500_000


async def test_the_hermes_vm_encrypts_as_the_vectors_have_it(app):
    await asyncio.to_thread(phones.run, "node", app / "hermes/build.mjs", react_native.relays.ROOT, cwd=app)
    said = await asyncio.to_thread(phones.run, app / "node_modules/hermes-engine-cli/linux64-bin/hermes", "-O", "-w", app / "build/vectors.js")
    assert said.splitlines()[-1].startswith("ok, "), said
    assert int(said.split()[-2]) > 40, said
    kept(*phones.HERMES, {"hermes-engine-cli": VERSION_OF_VM, "@noble": json.loads((app / "package.json").read_text())["dependencies"]["@noble/curves"]})
