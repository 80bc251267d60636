// The page: the agents that this browser is paired with, and the one whose chat is shown. State lives in the chats (see
// chat.js); elements only show it.

import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { support } from './crypto.js';
import { canScan, confirm } from './dialogs.js';
import { $ } from './dom.js';
import { Frame } from './frame.js';
import { LinkError, loadPairings, readFragment, readLink, savePairings } from './link.js';
import { takeLock } from './lock.js';
import { Conversation } from './messages.js';
import { within } from './patience.js';
import { NOT_LOADED, STAYS, security } from './words.js';

// The browser itself is not waited for longer.
const BROWSER_MS = 3_000;
// So many agents may be connected at a time.
const AGENTS_MAX = 8;
// So many words about devices wait for a chat that is not shown.
const OF_DEVICES_MAX = 20;
const SECOND = 'This browser becomes one more of its devices. Remove the old one there.';
const NOT_REMOVED = 'This browser’s storage does not answer. What it kept of the conversation may still be there.';
const TITLE = document.title;

let abilities = 'ok';
let chats = [];
// The one that is shown; null on the pairing page.
let current = null;
let before = null;
// Lets go of the keys of this browser as a device; null where it is none, or has let go.
let letGo = null;

const conversation = new Conversation($('scroller'), $('log'), {
  retry: (message) => current.resend(message),
  follow: (isAtEnd) => ($('to-end').hidden = isAtEnd),
  answer: (asked, given) => current.answer(asked, given),
  act: (message) => afterwards(({ actions }) => actions.open(message)),
  more: (message, place) => afterwards(({ drawMore }) => drawMore(message, place)),
});

const composer = new Composer({
  isOpen: () => Boolean(current?.channel),
  send: (text, images) => current.submit(text, images),
});

const frame = new Frame({
  announce: (text) => announce(text),
  takeBack: () => takeBack(),
  unpair: () => unpair(),
  allowPlain: () => {
    current.allowPlain();
    composer.focus();
  },
});

const page = {
  conversation,
  isShown: (chat) => chat === current,
  announce: (text) => announce(text),
  save: () => save(),
  listed: () => showList(),
  changed: (chat) => show(chat),
  claim: (key) => otherPages?.postMessage(key),
  takeKeys: () => takeKeys(),
  giveWay: () => giveWay(),
  worked: () => showWork(),
  answered: () => afterwards(({ push }) => push.handleAnswer()),
  devices: (chat, type, payload) => receiveOfDevices(chat, type, payload),
  deviceFailed: (payload) => Boolean(later?.devices.fail(payload)),
  deviceName: (id) => later?.devices.nameOf(id),
};

// The other pages of this browser: the last one that opens a pairing has it.
const otherPages = globalThis.BroadcastChannel && new BroadcastChannel('coralmux');
if (otherPages) otherPages.onmessage = ({ data }) => chats.some(({ key }) => key === data) && giveWay();

// What `later.js` has: null until it has come.
let later = null;
let loading = null;

// Has `act` done with what `later.js` has; resolves to whether it has come.
function afterwards(act) {
  loading ??= import('./later.js').then(({ Actions, Agents, Devices, Push, Search, drawMore, exportChat, scanCode, showAbout }) => {
    const actions = new Actions({ edit: ({ text, images }) => composer.edit(text, images), announce: (text) => announce(text) });
    const search = new Search({ goTo: (message) => conversation.goTo(message) });
    const agents = new Agents({ show: (chat) => switchTo(chat), add: () => welcome() });
    const devices = new Devices({
      send: (type, payload, id) => current?.send(type, payload, id) ?? Promise.resolve(false),
      announce: (text) => announce(text),
    });
    const push = new Push({ announce: (text) => announce(text) });
    later = { actions, agents, devices, push, search, drawMore, exportChat, scanCode, showAbout };
    showPush();
    look();
  });
  return loading.then(
    () => Promise.resolve(act(later)).then(() => true),
    (error) => {
      console.warn('not loaded:', error);
      loading = null;
      return false;
    },
  );
}

