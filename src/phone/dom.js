// The page's elements.

export const $ = (id) => document.getElementById(id);

export function element(name, className, text = '') {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// A drawing of index.html's.
export function icon(id) {
  const [drawn, use] = ['svg', 'use'].map((name) => document.createElementNS('http://www.w3.org/2000/svg', name));
  use.setAttribute('href', `#i-${id}`);
  drawn.setAttribute('aria-hidden', 'true');
  drawn.append(use);
  return drawn;
}
