// What an answer has beside its text: what the agent did for it, folded, and files. Text only ever becomes text nodes, and a
// file is shown as an image or stored, and never opened here.

import { element } from './dom.js';

// Shown as images, whatever else a file says it is.
const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];
const KIB = 1024;

// The addresses of what is shown: a file to its own.
const addresses = new WeakMap();

function addressOf(file, type) {
  if (!addresses.has(file)) addresses.set(file, URL.createObjectURL(new Blob([file.bytes], { type })));
  return addresses.get(file);
}

// Draws it into `place`, anew where something has changed only: what somebody has unfolded stays.
export function drawMore({ steps = [], files = [] }, place) {
  const drawn = JSON.stringify([steps, files.length]);
  if (place.dataset.drawn === drawn) return;
  const isOpen = new Set([...place.querySelectorAll('details[open]')].map(({ dataset }) => dataset.call));
  place.dataset.drawn = drawn;
  place.replaceChildren(...steps.map((step) => folded(step, isOpen)), ...files.map(shown));
}

function folded({ call, title, detail }, isOpen) {
  const fold = element('details', 'step');
  fold.dataset.call = call;
  fold.open = isOpen.has(call);
  const text = element('pre');
  text.tabIndex = 0;
  text.setAttribute('aria-label', title);
  for (const line of detail.split(/(?<=\n)/)) text.append(/^[+-](?![+-]{2})/.test(line) ? element('span', line[0] === '+' ? 'added' : 'removed', line) : line);
  fold.append(element('summary', '', title), text);
  return fold;
}

function shown(file, at) {
  const { name, type, bytes } = file;
  const size = bytes.length < KIB ? `${bytes.length} bytes` : bytes.length < KIB * KIB ? `${Math.ceil(bytes.length / KIB)} KiB` : `${(bytes.length / KIB / KIB).toFixed(1)} MiB`;
  const isPicture = PICTURES.includes(type);
  const link = element('a', isPicture ? 'picture' : 'file');
  link.href = addressOf(file, isPicture ? type : 'application/octet-stream');
  link.download = name;
  if (isPicture) {
    const image = element('img');
    image.src = link.href;
    image.alt = `Image ${at + 1} from the agent: ${name}`;
    image.onerror = () => link.replaceChildren(element('span', '', `${name} cannot be shown. Store it.`));
    link.append(image);
  } else {
    link.append(element('strong', '', name), element('span', 'fine', size));
  }
  return link;
}
