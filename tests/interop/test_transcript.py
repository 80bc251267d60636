"""1: what clients of the wire contract are told changes only with the file that it is compared with, byte for byte."""

from relay import ROOT
from transcript import FLAGS, record


async def test_1_a_relay_says_to_old_clients_what_is_written_down(start_relay):
    kept = (ROOT / "tests/interop/data/transcript.txt").read_text().splitlines()
    now = await record(start_relay(*FLAGS))
    assert now == kept