let announced = '';
function announce(text) {
  // The same words twice would not be read out twice.
  announced = text === announced ? `${text}\u00a0` : text;
  $('announcer').textContent = announced;
}

// ---- Pairing ----

async function begin() {
  abilities = await within(support(), BROWSER_MS).catch(() => 'old');
  chats = loadPairings().map((pairing) => new Chat(pairing, abilities, page));
  const linked = fromAddressBar();
  const adopted = linked && (await adopt(linked));
  for (const chat of chats) if (chat !== (adopted || chats[0])) chat.open();
  if (chats.length) await openChat(adopted || chats[0]);
  else welcome();
}

// The one that is shown is the first of the pairings that are kept.
function save() {
  const shown = current ?? chats[0];
  const ordered = [...chats].sort((one, other) => (other === shown) - (one === shown));
  savePairings(ordered.map(({ pairing, unseen }) => ({ ...pairing, unseen: unseen || undefined })));
}

// The pairing in the page's own address, which is taken out of it: an address is shown, kept and shared.
function fromAddressBar() {
  const { hash } = location;
  if (!hash) return null;
  try {
    return readFragment(hash);
  } catch (error) {
    showLinkError(error);
    return null;
  } finally {
    window.history.replaceState(null, '', location.pathname + location.search);
  }
}

// Takes a pairing, after asking where there is one already: a link may come from anybody. Resolves to its chat, or null.
async function adopt(linked) {
  const same = chats.find(({ pairing }) => pairing.token === linked.token);
  if (same && (await same.isOf(linked))) return same;
  if (same) {
    const text = `This link is for the agent that this browser is paired with, with another key. Take it only if it comes from your own agent.${same.pairing.used ? ` ${SECOND}` : ''}`;
    if (!(await confirm('Use this new link?', text, 'Use it'))) return null;
    await same.close();
    same.use(linked);
    return same;
  }
  if (chats.length >= AGENTS_MAX) throw new LinkError(`This browser has ${AGENTS_MAX} agents, and no more are possible. Forget one first.`);
  const text = 'This link is for another agent than this browser is paired with. Add it only if it comes from your own agent.';
  if (chats.length && !(await confirm('Add another agent?', text, 'Add it'))) return null;
  const chat = new Chat(linked, abilities, page);
  chats.push(chat);
  save();
  return chat;
}

async function pair(text) {
  try {
    const linked = readLink(text, location.href);
    $('link').value = '';
    showLinkError(null);
    const chat = await adopt(linked);
    if (chat) await openChat(chat);
    return true;
  } catch (error) {
    showLinkError(error);
    return false;
  }
}

function showLinkError(error) {
  if (error && !(error instanceof LinkError)) throw error;
  $('link-error').textContent = error?.message ?? '';
  $('link').setAttribute('aria-invalid', String(Boolean(error)));
}

function welcome(trouble = '') {
  leaveCurrent();
  $('starting').hidden = $('chat').hidden = true;
  $('welcome').hidden = false;
  $('back').hidden = !chats.length;
  const { text } = security({ name: 'refused', why: abilities });
  $('welcome-note').textContent = trouble || (abilities === 'ok' ? '' : text);
  $('welcome-note').hidden = !$('welcome-note').textContent;
  $('app-note').hidden = !(navigator.standalone || matchMedia('(display-mode: standalone)').matches);
  canScan().then((can) => ($('scan').hidden = !can));
  if (matchMedia('(pointer: fine)').matches) $('link').focus();
}

// ---- The chat that is shown ----

// Takes what is shown off the screen.
function leaveCurrent() {
  if (current) {
    before = current;
    current.draft = $('text').value;
    write('');
  }
  current = null;
  conversation.clear();
  composer.clear();
  later?.devices.clear();
}

