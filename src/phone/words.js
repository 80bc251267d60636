// What the page says about its state. One place, so that it says the same everywhere, and nothing that is not so.

// A short line for the header.
export function presence(connection, agentOnline, now = Date.now()) {
  switch (connection.name) {
    case 'open':
      return agentOnline ? 'Online' : 'Offline';
    case 'connecting':
      return 'Connecting…';
    case 'waiting':
      return `Reconnecting in ${Math.max(1, Math.ceil((connection.until - now) / 1000))} s`;
    default:
      return 'Not connected';
  }
}

// What the encryption is worth: { label, level: 'good' | 'fair' | 'bad' | 'idle', text }
export function security({ name, why }) {
  switch (name) {
    case 'verified':
      return {
        label: 'Encrypted, verified',
        level: 'good',
        text: 'Only this browser and your agent can read what you write. The key came with the pairing link and never went through the relay, so nobody can sit in between.',
      };
    case 'unverified':
      return {
        label: 'Encrypted, not verified',
        level: 'fair',
        text: 'What you write is encrypted, but nothing proves yet that the other end is your agent. Compare this number with the one your agent shows. If they are the same, nobody sits in between.',
      };
    case 'plain':
      return { label: 'Not encrypted', level: 'bad', text: PLAIN[why] };
    case 'refused':
      return { label: 'Not secure', level: 'bad', text: REFUSED[why] };
    case 'away':
      return {
        label: 'Encrypted, verified',
        level: 'good',
        text: 'This browser has keys of its own for your agent. They are used again when it is there.',
      };
    case 'enrolling':
    case 'waiting':
      return { label: 'Not added yet', level: 'idle', text: 'Your agent has to let this browser in.' };
    case 'pending':
      return { label: 'Securing…', level: 'idle', text: 'This browser and your agent are agreeing on keys.' };
    default:
      return { label: 'No keys yet', level: 'idle', text: 'Keys are agreed upon when the agent is online.' };
  }
}

const INSECURE =
  'This page was opened over http://, and there browsers offer no encryption. Open it over https://, or as http://localhost on the relay’s own computer.';
const OLD = 'This browser lacks the encryption that is needed (X25519). Chrome 133, Firefox 130 and Safari 17 have it, and newer ones.';

const PLAIN = {
  agent: 'This agent does not encrypt. The relay, and whoever runs it, can read this chat.',
  insecure: `${INSECURE} Until then the relay, and whoever listens on the way, can read this chat.`,
  old: `${OLD} Until then the relay, and whoever runs it, can read this chat.`,
};

const REFUSED = {
  version1:
    'The agent offers only encryption that is not verified, although this browser was paired with a secret key. Nothing is sent. Update the agent, or pair again if it is a different one.',
  mismatch: 'The agent has another pairing key than this browser. Nothing is sent. Open the newest link that your agent shows.',
  tampered: 'Somebody on the way changed the agreement on keys, or it was damaged. Nothing is sent.',
  secret: 'This agent takes only messages that are encrypted with its pairing key, and the link you opened has none. Open the whole link that your agent shows.',
  agent: 'The agent that answers is not the one of your link. Nothing is sent. Open the newest link that your agent shows.',
  link: 'Your agent does not answer this link: it may be used up. Show a new one, and open that.',
  lost: 'This browser no longer has its keys for your agent: its storage was cleared. Show a new link, and open that.',
  storage: 'This browser keeps nothing here, and without its storage it cannot have keys of its own. Leave the private window, or use another browser.',
  insecure: INSECURE,
  old: OLD,
};

// Why there is no connection any more, for a banner: { title, text, action }
export const ENDED = {
  replaced: {
    title: 'The chat is open elsewhere',
    text: 'Another tab or device took over. There is one phone for each pairing at a time.',
    action: 'Use it here',
  },
  revoked: {
    title: 'This pairing was revoked',
    text: 'The operator of the relay ended it. Start your agent anew and open the link it shows.',
    action: 'Pair again',
  },
  refused: {
    title: 'The relay does not know this pairing',
    text: 'It has expired or was removed. Open the newest link that your agent shows.',
    action: 'Pair again',
  },
  // Of a device. Nothing of it is removed on the relay's word alone.
  noDevices: {
    title: 'Not possible with this relay',
    text: 'The relay does not know this browser as a device, and your link is made for that. Nothing was sent. Show a new link.',
    action: 'Pair again',
  },
  linkUsed: {
    title: 'This link was used',
    text: 'The relay says that this link was used, or is too old: show a new one. If it was not you who used it, look at the devices at your agent.',
    action: 'Pair again',
  },
  notAdmitted: {
    title: 'This browser was not added',
    text: 'The relay says that your agent refused it, or did not answer in time. Show a new link to try again.',
    action: 'Pair again',
  },
  deviceRevoked: {
    title: 'This browser was removed',
    text: 'The relay says (not verified) that your agent removed this browser. The conversation is still here. To chat again, open a new link.',
    action: 'Pair again',
  },
  deviceRefused: {
    title: 'The relay does not know this browser',
    text: 'The relay says (not verified) that it knows neither this pairing nor this browser any more. The conversation is still here.',
    action: 'Pair again',
  },
};

