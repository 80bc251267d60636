// The app's chat over React Native's own WebSocket, with the agent of LINK behind a real relay: coralmux-agent --echo.
globalThis.WebSocket = require('react-native/Libraries/WebSocket/WebSocket').default;
const { openChat, stateText } = require('../chat');
const { keychain } = require('../keychain');

const until = async (is) => {
  for (let tries = 0; tries < 400 && !is(); tries++) await new Promise((done) => setTimeout(done, 50));
  expect(is()).toBe(true);
};

let chat;
afterEach(() => chat?.close());

test('pairs, is verified, chats, and goes on from the keychain', async () => {
  expect(globalThis.crypto.subtle).toBeUndefined();
  let drawn = 0;
  chat = openChat(process.env.LINK, () => (drawn += 1));
  await chat.ask('to be or not to be');
  expect(chat.messages.map(({ role }) => role)).toEqual(['me', 'agent']);
  expect(chat.messages[1].text).toContain('to be or not to be');
  expect(stateText(chat.phone.state)).toBe('Encrypted, verified');
  expect(drawn).toBeGreaterThan(3);
  const long = 'abcdefghij'.repeat(100_000);
  await chat.ask(long);
  expect([chat.messages[3].error, chat.messages[3].text.includes(long)]).toEqual([undefined, true]);
  chat.close();

  expect(await keychain.load()).toEqual(expect.any(String));
  chat = openChat(null, () => {});
  await chat.ask('once more');
  expect(chat.messages[1].text).toContain('once more');
}, 60_000);

test('says what is wrong with a link, and with a secret', async () => {
  expect(() => openChat('https://example.com/', () => {})).toThrow('pairing link');
  const other = process.env.OTHER_SECRET;
  chat = openChat(process.env.PLAIN_LINK.replace(/&k=[^&]*/, `&k=${other}`), () => {});
  await until(() => chat.phone.state.security.name === 'refused');
  expect(stateText(chat.phone.state)).toContain('Nothing is sent');
}, 60_000);
