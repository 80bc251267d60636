"""The network of the tests is honest where it is to be: it loses what it is told to lose, and says nothing twice."""

import asyncio

from network import Network

TIMEOUT = 20


async def test_what_is_delayed_again_and_again_arrives_once_and_in_order():
    """In both directions: a repeated byte would pass for an attack."""
    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0)
    async with Network(server.sockets[0].getsockname()[1]) as network, asyncio.timeout(TIMEOUT):
        client = await asyncio.open_connection("127.0.0.1", network.port)
        relay = await accepted
        while not network.living:
            await asyncio.sleep(0.01)
        for number in range(3):
            delayed = asyncio.create_task(network.living[0].delay())
            await asyncio.sleep(0)
            for _, writer in (client, relay):
                writer.write(b"late %d " % number)
            await delayed
            for reader, _ in (client, relay):
                assert await reader.readexactly(7) == b"late %d " % number
        for _, writer in (client, relay):
            writer.close()
        for reader, _ in (client, relay):
            assert await reader.read() == b""
    server.close()
