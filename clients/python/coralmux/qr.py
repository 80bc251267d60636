"""QR codes (ISO/IEC 18004): a text as a square of modules, in byte mode, with the lowest error correction.

Enough for a pairing link on a terminal, which is neither dirty nor torn.
"""

from __future__ import annotations

from collections.abc import Iterator

Matrix = list[list[bool]]

# Of level L, for versions 1 to 40: error correction codewords of a block, and the blocks.
CORRECTION = (
    7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28,
    28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30,
)  # fmt: skip
BLOCKS = (
    1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8,
    8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25,
)  # fmt: skip
LEVEL_L = 1
PENALTIES = 3, 3, 40, 10  # of the standard's four features
FINDER_LIKE = ((1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1))
MASKS = (
    lambda x, y: (x + y) % 2,
    lambda x, y: y % 2,
    lambda x, y: x % 3,
    lambda x, y: (x + y) % 3,
    lambda x, y: (x // 3 + y // 2) % 2,
    lambda x, y: x * y % 2 + x * y % 3,
    lambda x, y: (x * y % 2 + x * y % 3) % 2,
    lambda x, y: ((x + y) % 2 + x * y % 3) % 2,
)


def encode(text: str) -> Matrix | None:
    """The code's modules, by row, dark ones true. None where the text is too long for one (2,953 bytes)."""
    data = text.encode()
    for version in range(1, 41):
        if codewords := _codewords(data, version):
            break
    else:
        return None
    codes = (_Code(version, codewords, mask) for mask in range(8))
    return min(codes, key=lambda code: _penalty(code.modules)).modules


def _raw_modules(version: int) -> int:
    """Modules for data and error correction."""
    count = (16 * version + 128) * version + 64
    if version >= 2:
        align = version // 7 + 2
        count -= (25 * align - 10) * align - 55
        if version >= 7:
            count -= 36
    return count


def _codewords(data: bytes, version: int) -> bytes | None:
    """The text's codewords with their error correction, interleaved. None where they do not fit."""
    correction, blocks = CORRECTION[version - 1], BLOCKS[version - 1]
    total = _raw_modules(version) // 8
    capacity = total - correction * blocks
    length_bits = 8 if version < 10 else 16
    if 4 + length_bits + 8 * len(data) > 8 * capacity:
        return None
    bits = f"0100{len(data):0{length_bits}b}" + "".join(f"{byte:08b}" for byte in data)
    bits += "0" * min(4, 8 * capacity - len(bits))
    bits += "0" * (-len(bits) % 8)
    padded = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    padded += (b"\xec\x11" * capacity)[: capacity - len(padded)]

    short = total // blocks - correction  # data codewords of the shorter blocks, which come first
    longer = total % blocks
    parts, at = [], 0
    for number in range(blocks):
        size = short + (number >= blocks - longer)
        parts.append(padded[at : at + size])
        at += size
    remainders = [_remainder(part, _generator(correction)) for part in parts]
    inner = [part[at] for at in range(short + 1) for part in parts if at < len(part)]
    return bytes(inner + [part[at] for at in range(correction) for part in remainders])


def _times(x: int, y: int) -> int:
    """The product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1."""
    z = 0
    for bit in range(7, -1, -1):
        z = (z << 1) ^ (z >> 7) * 0x11D
        z ^= (y >> bit & 1) * x
    return z


def _generator(degree: int) -> list[int]:
    found, root = [0] * (degree - 1) + [1], 1
    for _ in range(degree):
        for at in range(degree):
            found[at] = _times(found[at], root) ^ (found[at + 1] if at + 1 < degree else 0)
        root = _times(root, 2)
    return found


def _remainder(data: bytes, divisor: list[int]) -> list[int]:
    rest = [0] * len(divisor)
    for byte in data:
        factor = byte ^ rest.pop(0)
        rest.append(0)
        rest = [value ^ _times(coefficient, factor) for value, coefficient in zip(rest, divisor, strict=True)]
    return rest


class _Code:
    """One code, with one mask."""

    def __init__(self, version: int, codewords: bytes, mask: int) -> None:
        self.size = size = 17 + 4 * version
        self.modules: Matrix = [[False] * size for _ in range(size)]
        self.fixed: Matrix = [[False] * size for _ in range(size)]
        for at in range(size):
            self._set(6, at, at % 2 == 0)
            self._set(at, 6, at % 2 == 0)
        for x, y in ((3, 3), (size - 4, 3), (3, size - 4)):
            self._draw_square(x, y, 4, (0, 1, 3))
        centres = _alignments(version)
        corners = {(6, 6), (6, size - 7), (size - 7, 6)}
        for x, y in ((x, y) for x in centres for y in centres if (x, y) not in corners):
            self._draw_square(x, y, 2, (0, 2))
        self._draw_format(mask)
        self._draw_version(version)
        self._draw_data(codewords, mask)

    def _set(self, x: int, y: int, dark: bool) -> None:
        self.modules[y][x], self.fixed[y][x] = dark, True

    def _draw_square(self, x: int, y: int, radius: int, dark: tuple[int, ...]) -> None:
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if 0 <= x + dx < self.size and 0 <= y + dy < self.size:
                    self._set(x + dx, y + dy, max(abs(dx), abs(dy)) in dark)

    def _draw_format(self, mask: int) -> None:
        data = rest = LEVEL_L << 3 | mask
        for _ in range(10):
            rest = rest << 1 ^ (rest >> 9) * 0x537
        bits = (data << 10 | rest) ^ 0x5412
        last = self.size - 1
        first = [(8, at) for at in (0, 1, 2, 3, 4, 5, 7, 8)] + [(at, 8) for at in (7, 5, 4, 3, 2, 1, 0)]
        second = [(last - at, 8) for at in range(8)] + [(8, last - 6 + at) for at in range(7)]
        for copy in (first, second):
            for at, (x, y) in enumerate(copy):
                self._set(x, y, bool(bits >> at & 1))
        self._set(8, self.size - 8, True)

    def _draw_version(self, version: int) -> None:
        if version < 7:
            return
        rest = version
        for _ in range(12):
            rest = rest << 1 ^ (rest >> 11) * 0x1F25
        bits = version << 12 | rest
        for at in range(18):
            x, y = self.size - 11 + at % 3, at // 3
            self._set(x, y, bool(bits >> at & 1))
            self._set(y, x, bool(bits >> at & 1))

    def _draw_data(self, codewords: bytes, mask: int) -> None:
        bits = (byte >> at & 1 for byte in codewords for at in range(7, -1, -1))
        for x, y in self._path():
            if not self.fixed[y][x]:
                # The last few modules, for which there are no codewords, are as zeros.
                self.modules[y][x] = bool(next(bits, 0)) != (MASKS[mask](x, y) == 0)

    def _path(self) -> Iterator[tuple[int, int]]:
        """Two columns at a time, from the right, up and down by turns."""
        for number, right in enumerate((*range(self.size - 1, 6, -2), *range(5, 0, -2))):
            rows = range(self.size) if number % 2 else range(self.size - 1, -1, -1)
            for y in rows:
                yield right, y
                yield right - 1, y


def _alignments(version: int) -> list[int]:
    if version == 1:
        return []
    count = version // 7 + 2
    step = (version * 8 + count * 3 + 5) // (count * 4 - 4) * 2
    return [6] + sorted(version * 4 + 10 - at * step for at in range(count - 1))


def _penalty(modules: Matrix) -> int:
    size = len(modules)
    runs, squares, finders, balance = PENALTIES
    total = 0
    for lines in (modules, list(map(list, zip(*modules, strict=True)))):
        for line in lines:
            total += sum(runs + length - 5 for length in _runs(line) if length >= 5)
            total += finders * sum(tuple(line[at : at + 11]) in FINDER_LIKE for at in range(size - 10))
    for y in range(size - 1):
        for x in range(size - 1):
            same = modules[y][x] == modules[y][x + 1] == modules[y + 1][x] == modules[y + 1][x + 1]
            total += squares * same
    dark = sum(map(sum, modules))
    return total + balance * (abs(dark * 20 - size * size * 10) // (size * size))


def _runs(line: list[bool]) -> Iterator[int]:
    length = 0
    for at, dark in enumerate(line):
        length += 1
        if at + 1 == len(line) or line[at + 1] != dark:
            yield length
            length = 0
