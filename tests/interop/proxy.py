"""An HTTP proxy, as the environment of a machine names one."""

import contextlib
import socket
import threading

# As a proxy is named for each kind of address.
NAMES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class Proxy:
    """An HTTP proxy that knows one place: CONNECT to anything leads to `port` of the loopback."""

    def __init__(self, port):
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:word@127.0.0.1:{self.listener.getsockname()[1]}"
        self.heads = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.attend, args=[client], daemon=True).start()

    def attend(self, client):
        head = b""
        while b"\r\n\r\n" not in head and (more := client.recv(4096)):
            head += more
        self.heads.append(head.decode())
        if not head.startswith(b"CONNECT "):
            client.close()
            return
        there = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(b"HTTP/1.1 200 there it is\r\n\r\n")
        other = threading.Thread(target=self.pump, args=[there, client], daemon=True)
        other.start()
        self.pump(client, there)

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def environment(self, *names):
        return {name: self.url for name in names or NAMES}