function write(text) {
  $('text').value = text;
  $('text').dispatchEvent(new Event('input'));
}

function putUp(chat) {
  leaveCurrent();
  current = chat;
  if (chat.draft) write(chat.draft);
  chat.draft = '';
  $('starting').hidden = $('welcome').hidden = true;
  $('chat').hidden = false;
  $('presence-text').textContent = 'Connecting…';
  showName();
}

// Shows a chat, opened anew.
async function openChat(chat, remark = '') {
  putUp(chat);
  await chat.open();
  if (current !== chat) return;
  save();
  if (remark) chat.note(remark);
  composer.focus({ preventScroll: true });
  composer.handleOpen();
}

// Shows a chat that goes on.
function switchTo(chat) {
  if (!chat.channel) {
    openChat(chat);
    return;
  }
  putUp(chat);
  chat.reveal();
  conversation.toEnd();
  show(chat);
  for (const [type, payload] of chat.ofDevices) afterwards(({ devices }) => devices.receive(type, payload));
  save();
  composer.focus({ preventScroll: true });
}

// The keys of devices are in one page at a time.
let locking = null;
function takeKeys() {
  if (!letGo) {
    locking ??= takeLock(() => letGo && giveWay()).then((lock) => {
      letGo = lock;
      locking = null;
    });
  }
  return locking ?? Promise.resolve();
}

// Another page has the pairings, or asks for them.
function giveWay() {
  for (const chat of chats) chat.giveWay();
  letGo?.();
  letGo = null;
}

// What another page has added or removed since is in its list.
function takeBack() {
  for (const pairing of loadPairings()) {
    if (!chats.some((chat) => chat.pairing.token === pairing.token)) chats.push(new Chat(pairing, abilities, page));
  }
  for (const chat of chats) chat.takeBack();
}

// Goes to the pairing page, and keeps the present pairing until another one is taken.
function unpair() {
  const left = current;
  welcome();
  left.close();
}

function receiveOfDevices(chat, type, payload) {
  if (type === 'met') {
    if (chat === current) afterwards(({ devices }) => devices.learn());
    return;
  }
  const isList = type === 'device.welcome' || type === 'device.list.result';
  chat.ofDevices = [...(isList ? [] : chat.ofDevices), [type, payload]].slice(-OF_DEVICES_MAX);
  if (chat === current) afterwards(({ devices }) => chat === current && devices.receive(type, payload));
}

// ---- What is shown of the state ----

function show(chat) {
  const { connection } = chat.channel;
  if (connection.name === 'open') afterwards(() => {});
  showPush();
  showList();
  showWork();
  if (chat === current && !chat.isLifting) frame.show(chat.channel, chat.pairing.plainAllowed, chat.isEmpty);
}

function showName() {
  $('agent-name').textContent = current.name;
}

let shownCount = '';
function showList() {
  const others = chats.filter((chat) => chat !== current).reduce((sum, { unseen }) => sum + unseen, 0);
  const all = others + (current?.unseen ?? 0);
  if (current) showName();
  $('others').hidden = !others;
  $('others').textContent = others > 99 ? '99+' : others;
  $('agents-open').setAttribute('aria-label', `All agents${others ? `, ${others} new` : ''}`);
  later?.agents.show(chats, current);
  if (shownCount === String(all)) return;
  shownCount = String(all);
  document.title = all ? `(${all}) ${TITLE}` : TITLE;
  if (all) navigator.setAppBadge?.(all).catch(() => {});
  else navigator.clearAppBadge?.().catch(() => {});
  save();
}

function showWork() {
  $('stop').hidden = !current?.isAnswering;
}

function showPush() {
  later?.push.handleState(chats.filter(({ isDevice, channel }) => isDevice && channel.push).map(({ channel }) => channel), Boolean(current?.isDevice));
}

function look() {
  current?.see();
  later?.push.seen().catch((error) => console.warn(error));
}

// ---- Events ----

