// What can be done with a message: copy, share, read aloud, and with a question: change it and ask again.

import { element } from './dom.js';
import { copyText } from './markdown.js';
import { sheet } from './sheet.js';

// Longer texts are no use as sound, and some voices fall silent in them.
const SPOKEN_CHARACTERS_MAX = 20_000;

// Voices of this computer alone: others would send what is read to somebody else.
function voice() {
  const voices = globalThis.speechSynthesis?.getVoices().filter(({ localService }) => localService) ?? [];
  return voices.find(({ lang }) => lang.startsWith(navigator.language.slice(0, 2))) ?? voices[0];
}

export class Actions {
  #handlers;
  #list = element('div', 'actions');
  #dialog = sheet('actions', 'Message', this.#list);

  // handlers: edit(message): lets the person change it and ask again; announce(text)
  constructor(handlers) {
    this.#handlers = handlers;
    // Some browsers know their voices only when they have been asked for.
    voice();
  }

  open(message) {
    this.#list.replaceChildren(...this.#actions(message).map(([name, act]) => {
      const button = element('button', 'plain', name);
      button.type = 'button';
      button.onclick = async () => {
        const said = await act();
        this.#dialog.close();
        if (said) this.#handlers.announce(said);
      };
      return button;
    }));
    this.#dialog.showModal();
  }

  #actions(message) {
    const { role, text } = message;
    const actions = [];
    if (text && navigator.clipboard) actions.push(['Copy', () => copyText(text)]);
    if (text && navigator.share) actions.push(['Share', () => navigator.share({ text }).then(() => '', () => '')]);
    if (role === 'me' && text) actions.push(['Change and ask again', () => this.#handlers.edit(message)]);
    if (globalThis.speechSynthesis?.speaking) actions.push(['Stop reading aloud', () => speechSynthesis.cancel()]);
    else if (text && voice()) actions.push(['Read aloud', () => read(text)]);
    return actions;
  }
}

function read(text) {
  // Marks of Markdown are not read.
  const spoken = new SpeechSynthesisUtterance(text.slice(0, SPOKEN_CHARACTERS_MAX).replace(/[*_`#|>]+/g, ' '));
  spoken.voice = voice();
  speechSynthesis.speak(spoken);
}
