// Where the user writes: the text, the images that go with it, and what is wrong with them.

import { $ } from './dom.js';
import { NOT_LOADED } from './words.js';

// A longer text might not fit into a message.
const TEXT_CHARACTERS_MAX = 200_000;

export class Composer {
  #handlers;
  // The person has sent it before there was a chat to send it to.
  #isDue = false;
  // The images; null before there has been one.
  #attached = null;

  // handlers: isOpen(): whether there is a chat; send(text, images): returns what keeps it from that, or ''
  constructor(handlers) {
    this.#handlers = handlers;
    $('composer').onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    $('text').oninput = () => {
      this.#isDue = false;
      fit();
      showError(tooLong());
    };
    $('text').onkeydown = (event) => this.#handleKey(event);
    $('text').onpaste = (event) => this.#handlePaste(event);
    $('attach').onclick = () => $('file').click();
    $('file').onchange = async () => {
      await this.#attach([...$('file').files]);
      $('file').value = '';
      this.focus();
    };
  }

  // What was written before is changed and sent again.
  async edit(text, images) {
    $('text').value = text;
    $('text').dispatchEvent(new Event('input'));
    if (images?.length) await this.#attach(images);
    this.focus();
  }

  focus(options) {
    $('text').focus(options);
  }

  // The text stays: it may be meant for the next chat.
  clear() {
    this.#isDue = false;
    this.#attached?.clear();
  }

  // There is a chat now.
  handleOpen() {
    if (this.#isDue) this.#submit();
  }

  #submit() {
    const text = $('text').value.trim();
    const images = this.#attached?.blobs ?? [];
    if ((!text && !images.length) || $('send').disabled) return;
    this.#isDue = !this.#handlers.isOpen();
    if (this.#isDue) return;
    const fault = tooLong() || this.#handlers.send(text, images);
    showError(fault);
    if (fault) return;
    $('text').value = '';
    this.#attached?.clear();
    fit();
  }

  #handleKey(event) {
    // On a touch keyboard the key makes a new line; there is a button to send.
    if (event.key !== 'Enter' || event.shiftKey || matchMedia('(pointer: coarse)').matches) return;
    // The key that ends an input method's composition; in Safari it comes after the composition's end, with this code.
    if (event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#submit();
  }

  #handlePaste(event) {
    const images = [...event.clipboardData.files].filter((file) => file.type.startsWith('image/'));
    // Where a picture stands beside the text that was copied, the text is meant.
    if (!images.length || event.clipboardData.getData('text/plain')) return;
    event.preventDefault();
    this.#attach(images);
  }

  async #attach(files) {
    showError('');
    try {
      const { Attached } = await import('./later.js');
      this.#attached ??= new Attached($('attached'), $('about').querySelector('header svg'), () => this.focus());
    } catch (error) {
      console.warn('not loaded:', error);
      return showError(NOT_LOADED);
    }
    return showError(await this.#attached.add(files));
  }
}

function tooLong() {
  const { length } = $('text').value;
  if (length <= TEXT_CHARACTERS_MAX) return '';
  const [has, most] = [length, TEXT_CHARACTERS_MAX].map((count) => count.toLocaleString('en'));
  return `This message has ${has} characters, and ${most} fit. Nothing was cut off: shorten it, or send it in parts.`;
}

function showError(text) {
  $('composer-error').textContent = text;
}

// Grows with its text where the browser does not do it by itself.
function fit() {
  if (CSS.supports('field-sizing', 'content')) return;
  $('text').style.height = 'auto';
  $('text').style.height = `${$('text').scrollHeight}px`;
}
