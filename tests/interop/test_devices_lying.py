"""Devices whose relay is the attacker (`lying`): what it says is believed by nobody, and what it does opens nothing."""

from household import Household, asks, tells
from lying import LyingRelay

TOKEN = "oc_pair_" + "0123456789abcdef" * 2


async def test_devices_enrol_ask_and_hear_what_the_others_ask(tmp_path):
    """Test 26, without the relay's part: an answer reaches all, a question shows on the others, who is away gets the end."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        question = await asks(phone, home.agent)
        turn = (await tablet.expect("chat.turn", text="a question")).payload
        assert (turn["ref"], turn["from"], turn["role"]) == (question.id, phone.device, "user")
        await tells(home.agent, [phone, tablet])
        assert not phone.of("chat.turn")
        await tablet.__aexit__()
        await home.agent.expect("relay.device", device=tablet.device, online=False)
        for seq in range(3):
            await home.agent.client.send("chat.stream", {"delta": f"{seq} ", "seq": seq + 1})
        await tells(home.agent, [phone], "0 1 2 ")
        tablet = await home.device("tablet")
        await tablet.expect("chat.done", full_text="0 1 2 ")
        assert not tablet.of("chat.stream") and not tablet.of("client.refused")
