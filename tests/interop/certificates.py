"""Certificates for tests, made by openssl."""

import pathlib
import subprocess

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*args):
    """Runs openssl, which must succeed."""
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def certificate_until(directory, file, end):
    """The same, which ends at that time (a `datetime` of UTC)."""
    directory = pathlib.Path(directory)
    cert, key = certificate(directory, file)
    (directory / "index").write_text("")
    (directory / "serial").write_text("01")
    settings = {"database": directory / "index", "serial": directory / "serial", "new_certs_dir": directory}
    settings |= {"default_md": "sha256", "policy": "policy"}
    lines = ["[ca]", "default_ca = own", "[own]", *(f"{name} = {value}" for name, value in settings.items())]
    (directory / "ca").write_text("\n".join([*lines, "[policy]", "commonName = supplied", ""]))
    # `x509` takes whole days only.
    openssl(
        "ca", "-batch", "-selfsign", "-notext", "-config", directory / "ca", "-keyfile", key, "-in", directory / f"{file}.csr",
        "-extfile", directory / f"{file}.extensions", "-enddate", end.strftime("%y%m%d%H%M%SZ"), "-out", cert,
    )  # fmt: skip
    return cert, key


def certificate(directory, file, *names, days=30):
    """A self-signed certificate: the paths of chain and key. `days` below 0: it has ended.

    `names`: domains, or what openssl takes as `IP:127.0.0.1`; if there is none, the file's name is the domain.
    """
    directory = pathlib.Path(directory)
    cert, key, request, extensions = (directory / f"{file}.{kind}" for kind in ("pem", "key", "csr", "extensions"))
    names = ",".join(name if ":" in name else f"DNS:{name}" for name in names or [file])
    extensions.write_text(f"subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n")
    openssl("req", *EC, "-keyout", key, "-out", request, "-subj", f"/CN={file}")
    # Not `req -x509`, which makes none that has ended.
    openssl("x509", "-req", "-in", request, "-signkey", key, "-days", days, "-extfile", extensions, "-out", cert)
    return cert, key


def tls_flags(*certificates):
    """The flags that name these certificates and their keys."""
    return [flag for cert, key in certificates for flag in ("--tls-cert", cert, "--tls-key", key)]
