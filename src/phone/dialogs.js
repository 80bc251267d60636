// The dialogs: a question, and what is about this chat.

import { $ } from './dom.js';
import { copyText } from './markdown.js';
import { within } from './patience.js';

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
