// The devices of this pairing: who they are, who wants to become one, and how another one does. The agent alone decides; this
// shows what it said, and asks.

import { confirm } from './dialogs.js';
import { $, element } from './dom.js';
import { copyText } from './markdown.js';
import { newId } from './relay.js';
import { errorText, plainText } from './words.js';

const NAME_MAX = 64;
const NO_NAME = 'A device without a name';
const DEVICES_SHOWN_MAX = 32;
const PENDING_MAX = 5;
const QUIET_MODULES = 4;
const ID = /^[0-9a-f]{16}$/;
const CODE = /^\d{6}$/;

const UNSENT = 'Your agent is not connected. Try again when it is.';
const UNANSWERED = 'Your agent has not answered. Try again.';
const ANSWER_MS = 15_000;

// What the agent answers to a request about devices.
const DEVICE_ERRORS = {
  NOT_ALLOWED: 'Only the owner’s device may do that.',
  DEVICE_UNKNOWN: 'This device is gone already.',
  INVITES_FULL: 'Too many links are open. Try again in some minutes.',
  DEVICES_FULL: 'There are as many devices as the relay allows. Remove one first.',
  RELAY_BUSY: 'The relay has not confirmed it. Try again.',
};

const days = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' });

export class Devices {
  #handlers;
  #list = [];
  // Those that want to be let in, by this browser's invitation: { device, name, platform, code, until }
  #pending = [];
  #invitation = null;
  // What was asked and not answered: id to what is to be done with the answer.
  #asked = new Map();
  #editing = null;
  #timer = null;

  // handlers: isOpen(): whether there is a device's chat; send(type, payload, id): resolves to whether it leaves;
  // announce(text)
  constructor(handlers) {
    this.#handlers = handlers;
    $('add-device').onclick = () => this.#invite();
    $('copy-invite').onclick = async () => ($('copy-invite').textContent = await copyText($('invite-link').value));
    $('invite-link').onfocus = () => $('invite-link').select();
    $('devices').onclose = () => this.#leave();
  }

  clear() {
    this.#list = [];
    this.#pending = [];
    this.#asked.clear();
    this.#leave();
    $('devices').close();
  }

  open() {
    this.#say('');
    this.#draw();
    if (!$('devices').open) $('devices').showModal();
    this.#ask('device.list', {});
  }

