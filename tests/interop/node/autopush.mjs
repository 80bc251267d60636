// Firefox's push service, as far as a browser speaks to it: it hands out addresses for subscriptions, and passes on pushes.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { WebSocketServer } from 'ws';

export class Autopush {
  // The subscriptions: channel to { key: the relay's, endpoint }.
  channels = new Map();
  #sockets = new Set();

  static async start() {
    const service = new Autopush();
    service.server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    service.server.on('connection', (socket) => {
      service.#sockets.add(socket);
      socket.on('message', (text) => service.#handle(socket, JSON.parse(text)));
      socket.on('close', () => service.#sockets.delete(socket));
    });
    await once(service.server, 'listening');
    return service;
  }

  // What makes Firefox use it.
  get preferences() {
    return {
      'dom.push.serverURL': `ws://127.0.0.1:${this.server.address().port}/`,
      'dom.push.testing.allowInsecureServerURL': true,
      'dom.push.connection.enabled': true,
      'permissions.default.desktop-notification': 1,
      'alerts.useSystemBackend': false,
    };
  }

  #handle(socket, { messageType, channelID, key }) {
    const say = (message) => socket.send(JSON.stringify(message));
    if (messageType === 'hello') say({ messageType, status: 200, uaid: randomUUID().replaceAll('-', ''), use_webpush: true });
    else if (messageType === 'ping') say({});
    else if (messageType === 'register') {
      const endpoint = `https://push.example/${channelID}`;
      this.channels.set(channelID, { key, endpoint });
      say({ messageType, status: 200, channelID, pushEndpoint: endpoint });
    } else if (messageType === 'unregister') {
      this.channels.delete(channelID);
      say({ messageType, status: 200, channelID });
    }
  }

  // A push without content, to an address of a subscription. Whether there is one.
  push(endpoint) {
    const [channelID] = [...this.channels].find(([, channel]) => channel.endpoint === endpoint) ?? [];
    if (!channelID) return false;
    for (const socket of this.#sockets) socket.send(JSON.stringify({ messageType: 'notification', channelID, version: randomUUID() }));
    return true;
  }

  stop() {
    for (const socket of this.#sockets) socket.terminate();
    this.server.close();
  }
}
