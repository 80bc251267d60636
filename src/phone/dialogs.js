// The dialogs: a question, the camera, and what is about this chat.

import { $ } from './dom.js';
import { readLink } from './link.js';
import { copyText } from './markdown.js';
import { within } from './patience.js';

const CAMERA_MS = 5_000;
const LOOK_EVERY_MS = 200;
const LOOK_MS = 3_000;

// Resolves to { isChecked } where the answer is yes, else to null. `option`: what can be left out, by a box that is checked.
export function confirm(title, text, yes, option = '') {
  $('confirm-title').textContent = title;
  $('confirm-text').textContent = text;
  $('confirm-yes').textContent = yes;
  $('confirm-option').hidden = !option;
  $('confirm-option-text').textContent = option;
  $('confirm-check').checked = true;
  const dialog = $('confirm');
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes' ? { isChecked: $('confirm-check').checked } : null), { once: true });
  });
}

// Whether this browser reads QR codes (BarcodeDetector).
export async function canScan() {
  if (!('BarcodeDetector' in globalThis) || !navigator.mediaDevices) return false;
  const formats = await within(BarcodeDetector.getSupportedFormats(), LOOK_MS).catch(() => []);
  return formats.includes('qr_code');
}

// Shows the camera in `video` until `accept(text)` says yes to a code, or `signal` is aborted.
async function scan(video, accept, signal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  try {
    // The dialog may have been closed while the browser asked.
    if (signal.aborted) return;
    video.srcObject = stream;
    await video.play();
    const detector = new BarcodeDetector({ formats: ['qr_code'] });
    while (!signal.aborted) {
      const codes = await within(detector.detect(video), LOOK_MS).catch(() => []);
      if (codes.some(({ rawValue }) => accept(rawValue))) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

// Resolves to the link that the camera saw, or null.
export async function scanCode() {
  const dialog = $('camera');
  const abort = new AbortController();
  dialog.addEventListener('close', () => abort.abort(), { once: true });
  dialog.showModal();
  const waits = setTimeout(() => {
    if (!$('video').videoWidth) $('camera-note').textContent = 'The camera does not answer. Allow it for this page, or close this and paste the link.';
  }, CAMERA_MS);
  let text = null;
  const accept = (found) => {
    try {
      readLink(found, location.href);
    } catch (error) {
      $('camera-note').textContent = error.message;
      return false;
    }
    text = found;
    return true;
  };
  try {
    await scan($('video'), accept, abort.signal);
    dialog.close();
  } catch {
    $('camera-note').textContent = 'The camera cannot be used. Allow it for this page, or paste the link.';
  } finally {
    clearTimeout(waits);
  }
  return text;
}

// The link that pairs another browser, or this page as an app: shown when it is asked for, and gone with the dialog.
function showPairingLink(pairing) {
  const key = pairing?.k ? `&k=${pairing.k}` : '';
  $('taken-link').value = pairing ? `${location.origin}${location.pathname}#token=${pairing.token}${key}` : '';
  $('taken').hidden = !pairing;
  if (pairing) $('taken').scrollIntoView({ block: 'end' });
  $('take').setAttribute('aria-expanded', String(Boolean(pairing)));
  $('copy-link').hidden = !navigator.clipboard;
  $('copy-link').textContent = 'Copy';
}

function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const meta of document.querySelectorAll('meta[name="theme-color"]')) {
    meta.dataset.own ??= meta.content;
    const shown = theme === 'auto' ? meta.dataset.own : getComputedStyle(document.documentElement).backgroundColor;
    meta.content = shown;
  }
}

// What the browser refuses to keep is not kept; the page goes on.
const settings = {
  get theme() {
    try {
      return localStorage.getItem('coralmux.theme') ?? 'auto';
    } catch {
      return 'auto';
    }
  },
  set theme(value) {
    try {
      localStorage.setItem('coralmux.theme', value);
    } catch {}
  },
};

// isDevice: whether there are devices to show.
export function showAbout(pairing, isKept, isDevice) {
  document.querySelector(`input[name="theme"][value="${settings.theme}"]`).checked = true;
  $('kept').textContent = isKept
    ? 'The conversation is kept in this browser only.'
    : 'This browser’s storage does not answer: the conversation is gone when the page is closed.';
  $('take').onclick = () => showPairingLink($('taken').hidden ? pairing : null);
  $('show-devices').hidden = !isDevice;
  $('take').hidden = Boolean(pairing.a);
  $('about').showModal();
}

setTheme(settings.theme);
$('about').onchange = (event) => {
  if (event.target.name !== 'theme') return;
  settings.theme = event.target.value;
  setTheme(event.target.value);
};
$('about').onclose = () => showPairingLink(null);
$('taken-link').onfocus = () => $('taken-link').select();
$('copy-link').onclick = async () => {
  $('copy-link').textContent = await copyText($('taken-link').value);
};
for (const dialog of document.querySelectorAll('dialog')) {
  // A click beside a dialog closes it.
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
}
