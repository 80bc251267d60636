// The slot for what an engine lacks, or does better than its JavaScript.

import { engine } from '../../../src/phone/engine.js';

// crypto: { subtle, getRandomValues }, as WebCrypto has them; WebSocket: a class like the browser's.
export function configure({ crypto, WebSocket }) {
  if (crypto) engine.crypto = crypto;
  if (!WebSocket) return;
  engine.socket = (url) => {
    const socket = new WebSocket(url);
    // It closes as well, which says all; `ws` would end the process.
    socket.onerror = () => {};
    return socket;
  };
}
