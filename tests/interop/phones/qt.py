"""QWebSocket, for apps made with Qt."""

import json
import sys

from PyQt6.QtCore import QCoreApplication, QTimer, QUrl
from PyQt6.QtWebSockets import QWebSocket

url, token, *sizes = sys.argv[1:]
app, socket = QCoreApplication([]), QWebSocket()
texts = [("abcdefghij" * (int(size) // 10 + 1))[: int(size)] for size in sizes]
state = {"at": -1, "pieces": 0, "ok": False}


def send(kind, payload):
    socket.sendTextMessage(json.dumps({"v": 1, "type": kind, "id": "1", "ts": 1, "payload": payload}))


def ask():
    state["at"] += 1
    state["pieces"] = 0
    if state["at"] == len(texts):
        socket.close()
    else:
        send("chat.send", {"text": texts[state["at"]]})


def received(text):
    message = json.loads(text)
    if message["type"] == "auth.ok":
        ask()
    elif message["type"] == "chat.stream":
        state["pieces"] += 1
    else:
        state["same"] = state["pieces"] == 3 and message["payload"]["full_text"] == texts[state["at"]]
        ask() if state["same"] else app.quit()


def closed():
    state["ok"] = state["at"] == len(texts)
    app.quit()


socket.connected.connect(lambda: send("auth", {"token": token, "role": "phone"}))
socket.textMessageReceived.connect(received)
socket.disconnected.connect(closed)
QTimer.singleShot(60_000, app.quit)
QTimer.singleShot(0, lambda: socket.open(QUrl(url)))
app.exec()
print("ok" if state["ok"] else f"failed at {state['at']}")
sys.exit(not state["ok"])
