// The dialog about the chat that is shown: how safe it is, how the page looks, the pairing's link.

import { setTheme, settings } from './dialogs.js';
import { $ } from './dom.js';
import { copyText } from './markdown.js';

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
