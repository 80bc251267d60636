"""What the vectors of all versions are made with: fixed keys, encodings, X25519, Noise's HKDF."""

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

TOKEN = "oc_pair_0123456789abcdef0123456789abcdef"


def fixed(name):
    """32 bytes that anybody can make again."""
    return hashlib.sha256(b"coralmux test vector: " + name.encode()).digest()


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private, other):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


def noise_hkdf(chaining_key, material, count):
    secret = hmac.new(chaining_key, material, hashlib.sha256).digest()
    outputs, last = [], b""
    for number in range(count):
        last = hmac.new(secret, last + bytes([number + 1]), hashlib.sha256).digest()
        outputs.append(last)
    return outputs


def refused_alike(good):
    """What every version refuses, made from a good payload."""
    data = base64.b64decode(good["ciphertext"])
    return [
        ("a bit of the ciphertext is another", good | {"ciphertext": b64(bytes([data[0] ^ 1]) + data[1:])}),
        ("a bit of the tag is another", good | {"ciphertext": b64(data[:-1] + bytes([data[-1] ^ 1]))}),
        ("the last byte is missing", good | {"ciphertext": b64(data[:-1])}),
        ("shorter than a tag", good | {"ciphertext": b64(bytes(15))}),
        ("nothing but zeros of a tag's length", good | {"ciphertext": b64(bytes(16))}),
        ("no ciphertext", {name: value for name, value in good.items() if name != "ciphertext"}),
        ("no nonce", {name: value for name, value in good.items() if name != "nonce"}),
        ("the nonce has 11 bytes", good | {"nonce": b64(bytes(11))}),
        ("the nonce has 13 bytes", good | {"nonce": b64(bytes(13))}),
        ("the ciphertext is not base64", good | {"ciphertext": "!" + good["ciphertext"][1:]}),
        ("the ciphertext is not a string", good | {"ciphertext": 7}),
    ]
