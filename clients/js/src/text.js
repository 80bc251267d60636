// UTF-8 and base64 for engines that have neither `TextDecoder` nor `atob`.

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const PIECE = 0x2000;

// Half of a pair of code units becomes U+FFFD, as `TextEncoder` has it.
export function encodeUtf8(text) {
  const bytes = new Uint8Array(text.length * 3);
  let length = 0;
  for (let at = 0; at < text.length; at++) {
    let point = text.codePointAt(at);
    if (point > 0xffff) at += 1;
    else if (point >= 0xd800 && point <= 0xdfff) point = 0xfffd;
    if (point < 0x80) {
      bytes[length++] = point;
      continue;
    }
    const more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    bytes[length++] = (0xff00 >> (more + 1)) & 0xff | (point >> (6 * more));
    for (let left = more - 1; left >= 0; left--) bytes[length++] = 0x80 | ((point >> (6 * left)) & 0x3f);
  }
  return bytes.slice(0, length);
}

// Throws where it is not UTF-8; a byte order mark is dropped, as `TextDecoder` does.
export function decodeUtf8(bytes) {
  const pieces = [];
  let points = [];
  for (let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0; at < bytes.length; ) {
    const first = bytes[at++];
    const more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : -1;
    let point = more > 0 ? first & (0x3f >> more) : first;
    let isRight = more >= 0 && at + more <= bytes.length;
    for (let left = more; left > 0 && isRight; left--) {
      isRight = (bytes[at] & 0xc0) === 0x80;
      point = (point << 6) | (bytes[at++] & 0x3f);
    }
    // Longer than it need be, half of a pair, or beyond Unicode.
    if (!isRight || point < [0, 0x80, 0x800, 0x10000][more] || (point >= 0xd800 && point < 0xe000) || point > 0x10ffff) {
      throw new TypeError('not UTF-8');
    }
    points.push(point);
    if (points.length < PIECE) continue;
    pieces.push(String.fromCodePoint(...points));
    points = [];
  }
  return pieces.join('') + String.fromCodePoint(...points);
}

// As `btoa`: of a text of which each character is a byte.
export function encodeBase64(binary) {
  const pieces = [];
  for (let at = 0; at < binary.length; at += 3) {
    const [a, b, c] = [binary.charCodeAt(at), binary.charCodeAt(at + 1), binary.charCodeAt(at + 2)];
    const left = binary.length - at;
    pieces.push(
      ALPHABET[a >> 2] +
        ALPHABET[((a & 3) << 4) | (b >> 4)] +
        (left > 1 ? ALPHABET[((b & 15) << 2) | (c >> 6)] : '=') +
        (left > 2 ? ALPHABET[c & 63] : '='),
    );
  }
  return pieces.join('');
}

const VALUES = new Uint8Array(128);
for (let value = 0; value < ALPHABET.length; value++) VALUES[ALPHABET.charCodeAt(value)] = value;

// As `atob`, of base64 that has been looked at: whole, with its padding.
export function decodeBase64(text) {
  const pieces = [];
  const length = text.replace(/=+$/, '').length;
  for (let at = 0; at < length; at += 4) {
    const [a, b, c, d] = [0, 1, 2, 3].map((more) => VALUES[text.charCodeAt(at + more)]);
    const bytes = String.fromCharCode((a << 2) | (b >> 4), ((b & 15) << 4) | (c >> 2), ((c & 3) << 6) | d);
    pieces.push(bytes.slice(0, length - at >= 4 ? 3 : length - at - 1));
  }
  return pieces.join('');
}
