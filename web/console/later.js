// Draws what has changed, all parts of the page in one frame. A busy feed changes them thousands of times a second: ten
// frames a second show as much, and cost less.

const PACE = 100;
const due = new Set();
let drawn = -PACE;

export function later(draw) {
  if (due.size === 0) setTimeout(() => requestAnimationFrame(drawAll), drawn + PACE - performance.now());
  due.add(draw);
}

function drawAll() {
  drawn = performance.now();
  const draws = [...due];
  due.clear();
  for (const draw of draws) draw();
}
