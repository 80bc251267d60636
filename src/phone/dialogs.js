// What all dialogs have, a question, and how the page looks.

import { $ } from './dom.js';
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

// A click beside a dialog closes it.
export function closable(dialog) {
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
}

// Whether this browser reads QR codes (BarcodeDetector).
export async function canScan() {
  if (!('BarcodeDetector' in globalThis) || !navigator.mediaDevices) return false;
  const formats = await within(BarcodeDetector.getSupportedFormats(), LOOK_MS).catch(() => []);
  return formats.includes('qr_code');
}

export function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const meta of document.querySelectorAll('meta[name="theme-color"]')) {
    meta.dataset.own ??= meta.content;
    const shown = theme === 'auto' ? meta.dataset.own : getComputedStyle(document.documentElement).backgroundColor;
    meta.content = shown;
  }
}

// What the browser refuses to keep is not kept; the page goes on.
export const settings = {
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

setTheme(settings.theme);
document.querySelectorAll('dialog').forEach(closable);
