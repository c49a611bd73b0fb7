// The paths of the latents: two components, a line a token, from its first step to the one shown.

import { Surface, ink, mixed } from "./canvas.js";

const [EDGE, MOST] = [22, 160]; // pixels; points of a line

export class Path {
  constructor(canvas) {
    Object.assign(this, { run: null, names: [], place: 0, chosen: new Set() });
    this.surface = new Surface(
      canvas,
      (pen, width, height) => this.still(pen, width, height),
      (pen, width, height) => this.now(pen, width, height),
    );
  }

  show(run, names) {
    Object.assign(this, { run, names });
    const { canvas } = this.surface;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Paths of ${run.tokens} latents over ${run.length} steps.`);
    this.surface.changed();
  }

  at(place, chosen) {
    Object.assign(this, { place, chosen });
    this.surface.moved();
  }

  point(path, token, width, height) {
    const [x, y] = [path[2 * token], path[2 * token + 1]];
    return [EDGE + ((x + 1) / 2) * (width - 2 * EDGE), height - EDGE - ((y + 1) / 2) * (height - 2 * EDGE)];
  }

  still(pen, width, height) {
    if (!this.run?.tokens) return;
    pen.font = `11px ${ink("mono")}`;
    pen.fillStyle = ink("soft");
    pen.textAlign = "right";
    pen.fillText("component 1 →", width - 6, height - 6);
    pen.save();
    pen.translate(14, 6);
    pen.rotate(-Math.PI / 2);
    pen.fillText("component 2 →", 0, 0);
    pen.restore();
    const kept = this.run.paths().filter(Boolean);
    const stride = Math.max(1, Math.ceil(kept.length / MOST));
    pen.strokeStyle = ink("deep");
    pen.globalAlpha = Math.max(0.12, Math.min(0.5, 8 / this.run.tokens));
    for (let token = 0; token < this.run.tokens; token++) {
      pen.beginPath();
      for (let place = 0; place < kept.length; place += stride)
        pen[place ? "lineTo" : "moveTo"](...this.point(kept[place], token, width, height));
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  now(pen, width, height) {
    const path = this.run?.paths()[this.place];
    if (!path) return;
    const { run } = this;
    const [shallow, deep] = [ink("shallow"), ink("deep")];
    const frame = run.frame(this.place);
    const crowded = run.tokens > 24;
    const labels = [];
    pen.font = `600 11px ${ink("mono")}`;
    for (let token = 0; token < run.tokens; token++) {
      const at = this.point(path, token, width, height);
      const radius = crowded ? 3 : 6;
      if (frame.glow[token] > 0.02) {
        pen.fillStyle = ink("wave");
        pen.globalAlpha = 0.55 * frame.glow[token];
        pen.beginPath();
        pen.arc(...at, radius + 5, 0, 7);
        pen.fill();
        pen.globalAlpha = 1;
      }
      pen.fillStyle = mixed(shallow, deep, frame.tint[token]);
      pen.strokeStyle = ink("ink");
      pen.lineWidth = this.chosen.has(token) ? 3 : 1;
      pen.beginPath();
      pen.arc(...at, radius, 0, 7);
      pen.fill();
      pen.stroke();
      const taken = labels.some(([x, y]) => Math.abs(x - at[0]) < 34 && Math.abs(y - at[1]) < 13);
      if ((crowded || taken) && !this.chosen.has(token)) continue;
      labels.push(at);
      pen.fillStyle = ink("ink");
      pen.textAlign = at[0] > width - 60 ? "right" : "left";
      pen.fillText((this.names[token] ?? "").slice(0, 10), at[0] + (at[0] > width - 60 ? -9 : 9), at[1] - 7);
    }
  }
}
