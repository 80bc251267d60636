// A dialog that the page makes only when it is needed.

import { closable } from './dialogs.js';
import { $, element } from './dom.js';

// `parts` stand below the title. It is named by `id`.
export function sheet(id, title, ...parts) {
  const dialog = element('dialog');
  dialog.id = id;
  const form = element('form');
  form.method = 'dialog';
  const head = element('header');
  const heading = element('h2', '', title);
  heading.id = `${id}-title`;
  dialog.setAttribute('aria-labelledby', heading.id);
  head.append(heading, $('about').querySelector('header button').cloneNode(true));
  form.append(head, ...parts);
  dialog.append(form);
  closable(dialog);
  document.body.append(dialog);
  return dialog;
}
