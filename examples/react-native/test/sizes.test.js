// React Native's WebSocket takes and sends what is near the limit: `URL`, `TOKEN` and `SIZES` say where to and how long.
const WebSocket = require('react-native/Libraries/WebSocket/WebSocket').default;

test('texts of every size go both ways', async () => {
  const { URL: url, TOKEN: token, SIZES: sizes } = process.env;
  const socket = new WebSocket(url);
  const messages = [];
  const waiting = [];
  socket.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : messages.push(data));
  const closed = new Promise((done) => (socket.onclose = ({ code }) => done(code)));
  const next = () => (messages.length ? messages.shift() : new Promise((done) => waiting.push(done)));
  const send = (type, payload) => socket.send(JSON.stringify({ v: 1, type, id: '1', ts: 1, payload }));
  await new Promise((done) => (socket.onopen = done));
  send('auth', { token, role: 'phone' });
  expect(JSON.parse(await next()).type).toBe('auth.ok');
  for (const size of sizes.split(' ').map(Number)) {
    const text = 'abcdefghij'.repeat(size / 10 + 1).slice(0, size);
    send('chat.send', { text });
    for (let piece = 0; piece < 3; piece++) expect(JSON.parse(await next()).type).toBe('chat.stream');
    expect(JSON.parse(await next()).payload.full_text === text).toBe(true);
  }
  socket.close(1000, '');
  expect(await closed).toBe(1000);
}, 60_000);