  // Who the others are, where that is not known yet.
  learn() {
    if (!this.#list.length) this.#ask('device.list', {});
  }

  #leave() {
    this.#invitation = this.#editing = null;
    clearTimeout(this.#timer);
  }

  nameOf(id) {
    return this.#list.find(({ device }) => device === id)?.name ?? '';
  }

  // Returns whether the message was one about devices.
  receive(type, payload) {
    if (type === 'device.welcome' || type === 'device.list.result') this.#receiveList(payload);
    else if (type === 'device.invite.result') this.#receiveInvitation(payload);
    else if (type === 'device.pending') this.#receivePending(payload);
    else return false;
    return true;
  }

  // The agent's error about something that was asked here; returns whether it was.
  fail(payload) {
    if (!this.#asked.has(payload.ref)) return false;
    this.#settle(payload.ref);
    this.#say(DEVICE_ERRORS[payload.code] ?? errorText(payload));
    return true;
  }

  #settle(ref) {
    clearTimeout(this.#asked.get(ref));
    this.#asked.delete(ref);
    this.#showBusy();
  }

  async #ask(type, payload) {
    const id = newId();
    this.#say('');
    this.#asked.set(id, setTimeout(() => {
      this.#settle(id);
      this.#say(UNANSWERED);
    }, ANSWER_MS));
    this.#showBusy();
    if (await this.#handlers.send(type, payload, id)) return;
    this.#settle(id);
    this.#say(UNSENT);
  }

  #showBusy() {
    $('device-list').setAttribute('aria-busy', String(this.#asked.size > 0));
  }

  #say(text) {
    $('devices-error').textContent = text;
  }

  // ---- What the agent says ----

  #receiveList({ devices, ref }) {
    if (ref) this.#settle(ref);
    if (!Array.isArray(devices)) return;
    const known = devices.filter((one) => ID.test(one?.device)).slice(0, DEVICES_SHOWN_MAX);
    this.#list = known.map(({ device, name, platform, seen_at: seenAt, online, owner, you, by }) => ({
      device,
      name: plainText(name, NAME_MAX) || NO_NAME,
      platform: plainText(platform, NAME_MAX),
      seenAt: Number.isSafeInteger(seenAt) ? seenAt : 0,
      isOnline: online === true,
      isOwner: owner === true,
      isThis: you === true,
      by,
    }));
    this.#pending = this.#pending.filter(({ device }) => !this.nameOf(device));
    this.#draw();
  }

  async #receiveInvitation({ link, web, expires_at: until, ref }) {
    if (!this.#asked.has(ref)) return;
    this.#settle(ref);
    const text = plainText(typeof web === 'string' ? web : link, 1_000);
    if (!text) return;
    this.#invitation = { text, until: Number(until) || 0 };
    const { generate } = await import('./qr.js');
    const code = generate(text);
    const canvas = $('qr');
    // Scanners want a margin, and dark on light whatever the page looks like.
    canvas.width = canvas.height = code.size + 2 * QUIET_MODULES;
    const context = canvas.getContext('2d');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = '#000';
    for (let y = 0; y < code.size; y++) {
      for (let x = 0; x < code.size; x++) if (code.get(x, y)) context.fillRect(x + QUIET_MODULES, y + QUIET_MODULES, 1, 1);
    }
    $('invite-link').value = text;
    $('copy-invite').textContent = 'Copy';
    this.#draw();
    $('invitation').scrollIntoView({ block: 'nearest' });
    this.#handlers.announce('The code for the new device is shown');
  }

  #receivePending({ device, name, platform, code, expires_at: until }) {
    if (!ID.test(device) || !CODE.test(code)) return;
    const asking = { device, name: plainText(name, NAME_MAX) || NO_NAME, platform: plainText(platform, NAME_MAX), code, until: Number(until) || Infinity };
    this.#pending = [...this.#pending.filter((one) => one.device !== device), asking].slice(-PENDING_MAX);
    this.#invitation = null;
    this.#draw();
    if (!$('devices').open) $('devices').showModal();
    this.#handlers.announce(`${asking.name} wants to be added. Its code is ${[...code].join(' ')}`);
    $('pending').querySelector('button')?.focus();
  }

  // ---- What the person does ----

  #invite() {
    this.#invitation = null;
    this.#draw();
    this.#ask('device.invite', {});
  }

  #decide({ device }, verb) {
    this.#pending = this.#pending.filter((one) => one.device !== device);
    this.#draw();
    this.#ask(`device.${verb}`, { device });
    $('add-device').focus();
  }

  #rename({ device, name }, text) {
    this.#editing = null;
    const wanted = plainText(text, NAME_MAX);
    this.#draw();
    if (wanted && wanted !== name) this.#ask('device.rename', { device, name: wanted });
  }

  async #revoke({ device, name, isThis }) {
    const invited = this.#invitedBy(device);
    const option = invited.length ? `Also remove what it added: ${invited.join(', ')}` : '';
    const text = isThis
      ? 'This browser can no longer talk to your agent, until it is added again.'
      : 'It can no longer read or write anything from now on. What it has read, it keeps.';
    const yes = await confirm(`Remove ${isThis ? 'this browser' : name}?`, text, 'Remove', option);
    if (yes) this.#ask('device.revoke', { device, ...(!yes.isChecked && { keep_invited: true }) });
  }

  // The names of what a device has added, and of what that has. Whoever added whom, each is counted once.
  #invitedBy(device) {
    const found = new Set([device]);
    for (const id of found) for (const one of this.#list) if (one.by === id) found.add(one.device);
    found.delete(device);
    return [...found].map((id) => this.nameOf(id));
  }

  // ---- The dialog ----

  #draw() {
    const now = Date.now();
    this.#pending = this.#pending.filter(({ until }) => until > now);
    if (this.#invitation && this.#invitation.until <= now) this.#invitation = null;
    redraw($('pending'), this.#pending, (one) => this.#asking(one));
    $('pending').hidden = !this.#pending.length;
    const isOwner = this.#list.some((one) => one.isThis && one.isOwner);
    const items = this.#list.map((one) => ({ ...one, mayChange: isOwner || one.isThis, isEdited: one.device === this.#editing, inviter: this.nameOf(one.by) }));
    redraw($('device-list'), items, (one) => this.#item(one));
    $('invitation').hidden = !this.#invitation;
    if (this.#invitation) {
      const minutes = Math.ceil((this.#invitation.until - now) / 60_000);
      $('invite-until').textContent = `For one device, and for ${minutes === 1 ? 'one more minute' : `${minutes} more minutes`}.`;
    }
    clearTimeout(this.#timer);
    if (this.#invitation || this.#pending.length) this.#timer = setTimeout(() => this.#draw(), 10_000);
  }

  #asking(one) {
    const made = element('div', 'safety');
    const code = element('p', 'fingerprint', `${one.code.slice(0, 3)} ${one.code.slice(3)}`);
    const buttons = element('div', 'buttons');
    buttons.append(
      button('Refuse', 'plain', () => this.#decide(one, 'refuse')),
      button('Add', 'primary', () => this.#decide(one, 'admit')),
    );
    const what = one.platform ? `${one.name} (${one.platform})` : one.name;
    made.append(
      element('h3', '', `${what} wants to be added`),
      element('p', '', 'Add it only if it shows this number:'),
      code,
      element('p', 'fine', 'It will read the whole conversation, and everything that is written on any device.'),
      buttons,
    );
    return made;
  }

  #item(one) {
    const item = element('li');
    item.dataset.device = one.device;
    if (one.isEdited) {
      item.append(this.#editor(one));
      return item;
    }
    const text = element('div');
    text.append(element('strong', '', one.name), element('p', 'fine', deviceLine(one)));
    item.append(text);
    if (!one.mayChange) return item;
    const edit = () => {
      this.#editing = one.device;
      this.#draw();
      $('device-list').querySelector('input').select();
    };
    const buttons = element('div', 'links');
    const rename = button('Rename', 'link', edit);
    const remove = button('Remove', 'link danger', () => this.#revoke(one));
    rename.setAttribute('aria-label', `Rename ${one.name}`);
    remove.setAttribute('aria-label', `Remove ${one.name}`);
    buttons.append(rename, remove);
    item.append(buttons);
    return item;
  }

  #editor(one) {
    const field = element('div', 'field');
    const input = element('input');
    Object.assign(input, { type: 'text', value: one.name, maxLength: NAME_MAX, autocomplete: 'off' });
    input.setAttribute('aria-label', `New name of ${one.name}`);
    input.onkeydown = (event) => {
      if (event.key !== 'Enter' && event.key !== 'Escape') return;
      // The dialog stays.
      event.preventDefault();
      this.#rename(one, event.key === 'Enter' ? input.value : '');
      $('add-device').focus();
    };
    field.append(input, button('Save', 'primary', () => this.#rename(one, input.value)));
    return field;
  }
}

// Draws what has changed, and leaves alone what somebody may be about to press.
function redraw(parent, items, draw) {
  const drawn = JSON.stringify(items);
  if (parent.dataset.drawn === drawn) return;
  parent.dataset.drawn = drawn;
  const focused = parent.contains(document.activeElement) && document.activeElement.getAttribute('aria-label');
  parent.replaceChildren(...items.map(draw));
  if (focused) [...parent.querySelectorAll('button')].find((one) => one.getAttribute('aria-label') === focused)?.focus();
}

function button(text, className, act) {
  const made = element('button', className, text);
  made.type = 'button';
  made.onclick = act;
  return made;
}

// What stands under a device's name.
function deviceLine({ platform, seenAt, isOnline, isOwner, isThis, inviter }) {
  const seen = isOnline ? 'online' : seenAt ? `last seen ${days.format(seenAt)}` : '';
  const parts = [isThis && 'this browser', isOwner && 'owner', platform, !isThis && seen, inviter && `added by ${inviter}`];
  return parts.filter(Boolean).join(' · ');
}
