// A server in front of a relay that changes what the two sides of a WebSocket say to each other.
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { WebSocket, WebSocketServer } from 'ws';

export class Front {
  // toRelay(message, reply), toPage(message): return the message that goes on, or nothing.
  static async start(relay, toRelay, toPage) {
    const front = new Front();
    front.server = createServer(({ method, url, headers }, answer) => {
      const forwarded = request({ port: relay.port, method, path: url, headers }, (got) => {
        answer.writeHead(got.statusCode, got.headers);
        got.pipe(answer);
      });
      forwarded.on('error', () => answer.destroy()).end();
    });
    const sockets = new WebSocketServer({ server: front.server });
    sockets.on('connection', (page) => {
      const upstream = new WebSocket(relay.url);
      const open = once(upstream, 'open').catch(() => page.close());
      page.on('message', async (text) => {
        await open;
        const changed = toRelay(JSON.parse(text), (message) => page.send(JSON.stringify(message)));
        if (changed) upstream.send(JSON.stringify(changed));
      });
      upstream.on('message', (text) => page.send(JSON.stringify(toPage(JSON.parse(text)))));
      upstream.on('close', () => page.close()).on('error', () => page.close());
      page.on('close', () => upstream.close());
    });
    front.server.listen(0, '127.0.0.1');
    await once(front.server, 'listening');
    front.port = front.server.address().port;
    return front;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
