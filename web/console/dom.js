// What all parts of the pages do to the document. Everything from a server goes through textContent.

export const at = (id) => document.getElementById(id);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Rewriting the same text would undo a selection, and cost a layout.
export function write(place, text) {
  if (place.textContent !== `${text}`) place.textContent = text;
}