// Of a browser that is about to become a device: { title, text }
export function joining(connection, agentOnline, name) {
  if (name === 'waiting') {
    return {
      title: 'Compare this number',
      text: 'Your agent, or the device that showed the link, shows the same one. Let this browser in there. If the numbers differ, refuse: somebody else used the link.',
    };
  }
  // The banner says why.
  if (connection.name === 'ended' || name === 'refused') return { title: 'Not added', text: '' };
  const title = 'Adding this browser';
  if (connection.name !== 'open') return { title, text: 'Connecting…' };
  return { title, text: agentOnline ? 'Asking your agent…' : 'Your agent is not connected. This goes on when it is.' };
}

// What this browser is called until somebody renames it.
export function browserName(agent) {
  const system = agent.match(/iPhone|iPad|Android|Windows|Mac OS|CrOS|Linux/)?.[0] ?? '';
  const browser = agent.match(/Edg|OPR|Firefox|FxiOS|CriOS|Chrome|Safari/g);
  const names = { Edg: 'Edge', OPR: 'Opera', FxiOS: 'Firefox', CriOS: 'Chrome' };
  const found = ['Edg', 'OPR', 'Firefox', 'FxiOS', 'CriOS', 'Chrome', 'Safari'].find((one) => browser?.includes(one));
  const name = names[found] ?? found ?? 'Browser';
  return system ? `${name}, ${system.replace('Mac OS', 'Mac').replace('CrOS', 'ChromeOS')}` : name;
}

// Marks by which a text can be made to show in another order than it has (Unicode's overrides, embeddings, isolates).
export const BIDI = /[\u202a-\u202e\u2066-\u2069]/g;

const ERROR_CHARACTERS_MAX = 300;

// An agent that does not say what it is called.
export const NAME = 'My agent';

export const STAYS = 'The agent could not remove this browser from its devices. Remove it there, on another device or with “coralmux-agent devices”.';

// Where `later.js` does not come.
export const NOT_LOADED = 'A part of this page could not be loaded. Load the page again.';

// What somebody else wrote, as one line of bounded length; '' where it is no text.
export function plainText(text, max) {
  if (typeof text !== 'string') return '';
  // Twice as much is enough to begin with, and keeps the work small.
  const line = text.slice(0, 2 * max).replace(BIDI, '').replace(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > max ? `${line.slice(0, max).trimEnd()}…` : line;
}

const KNOWN = {
  PEER_OFFLINE: 'The agent is offline.',
  RATE_LIMITED: 'Too many messages.',
  DAILY_QUOTA_EXCEEDED: 'This pairing has used up its data for today.',
  MONTHLY_QUOTA_EXCEEDED: 'This pairing has used up its data for this month.',
  MESSAGE_TOO_LARGE: 'The message is too large for this relay.',
};

const FINISHES = {
  length: 'The answer is not complete: the model’s length limit was reached.',
  content_filter: 'The answer is not complete: a content filter cut it off.',
  tool_calls: 'The answer is not complete: the model wanted to use a tool that the agent does not have.',
  refusal: 'The model refused to answer.',
};

// How an answer ended that is not simply complete.
export function finishText(finish) {
  return Object.hasOwn(FINISHES, finish) ? FINISHES[finish] : 'The answer may not be complete: the model stopped for another reason.';
}

// How an answer ended whose agent did.
export const RESTARTED = 'The agent was restarted and did not finish this.';

// Of a question that the relay keeps for an agent that is away.
export const KEPT = 'Waits for your agent';

// Of one that it was to keep, and did not hand out.
export const UNDELIVERED = 'Your agent never got this';

// A message that left, of which nobody confirms that it came.
export const UNKNOWN = 'It is not known whether the agent has this';

// The two ends confirmed messages to each other, and no longer do.
export const UNCONFIRMED =
  'The agent no longer confirms what it gets: it is an older version now, or somebody on the way keeps the two of you from agreeing on it. Messages that are on their way when a connection breaks can be lost.';

// What of the agent's words did not come.
export function missedText(count, resumes) {
  const what = count === 1 ? 'One message' : `${count} messages`;
  if (resumes) return `${what} from the agent did not arrive. This browser was away for longer than the agent keeps ${count === 1 ? 'it' : 'them'}.`;
  return `${what} from the agent did not arrive. The relay held ${count === 1 ? 'it' : 'them'} back, or somebody on the way did.`;
}

// What an error means for the one who wrote the message.
export function errorText({ code, message, retry_after_ms: retryAfterMs }) {
  const known = Object.hasOwn(KNOWN, code) ? KNOWN[code] : undefined;
  const text = known ?? (plainText(message, ERROR_CHARACTERS_MAX) || 'Something went wrong at the agent.');
  return retryAfterMs > 0 && known ? `${text} Try again in ${duration(retryAfterMs)}.` : text;
}

// The same for an error that came in clear into an encrypted chat: anybody on the way may have written it.
export function unverifiedText(payload) {
  const known = Object.hasOwn(KNOWN, payload.code) || plainText(payload.message, 1);
  return `The relay says (not verified): ${known ? errorText(payload) : 'an error, without a word'}`;
}

// What waits here, because the relay did not take it.
export function waitsText({ code, bytes_max: max, ...payload }) {
  if (max) return `Waits here for your agent: the relay keeps nothing longer than ${Math.floor(max / 1024).toLocaleString('en')} KiB.`;
  if (code === 'MAILBOX_FULL') return `Waits here for your agent. ${unverifiedText(payload)}`;
  return `Waits to be sent. ${unverifiedText({ ...payload, code, retry_after_ms: 0 })}`;
}

function duration(ms) {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 90 ? `${minutes} minutes` : `${Math.ceil(minutes / 60)} hours`;
}
