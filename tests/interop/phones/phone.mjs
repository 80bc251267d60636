// Whatever has a WebSocket like the browser's: `LIBRARY` says from where, the engine's own where it says nothing.
const { WebSocket } = process.env.LIBRARY ? await import(process.env.LIBRARY) : globalThis;
const [url, token, ...sizes] = process.argv.slice(2);
const socket = new WebSocket(url);
const messages = [];
const waiting = [];
socket.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : messages.push(data));
const closed = new Promise((done) => (socket.onclose = ({ code }) => done(code)));
const next = () => (messages.length ? messages.shift() : new Promise((done) => waiting.push(done)));
const send = (type, payload) => socket.send(JSON.stringify({ v: 1, type, id: '1', ts: 1, payload }));
const check = (is, what) => {
  if (is) return;
  console.log(what);
  process.exit(1);
};
await new Promise((done) => (socket.onopen = done));
send('auth', { token, role: 'phone' });
check(JSON.parse(await next()).type === 'auth.ok', 'not let in');
for (const size of sizes.map(Number)) {
  const text = 'abcdefghij'.repeat(size / 10 + 1).slice(0, size);
  send('chat.send', { text });
  for (let piece = 0; piece < 3; piece++) check(JSON.parse(await next()).type === 'chat.stream', 'no piece');
  check(JSON.parse(await next()).payload.full_text === text, 'not the same text');
}
socket.close(1000, '');
check((await closed) === 1000, 'not closed');
console.log('ok');
process.exit(0);
