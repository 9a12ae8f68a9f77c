// A press: what lies under it stays as it is until it is over, or its click would be lost or hit what has come there.

const LONGEST_MS = 3000; // who presses longer is selecting text, or dragging; the page must not fall behind for that
const CLICK_MS = 100; // a click is told after its press has ended, of a finger somewhat later

let timer = 0; // while there is a press
const waiting = new Set();

function release() {
  timer = 0;
  const due = [...waiting];
  waiting.clear();
  due.forEach(queueMicrotask); // each by itself: one that breaks stops none of the others
}

function hold(ms) {
  clearTimeout(timer);
  timer = setTimeout(release, ms);
}

const isSpace = (event) => event.key === " "; // of all keys it alone clicks when it is let go
addEventListener("pointerdown", () => hold(LONGEST_MS), true);
addEventListener("keydown", (event) => { if (isSpace(event) && !event.repeat) hold(LONGEST_MS); }, true);
for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => hold(CLICK_MS), true);
addEventListener("keyup", (event) => { if (isSpace(event)) hold(CLICK_MS); }, true);

/** Call what draws now, or once the press is over. */
export function afterPress(draw) {
  if (timer) waiting.add(draw);
  else draw();
}
