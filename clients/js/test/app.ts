// What an app writes, for the type checker alone.
import { Agent, AskError, LinkError, Phone, configure, formatLink, indexedDbStorage, pair, parseLink, type Answer, type Storage } from '@coralmux/client';
import * as noble from '@coralmux/client/noble';

configure({ WebSocket, crypto });

const keystore: Storage = { load: async () => localStorage.getItem('state'), save: async (state) => localStorage.setItem('state', state) };
const phone = new Phone('openclaw://pair?token=t&relay=wss%3A%2F%2Frelay.example%2Fws', { storage: keystore, name: 'Tablet', platform: 'web', keep: async () => {} });
const again = new noble.Phone(null, { storage: indexedDbStorage() });

const off: () => void = phone.on('state', ({ connection, security }) => {
  if (connection === 'ended') off();
  if (security.name === 'waiting') console.log(security.code);
});
phone.on('question', ({ options, reply }) => reply(options[0]?.id ?? 'yes'));
phone.on('answer', (answer: Answer) => console.log(answer.id));

const answer = phone.ask('hello', { images: [{ data: new Uint8Array(), mime: 'image/png' }], chatId: 'c1', signal: AbortSignal.timeout(1_000) });
for await (const piece of answer) console.log(piece.length);
const text: string = await answer;
answer.cancel();
try {
  await again.request('chat.history', { limit: 10 });
} catch (error) {
  if (error instanceof AskError) console.log(error.code, error.retryAfterMs);
  if (error instanceof LinkError) console.log(error.message);
}

const { app, browser } = await pair('wss://relay.example', { adminKey: 'key' });
console.log(text, browser ?? app, formatLink(parseLink(app)).app);
const agent = new Agent(app, {
  name: 'Mine',
  async *answer({ text, images, signal, ask, activity }) {
    activity({ tool: 'search', message: 'Searching' });
    yield `${text} ${images.length} ${signal.aborted} ${await ask('Sure?', { options: ['yes', 'no'], default: 'no', timeoutMs: 1_000 })}`;
  },
});
new Agent(app, { answer: () => 'text' }).close();
console.log(agent.state.version, agent.say('done'));

// @ts-expect-error: no such event
phone.on('nothing', () => {});
// @ts-expect-error: a text
phone.ask(1);
// @ts-expect-error: an agent answers
new Agent(app, {});
// @ts-expect-error: text, where keys cannot be cloned
new Phone(null, { storage: { load: async () => ({}), save: async () => {} } });
