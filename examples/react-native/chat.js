// The phone of this app, and what the screen shows of it. Random numbers come first: Hermes has none of its own.
import 'react-native-get-random-values';
import { AppState } from 'react-native';
import { Phone } from '@coralmux/client/noble';
import { keychain } from './keychain';

// link: null where the keychain has the pairing; change(): something to draw anew.
export function openChat(link, change) {
  const messages = [];
  const phone = new Phone(link, { storage: keychain, name: 'My phone', platform: 'react-native' });
  const show = (message) => {
    messages.push(message);
    change();
  };

  // An answer to what was asked here, or what the agent says by itself.
  const follow = async (answer) => {
    const message = { role: 'agent', text: '', key: answer.id };
    show(message);
    try {
      for await (const piece of answer) {
        message.text += piece;
        change();
      }
      message.text = answer.text;
    } catch (error) {
      message.error = error.message;
    }
    change();
  };

  phone.on('state', change);
  phone.on('answer', follow);
  phone.on('question', (question) => {
    const message = { role: 'question', text: question.text, key: question.ask, options: question.options, reply: (id) => question.reply(id) };
    question.over.then(({ option }) => {
      message.options = [];
      message.text += `\n${option ?? 'Not answered'}`;
      change();
    });
    show(message);
  });

  // A socket dies in the background; a device's messages wait at the relay meanwhile.
  const watching = AppState.addEventListener('change', (state) => (state === 'active' ? phone.wake() : phone.sleep()));

  return {
    phone,
    messages,
    ask(text) {
      const answer = phone.ask(text);
      show({ role: 'me', text, key: `me-${answer.id}` });
      return follow(answer);
    },
    close() {
      watching.remove();
      phone.close();
    },
  };
}

// What the state means, for people.
export function stateText({ connection, why, agentOnline, security }) {
  if (connection === 'ended') return why === 'replaced' ? 'Another app uses this pairing.' : 'This pairing has ended. Pair again.';
  if (security.name === 'waiting') return `Your agent shows a number. Let this phone in if it is ${security.code}.`;
  if (security.name === 'refused') return 'The agent has other keys than this link. Nothing is sent. Pair again.';
  if (security.name === 'plain') return 'Not encrypted. Nothing is sent.';
  if (connection !== 'open') return 'Connecting…';
  if (!agentOnline) return 'Your agent is away. What you write waits for it.';
  if (security.name === 'verified') return 'Encrypted, verified';
  return security.name === 'unverified' ? `Encrypted. Does your agent show ${security.fingerprint}?` : 'Agreeing on keys…';
}
