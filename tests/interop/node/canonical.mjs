// Runs in a browser: brings HTML of the specifications and what the page makes of the same text into one form. `pairs` has
// [expected, drawn]; the answer the two forms of each. What differs on purpose in every example is evened out here:
// a heading's level (the page has one of its own), the frames around code and tables, the class of a language, images,
// which are links, and links to other than web and mail addresses, which are text.
export function canonical(pairs) {
  const PROTOCOLS = ['http:', 'https:', 'mailto:'];
  const BLOCKS = ['p', 'h', 'ul', 'ol', 'li', 'pre', 'blockquote', 'hr', 'table', 'thead', 'tbody', 'tr', 'th', 'td'];

  const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

  function decoded(address) {
    try {
      return decodeURIComponent(address);
    } catch {
      return address;
    }
  }

  function link(target, inner, text) {
    if (URL.canParse(target) && PROTOCOLS.includes(new URL(target).protocol)) {
      return `<a ${escaped(decoded(new URL(target).href))}>${inner}</a>`;
    }
    if (!target || decoded(target) === text) return target.includes(':') ? `&lt;${inner}&gt;` : inner;
    return `${inner} (${escaped(decoded(target))})`;
  }

  function formOf(node, insideLink) {
    if (node.nodeType === Node.TEXT_NODE) return escaped(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) return '';
    const name = node.localName;
    const inner = () => [...node.childNodes].map((child) => formOf(child, insideLink || name === 'a')).join('');
    const block = (tag, content, rest = '') => `<${tag}${rest}>${content.trim()}</${tag}>`;
    if (/^h\d$/.test(name)) return block('h', inner());
    if (name === 'a') return link(node.getAttribute('href') ?? '', inner(), node.textContent);
    if (name === 'img') return image(node, insideLink);
    if (name === 'br') return '<br>';
    if (name === 'input') return node.checked ? '[x] ' : '[ ] ';
    if (name === 'pre') {
      const language = node.getAttribute('aria-label')?.split(', ')[1] ?? node.firstChild?.className?.replace('language-', '');
      return `<pre ${language || ''}>${escaped(node.textContent.replace(/\n+$/, ''))}</pre>`;
    }
    if (node.className === 'bar') return '';
    if (['div', 'span', 'body'].includes(name)) return inner();
    if (name === 'td' || name === 'th') return block(name, inner(), ` ${node.getAttribute('align') ?? node.className}`);
    if (name === 'del') return `<s>${inner()}</s>`;
    if (name === 'ol') return block(name, inner(), node.start === 1 ? '' : ` ${node.start}`);
    return BLOCKS.includes(name) ? block(name, inner()) : `<${name}>${inner()}</${name}>`;
  }

  function image(node, insideLink) {
    const target = node.getAttribute('src');
    const text = node.alt || target;
    return insideLink ? `${escaped(text)} (${escaped(decoded(target))})` : link(target, escaped(text), text);
  }

  return pairs.map((pair) =>
    pair.map((html) => {
      const form = formOf(new DOMParser().parseFromString(html, 'text/html').body, false);
      const around = new RegExp(`\\s*(</?(?:${BLOCKS.join('|')})(?: [^>]*)?>|<br>)\\s*`, 'g');
      // White space counts inside code alone.
      const parts = form.split(/(<pre [^>]*>.*?<\/pre>)/s);
      return parts.map((part, at) => (at % 2 ? part : part.replace(/(\[[x ]\] ) */g, '$1').replace(around, '$1'))).join('').trim();
    }),
  );
}
