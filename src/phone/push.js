// Notifications: whether this browser is woken when something waits for it at the relay. The relay, the browser and its
// push service have to agree on that; what the person wants, and what the relay was last told, is kept here.

import { toBase64url } from './crypto.js';
import { $ } from './dom.js';
import { within } from './patience.js';
import { errorText } from './words.js';

const WISH = 'coralmux.push';
const TAG = 'coralmux';
// A push service on the other side of the world is waited for no longer.
const SUBSCRIBE_MS = 30_000;
const WORKER_MS = 5_000;

const IOS =
  'On an iPhone or iPad this needs an app on the home screen: tap Share, then “Add to Home Screen”, and open it there. It starts unpaired: add it under “Devices” here, and paste the link there.';
const LACKING = 'This browser has no notifications for this page.';
const DENIED = 'This browser blocks notifications of this page. Allow them in its settings for this site.';
const NONE = 'This relay sends no notifications.';
const OFF = 'You can be told when your agent answers while nobody looks at this page.';
const ON = 'You are told when your agent answers while nobody looks at this page.';
const PRIVATE = 'A notification never says what was written, or by whom.';
const UNSUBSCRIBED = 'The push service of this browser does not answer. Try again later.';
const UNTOLD = 'The relay is told when it is connected.';

const isEqual = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class Push {
  #handlers;
  // What the relay offers on this connection: { vapid, kinds, state }; null: nothing, or no connection.
  #offer = null;
  #isDevice = false;
  #hasAnswer = false;
  // What kept it from working, for the person.
  #trouble = '';
  #work = Promise.resolve();

  // handlers: device(): this browser's id; tell(payload): resolves to the relay's answer, { type, payload }, or to null where
  // there is no connection; announce(text)
  constructor(handlers) {
    this.#handlers = handlers;
    $('notify-switch').onclick = () => (this.#stored.on ? this.turnOff() : this.#turnOn());
    $('offer-yes').onclick = () => this.#turnOn();
    $('offer-no').onclick = () => {
      this.#store({ declined: true });
      this.#draw();
    };
  }

  get #stored() {
    try {
      return JSON.parse(localStorage.getItem(WISH)) ?? {};
    } catch {
      return {};
    }
  }

  #store(change) {
    try {
      localStorage.setItem(WISH, JSON.stringify({ ...this.#stored, ...change }));
    } catch {}
  }

  get #lacks() {
    // Safari says so on iPhones and iPads alone, and has push in apps on the home screen only.
    if (navigator.standalone === false) return IOS;
    if (!navigator.serviceWorker || !globalThis.PushManager || !globalThis.Notification) return LACKING;
    return Notification.permission === 'denied' ? DENIED : '';
  }

  // isDevice: whether this browser is one that was let in; offer: of this connection, another object with each.
  handleState(isDevice, offer) {
    this.#isDevice = isDevice;
    const isNew = offer && offer !== this.#offer;
    this.#offer = offer;
    if (isNew) this.#agree();
    this.#draw();
  }

  // An answer has come: now somebody knows what notifications are for.
  handleAnswer() {
    if (this.#hasAnswer) return;
    this.#hasAnswer = true;
    this.#draw();
  }

  // The pairing is left.
  clear() {
    this.#offer = null;
    this.#isDevice = this.#hasAnswer = false;
    this.#trouble = '';
    this.#draw();
  }

  // Nothing of the pairing stays.
  async forget() {
    try {
      localStorage.removeItem(WISH);
    } catch {}
    await within(unsubscribe(), WORKER_MS).catch(() => {});
  }

  // On a tap: browsers ask then only.
  async #turnOn() {
    if (this.#lacks) return;
    this.#trouble = '';
    $('notify-switch').disabled = $('offer-yes').disabled = true;
    const permission = await Notification.requestPermission().catch(() => 'default');
    if (permission === 'granted') {
      this.#store({ on: true, declined: true });
      await this.#agree();
      if (!this.#trouble) this.#handlers.announce('Notifications are on');
    }
    $('notify-switch').disabled = $('offer-yes').disabled = false;
    this.#draw();
  }

  async turnOff() {
    this.#store({ on: false });
    this.#trouble = '';
    await this.#agree();
    this.#handlers.announce('Notifications are off');
    this.#draw();
  }

  // Brings relay, browser and push service to what the person wants, one step after the other.
  #agree() {
    this.#work = this.#work.then(() => this.#settle()).catch((error) => {
      console.warn('no notifications:', error);
      this.#trouble = UNSUBSCRIBED;
    });
    return this.#work.then(() => this.#draw());
  }

  async #settle() {
    const offer = this.#offer;
    const { on, told } = this.#stored;
    const isOn = Boolean(on) && !this.#lacks;
    if (!isOn) {
      await within(unsubscribe(), WORKER_MS).catch(() => {});
      if (offer && (told || offer.state === 'ok') && (await this.#tell({ kind: null }))) this.#store({ told: null });
      return;
    }
    if (!this.#hasKey) return;
    // Of a subscription that is gone the browser may know nothing.
    const isGone = offer.state === 'gone' && Boolean(told);
    const subscription = await subscribe(offer.vapid, isGone);
    const { endpoint, keys } = subscription.toJSON();
    const wanted = { kind: 'webpush', endpoint, p256dh: keys.p256dh, auth: keys.auth, origin: location.origin };
    const known = { device: this.#handlers.device(), ...wanted };
    if (isEqual(told, known) && offer.state === 'ok') return;
    if (await this.#tell(wanted)) this.#store({ told: known });
  }

  get #hasKey() {
    return typeof this.#offer?.vapid === 'string' && this.#offer.kinds?.includes('webpush');
  }

  // Resolves to whether the relay has it.
  async #tell(payload) {
    const answer = await this.#handlers.tell(payload);
    if (answer?.type === 'relay.ok') {
      this.#trouble = '';
      return true;
    }
    if (answer) this.#trouble = `The relay says (not verified): ${errorText(answer.payload)}`;
    return false;
  }

  // ---- What is shown ----

  #draw() {
    const { on, told, declined } = this.#stored;
    const lacks = this.#lacks;
    const isOffered = !lacks && (this.#hasKey || (on && !this.#offer));
    $('notify').hidden = !this.#isDevice;
    $('notify-switch').hidden = !isOffered && !on;
    $('notify-switch').textContent = on ? 'Turn notifications off' : 'Turn notifications on';
    const refused = on && this.#offer?.state === 'refused' ? 'The relay says (not verified) that the push service refuses it.' : '';
    const state = on && !told && !this.#trouble ? `${ON} ${UNTOLD}` : on ? ON : OFF;
    $('notify-text').textContent = lacks || (!isOffered && NONE) || `${this.#trouble || refused || state} ${PRIVATE}`;
    const mayAsk = this.#isDevice && this.#hasAnswer && this.#hasKey && !on && !declined;
    $('offer').hidden = !(mayAsk && (!lacks || lacks === IOS));
    $('offer-text').textContent = lacks === IOS ? `${OFF} ${IOS}` : `${OFF} ${PRIVATE}`;
    $('offer-yes').hidden = Boolean(lacks);
    $('offer-no').textContent = lacks ? 'Understood' : 'Not now';
  }

  // Somebody looks at the page: what the notifications said has been seen.
  async seen() {
    const worker = await navigator.serviceWorker?.getRegistration();
    for (const shown of (await worker?.getNotifications?.({ tag: TAG })) ?? []) shown.close();
  }
}

async function subscribe(vapid, isAnew) {
  const worker = await within(navigator.serviceWorker.ready, WORKER_MS);
  const old = await worker.pushManager.getSubscription();
  const isOurs = old && toBase64url(new Uint8Array(old.options.applicationServerKey)) === vapid;
  if (old && isOurs && !isAnew) return old;
  await old?.unsubscribe();
  return within(worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: vapid }), SUBSCRIBE_MS);
}

async function unsubscribe() {
  const worker = await navigator.serviceWorker?.getRegistration();
  await (await worker?.pushManager?.getSubscription())?.unsubscribe();
}
