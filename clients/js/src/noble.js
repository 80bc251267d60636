// For engines without WebCrypto, such as React Native's: importing this puts @noble's cryptography in its place, and what
// else they may lack. It runs in JavaScript, and blocks while it does.

import { engine } from '../../../src/phone/engine.js';
import { subtle } from './noble-subtle.js';
import { decodeBase64, decodeUtf8, encodeBase64, encodeUtf8 } from './text.js';

engine.crypto = {
  subtle,
  getRandomValues(bytes) {
    const source = globalThis.crypto;
    if (source?.getRandomValues) return source.getRandomValues(bytes);
    throw new Error('There are no random numbers: import react-native-get-random-values before @coralmux/client/noble');
  },
};
if (!globalThis.TextEncoder) engine.encode = encodeUtf8;
if (!globalThis.TextDecoder) engine.decode = decodeUtf8;
if (!globalThis.btoa) engine.btoa = encodeBase64;
if (!globalThis.atob) engine.atob = decodeBase64;

export * from './index.js';
