"""A real ACME CA for tests: pebble, with a DNS server that says 127.0.0.1 to everything; all of it on loopback."""

import json
import os
import pathlib
import ssl
import subprocess
import time
import urllib.request

from certificates import EC, openssl
from relay import free_port

START_TIMEOUT = 20


def make_ca(directory):
    """A CA of a minute's making, and a certificate of it for localhost: what pebble's own HTTPS needs."""
    directory = pathlib.Path(directory)
    ca, ca_key, key, request, cert = (directory / name for name in ("ca.pem", "ca.key", "https.key", "csr", "https.pem"))
    openssl("req", "-x509", *EC, "-keyout", ca_key, "-out", ca, "-subj", "/CN=test CA", "-days", 2)
    openssl("req", *EC, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,DNS:ca.invalid,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 2,
            "-extfile", extensions, "-out", cert)
    return ca, cert, key


class Pebble:
    """One pebble and its DNS server. Validation comes to `tls_port` and `http_port` of 127.0.0.1."""

    def __init__(self, directory, tls_port, http_port, *, validity=3600, binding=None, environment=None):
        self.directory = pathlib.Path(directory)
        self.ca, cert, key = make_ca(directory)
        self.https = (cert, key)
        self.port, self.management_port, self.dns_port, self.dns_management_port = (free_port() for _ in range(4))
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management_port}",
            "certificate": str(cert),
            "privateKey": str(key),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": binding is not None,
            "certificateValidityPeriod": validity,
        }
        if binding:
            config["externalAccountMACKeys"] = dict([binding])
        self.config = self.directory / "pebble.json"
        self.config.write_text(json.dumps({"pebble": config}))
        # No pause before it validates; every authorization anew; and the refused nonces that it hands out otherwise stay.
        self.environment = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"} | (environment or {})
        self.directory_url = f"https://127.0.0.1:{self.port}/dir"
        self.log_path = self.directory / "pebble.log"
        self.processes = []

    @property
    def flags(self):
        """What a relay is started with to use it."""
        return ["--acme-directory", self.directory_url, "--acme-ca", str(self.ca)]

    def start(self):
        dns = ["pebble-challtestsrv", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
               "-dns01", f"127.0.0.1:{self.dns_port}", "-management", f"127.0.0.1:{self.dns_management_port}"]
        ca = ["pebble", "-config", str(self.config), "-dnsserver", f"127.0.0.1:{self.dns_port}"]
        with open(self.log_path, "ab") as log:
            for command in (dns, ca):
                self.processes.append(
                    subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)
                )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.get(self.port, "/dir")
                self.get(self.management_port, "/roots/0")
                return self
            except OSError:
                if time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"pebble did not start:\n{self.log()}") from None
                time.sleep(0.02)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []

    def get(self, port, path):
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(f"https://127.0.0.1:{port}{path}", context=context, timeout=5) as answer:
            return answer.read()

    def roots(self):
        """The root that its certificates lead to, PEM. Each start has another one."""
        return self.get(self.management_port, "/roots/0").decode()

    def log(self):
        return self.log_path.read_text(errors="replace")
