// What stands around the conversation and says how things are: the header, the banner, the hint in an empty chat.

import { $ } from './dom.js';
import { ENDED, joining, presence, security } from './words.js';

export class Frame {
  #handlers;
  #bannerAction = null;
  #said = '';

  // handlers: announce(text), takeBack(), unpair(), allowPlain()
  constructor(handlers) {
    this.#handlers = handlers;
    $('banner-action').onclick = () => this.#bannerAction?.();
  }

  // plainAllowed: whether the user has said yes to a chat without encryption; isEmpty: the conversation.
  show(channel, plainAllowed, isEmpty) {
    const { connection, agentOnline } = channel;
    const safety = security(channel.security);
    $('presence-text').textContent = presence(connection, agentOnline);
    document.querySelector('.dot').dataset.level = presenceLevel(connection, agentOnline);
    $('security').hidden = channel.security.name === 'none';
    $('security').dataset.level = safety.level;
    $('security-label').textContent = safety.label;
    $('security').querySelector('use').setAttribute('href', safety.level === 'bad' ? '#i-open' : '#i-lock');
    $('about-label').textContent = safety.label;
    $('about-label').parentElement.dataset.level = safety.level;
    $('about-text').textContent = safety.text;
    $('fingerprint').hidden = !channel.security.fingerprint;
    $('fingerprint').textContent = channel.security.fingerprint ?? '';
    const { isJoining } = channel;
    $('composer').hidden = $('log').hidden = Boolean(isJoining);
    $('enrol').hidden = !isJoining;
    if (isJoining) this.#showJoining(channel);
    $('empty').hidden = !isEmpty || Boolean(isJoining);
    $('empty-text').textContent = emptyText(connection, agentOnline, safety);
    const needsYes = channel.security.name === 'plain' && !plainAllowed;
    this.#showBanner(this.#bannerFor(channel, safety, needsYes));
    $('send').disabled = connection.name === 'ended' || channel.security.name === 'refused' || needsYes;
    // A screen reader hears of changes, not of each second that is counted down.
    const spoken = connection.name === 'open' ? `The agent is ${agentOnline ? 'online' : 'offline'}. ${safety.label}` : 'No connection';
    if (connection.name === 'connecting' || channel.security.name === 'pending' || spoken === this.#said) return;
    this.#handlers.announce((this.#said = spoken));
  }

  // This browser is about to become a device.
  #showJoining({ connection, agentOnline, security: { name, code } }) {
    const { title, text } = joining(connection, agentOnline, name);
    $('enrol-title').textContent = title;
    $('enrol-text').textContent = text;
    const isShown = name === 'waiting';
    $('enrol-code').hidden = !isShown;
    if (!isShown || $('enrol-code').dataset.code === code) return;
    $('enrol-code').dataset.code = code;
    $('enrol-code').textContent = `${code.slice(0, 3)} ${code.slice(3)}`;
    this.#handlers.announce(`${title}: ${[...code].join(' ')}. ${text}`);
  }

  #bannerFor({ connection, security: { name } }, { label, text }, needsYes) {
    const { takeBack, unpair, allowPlain } = this.#handlers;
    if (connection.name === 'ended') return { ...ENDED[connection.why], act: connection.why === 'replaced' ? takeBack : unpair };
    if (name === 'refused') return { title: label, text, action: 'Pair again', act: unpair };
    return needsYes ? { title: label, text, action: 'Chat anyway', act: allowPlain } : null;
  }

  #showBanner(banner) {
    $('banner').hidden = !banner;
    this.#bannerAction = banner?.act;
    if (!banner || $('banner-title').textContent + $('banner-text').textContent === banner.title + banner.text) return;
    $('banner-title').textContent = banner.title;
    $('banner-text').textContent = banner.text;
    $('banner-action').textContent = banner.action;
  }
}

function presenceLevel(connection, agentOnline) {
  if (connection.name === 'open') return agentOnline ? 'good' : 'idle';
  return connection.name === 'connecting' || connection.name === 'waiting' ? 'busy' : 'bad';
}

function emptyText(connection, agentOnline, safety) {
  if (connection.name === 'open' && !agentOnline) return 'Your agent is not connected. What you write now is sent when it comes.';
  if (safety.level === 'good') return 'Your agent is there. Only the two of you can read this chat.';
  return 'Your messages and the agent’s answers appear here.';
}