$('pair').onsubmit = (event) => {
  event.preventDefault();
  pair($('link').value);
};
$('scan').onclick = async () => {
  const isThere = await afterwards(async ({ scanCode }) => {
    const found = await scanCode();
    if (found) await pair(found);
  });
  if (!isThere) $('link-error').textContent = NOT_LOADED;
};
$('back').onclick = () => switchTo(chats.includes(before) ? before : chats[0]);
$('stop').onclick = () => {
  current.stop();
  composer.focus();
};
$('find').onclick = () => {
  $('about').close();
  afterwards(({ search }) => search.open(current.messages));
};
$('export').onclick = () => afterwards(({ exportChat }) => exportChat(current.name, current.messages));
$('to-end').onclick = () => conversation.toEnd();
$('agents-open').onclick = async () => {
  if (!(await afterwards(({ agents }) => agents.open(chats, current)))) current.note(NOT_LOADED);
};
for (const id of ['security', 'more']) {
  $(id).onclick = async () => {
    const { pairing, isKept, channel } = current;
    if (!(await afterwards(({ showAbout }) => showAbout(pairing, isKept, Boolean(channel?.id) && !channel.isJoining)))) current.note(NOT_LOADED);
  };
}
$('show-devices').onclick = async () => {
  $('about').close();
  if (!(await afterwards(({ devices }) => devices.open()))) current.note(NOT_LOADED);
};
$('clear').onclick = async () => {
  const chat = current;
  $('about').close();
  if (!(await confirm('Clear the conversation?', 'It is removed from this browser. Your agent may remember it.', 'Clear'))) return;
  if (!(await chat.clearConversation())) chat.note(NOT_REMOVED);
};
$('forget').onclick = async () => {
  const chat = current;
  $('about').close();
  const text = 'The conversation and the key are removed from this browser. To chat again you need a link that your agent shows.';
  if (!(await confirm('Forget this pairing?', chat.isDevice ? `${text} ${chat.whatStays}` : text, 'Forget'))) return;
  const device = chat.channel?.id;
  const hasLeft = await chat.leaveDevices();
  leaveCurrent();
  const isGone = await chat.forget();
  chats = chats.filter((one) => one !== chat);
  save();
  await afterwards(({ push }) => push.forget(device, !chats.length));
  const trouble = [!hasLeft && STAYS, !isGone && NOT_REMOVED].filter(Boolean).join(' ');
  if (!chats.length) welcome(trouble);
  else {
    switchTo(chats[0]);
    if (trouble) chats[0].note(trouble);
  }
};
addEventListener('hashchange', async () => {
  const linked = fromAddressBar();
  const chat = linked && (await adopt(linked).catch(showLinkError));
  if (chat) await openChat(chat);
});
addEventListener('pagehide', ({ persisted }) => persisted && chats.forEach((chat) => chat.putAway()));
addEventListener('pageshow', ({ persisted }) => persisted && chats.forEach((chat) => chat.comeBack()));
document.addEventListener('freeze', () => chats.forEach(({ channel }) => channel?.sleep?.()));
addEventListener('online', () => chats.forEach(({ channel }) => channel?.wake()));
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState !== 'visible') return chats.forEach((chat) => chat.sleep());
  look();
  return chats.forEach(({ channel }) => channel?.wake());
});
addEventListener('beforeinstallprompt', (event) => {
  event.preventDefault();
  $('install').hidden = false;
  $('install').onclick = async () => {
    $('install').hidden = true;
    await event.prompt();
  };
});
// The one address of a script that the page's policy lets through.
const worker = globalThis.trustedTypes?.createPolicy('service-worker', { createScriptURL: () => 'sw.js' }).createScriptURL('');
navigator.serviceWorker?.register(worker ?? 'sw.js').catch((error) => console.warn('no offline page:', error));

begin().catch((error) => {
  console.error(error);
  $('starting').hidden = false;
  $('starting').textContent = `The page could not start: ${error.message}. Load it again.`;
});
