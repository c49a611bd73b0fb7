// A canvas that is as sharp as the screen, drawn when something has changed, in the page's colours.

export function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const channels = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

// A colour between two, share over 0 to 1.
export function mixed(from, to, share) {
  const [a, b] = [channels(from), channels(to)];
  return `rgb(${a.map((value, c) => Math.round(value + (b[c] - value) * share)).join(" ")})`;
}

// 64 colours of the ramp from shallow to deep.
export function ramp() {
  const [from, to] = [ink("shallow"), ink("deep")];
  return Array.from({ length: 64 }, (_, place) => mixed(from, to, place / 63));
}

export class Surface {
  // still(pen, width, height) draws what stays, live(pen, …) what follows the step: on top, every time.
  constructor(canvas, still, live = () => {}) {
    Object.assign(this, { canvas, still, live, stale: true, asked: false });
    this.behind = document.createElement("canvas");
    new ResizeObserver(() => this.changed()).observe(canvas);
  }

  changed() {
    this.stale = true;
    this.moved();
  }

  moved() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  draw() {
    const { canvas, behind } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    const scale = window.devicePixelRatio || 1;
    for (const each of [canvas, behind])
      if (each.width !== Math.round(width * scale) || each.height !== Math.round(height * scale)) {
        [each.width, each.height] = [Math.round(width * scale), Math.round(height * scale)];
        this.stale = true;
      }
    if (this.stale) this.on(behind, scale, () => this.still(behind.getContext("2d"), width, height));
    this.stale = false;
    const pen = canvas.getContext("2d");
    this.on(canvas, scale, () => {
      pen.drawImage(behind, 0, 0, width, height);
      this.live(pen, width, height);
    });
  }

  on(canvas, scale, draw) {
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    draw();
  }
}

// The place of a step along a width: middle of its column.
export const column = (place, count, left, right) => left + ((place + 0.5) / count) * (right - left);
