// What Hermes has not, is not here either; and the native halves of React Native's WebSocket and of the app's libraries are
// Node's, under the same JavaScript.
const { webcrypto } = require('crypto');

Object.defineProperty(globalThis, 'crypto', { configurable: true, value: { getRandomValues: (bytes) => webcrypto.getRandomValues(bytes) } });
delete globalThis.TextDecoder;

jest.mock('react-native-get-random-values', () => ({}));

jest.mock('react-native-keychain', () => {
  const kept = new Map();
  return {
    ACCESSIBLE: { AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY: 'AccessibleAfterFirstUnlockThisDeviceOnly' },
    getGenericPassword: async ({ service }) => kept.has(service) && { password: kept.get(service) },
    setGenericPassword: async (_name, text, { service }) => (kept.set(service, text), { service }),
  };
});

jest.mock('react-native/src/private/specs_DEPRECATED/modules/NativeWebSocketModule', () => {
  const { WebSocket } = jest.requireActual('ws');
  const sockets = new Map();
  const { default: events } = jest.requireActual('react-native/Libraries/EventEmitter/RCTDeviceEventEmitter');
  const emit = (name, event) => events.emit(name, event);
  const module = {
    connect(url, protocols, options, id) {
      const socket = new WebSocket(url, protocols ?? [], { headers: options?.headers });
      sockets.set(id, socket);
      socket.on('open', () => emit('websocketOpen', { id, protocol: socket.protocol }));
      socket.on('message', (data, isBinary) => emit('websocketMessage', { id, type: isBinary ? 'binary' : 'text', data: data.toString(isBinary ? 'base64' : 'utf8') }));
      socket.on('close', (code, reason) => emit('websocketClosed', { id, code, reason: String(reason) }));
      socket.on('error', ({ message }) => emit('websocketFailed', { id, message }));
    },
    send: (text, id) => sockets.get(id).send(text),
    sendBinary: (bytes, id) => sockets.get(id).send(Buffer.from(bytes, 'base64')),
    ping: (id) => sockets.get(id).ping(),
    close: (code, reason, id) => sockets.get(id).close(code, reason),
    addListener() {},
    removeListeners() {},
  };
  return { __esModule: true, default: module };
});
