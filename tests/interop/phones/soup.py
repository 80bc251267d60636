"""libsoup, which GNOME's and postmarketOS's apps use."""

import json
import sys

import gi

gi.require_version("Soup", "3.0")
from gi.repository import GLib, Soup  # noqa: E402

url, token, *sizes = sys.argv[1:]
loop, session = GLib.MainLoop(), Soup.Session()
texts = [("abcdefghij" * (int(size) // 10 + 1))[: int(size)] for size in sizes]
state = {"at": -1, "pieces": 0, "ok": False}


def send(socket, kind, payload):
    socket.send_text(json.dumps({"v": 1, "type": kind, "id": "1", "ts": 1, "payload": payload}))


def ask(socket):
    state["at"] += 1
    state["pieces"] = 0
    if state["at"] == len(texts):
        socket.close(1000, None)
    else:
        send(socket, "chat.send", {"text": texts[state["at"]]})


def received(socket, _kind, data):
    message = json.loads(data.get_data())
    if message["type"] == "auth.ok":
        ask(socket)
    elif message["type"] == "chat.stream":
        state["pieces"] += 1
    else:
        assert message["type"] == "chat.done" and state["pieces"] == 3, message["type"]
        assert message["payload"]["full_text"] == texts[state["at"]]
        ask(socket)


def closed(socket):
    state["ok"] = socket.get_close_code() == 1000 and state["at"] == len(texts)
    loop.quit()


def connected(_session, result):
    socket = session.websocket_connect_finish(result)
    socket.set_max_incoming_payload_size(6 << 20)  # 128 KiB otherwise
    socket.connect("message", received)
    socket.connect("closed", closed)
    state["socket"] = socket
    send(socket, "auth", {"token": token, "role": "phone"})


session.websocket_connect_async(Soup.Message.new("GET", url), None, None, GLib.PRIORITY_DEFAULT, None, connected)
GLib.timeout_add_seconds(60, loop.quit)
loop.run()
print("ok" if state["ok"] else f"failed at {state['at']}")
sys.exit(not state["ok"])
