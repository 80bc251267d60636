// What the engine around gives. A browser has all of it; where another engine lacks a part, @coralmux/client puts one in.

export const engine = {
  crypto: globalThis.crypto,
  // Whether private keys can be taken out of it, to be stored as bytes.
  extractable: false,
  socket: (url) => new WebSocket(url),
  encode: (text) => new TextEncoder().encode(text),
  // Throws where it is not UTF-8.
  decode: (bytes) => new TextDecoder('utf-8', { fatal: true }).decode(bytes),
  btoa: (binary) => btoa(binary),
  atob: (text) => atob(text),
};
