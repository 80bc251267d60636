// Images to send: those that wait for it, made small enough for a message of 5 MiB, which grows by 16/9 on its way into
// base64, encryption and base64 again.

import { within } from './patience.js';

export const IMAGES_MAX = 4;
// A picture, even a large one, is read and drawn within this.
const PICTURE_MS = 20_000;
// All images of a message together, before base64.
const PICTURES_BYTES_MAX = 2_400_000;
const SIDES = [1600, 1280, 1024, 768, 512];
const QUALITIES = [0.85, 0.7];

// A JPEG of at most `bytesMax`, or the file as it is where it is a PNG that is small already.
// Rejects where the browser cannot read the file as an image.
export async function shrink(file, bytesMax = PICTURES_BYTES_MAX / IMAGES_MAX) {
  const image = await within(createImageBitmap(file, { imageOrientation: 'from-image' }), PICTURE_MS);
  try {
    const side = Math.max(image.width, image.height);
    // Everything but a small PNG, which a screenshot is, is drawn anew: that leaves behind where a photo was taken.
    // Its bytes are taken now: the file may be gone when the message is sent.
    if (file.type === 'image/png' && file.size <= bytesMax / 2 && side <= SIDES[0]) {
      return new Blob([await within(file.arrayBuffer(), PICTURE_MS)], { type: file.type });
    }
    for (const largest of SIDES) {
      for (const quality of QUALITIES) {
        const blob = await draw(image, Math.min(1, largest / side), quality);
        if (blob.size <= bytesMax) return blob;
      }
    }
    throw new Error('the image stays too large');
  } finally {
    image.close();
  }
}

async function draw(image, scale, quality) {
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext('2d');
  // JPEG has no transparency: what was see-through becomes white, not black.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const drawn = new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('no image'))), 'image/jpeg', quality);
  });
  return within(drawn, PICTURE_MS);
}

// The images of the message that is being written.
export class Attached {
  #list;
  #icon;
  #changed;
  #images = [];

  // `list` shows them, each with a copy of `icon`, a cross, to take it away; `changed` is called when one has been.
  constructor(list, icon, changed) {
    this.#list = list;
    this.#icon = icon;
    this.#changed = changed;
  }

  get blobs() {
    return this.#images.map(({ blob }) => blob);
  }

  // Resolves to what is wrong, or ''.
  async add(files) {
    let wrong = '';
    for (const file of files) {
      if (this.#images.length >= IMAGES_MAX) return `At most ${IMAGES_MAX} images go into a message.`;
      try {
        const blob = await shrink(file);
        this.#images.push({ blob, url: URL.createObjectURL(blob) });
      } catch {
        wrong = `${file.name || 'This file'} cannot be read as an image.`;
      }
      this.#show();
    }
    return wrong;
  }

  clear() {
    for (const { url } of this.#images) URL.revokeObjectURL(url);
    this.#images = [];
    this.#show();
  }

  #show() {
    this.#list.hidden = !this.#images.length;
    this.#list.replaceChildren(...this.#images.map((image, index) => this.#item(image, index + 1)));
  }

  #item(image, number) {
    const item = document.createElement('li');
    const shown = document.createElement('img');
    shown.src = image.url;
    shown.alt = `Image ${number}`;
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.className = 'icon';
    remove.setAttribute('aria-label', `Remove image ${number}`);
    remove.append(this.#icon.cloneNode(true));
    remove.onclick = () => {
      URL.revokeObjectURL(image.url);
      this.#images = this.#images.filter((other) => other !== image);
      this.#show();
      this.#changed();
    };
    item.append(shown, remove);
    return item;
  }
}
