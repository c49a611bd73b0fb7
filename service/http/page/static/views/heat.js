// The movement of every token at every step: a row a token, a column a step.

import { loudness } from "../run.js";
import { Surface, column, ink, mixed } from "./canvas.js";

const [RIGHT, TOP, BOTTOM] = [10, 4, 20];

export class Heat {
  // picked(place, token): somebody has clicked on a cell; hovered(place, token) or hovered(null).
  constructor(canvas, picked, hovered) {
    Object.assign(this, { run: null, names: [], place: 0, chosen: new Set() });
    this.surface = new Surface(
      canvas,
      (pen, width, height) => this.still(pen, width, height),
      (pen, width, height) => this.cursor(pen, width, height),
    );
    const under = (event) => {
      if (!this.run?.tokens) return null;
      const { clientWidth: width, clientHeight: height } = canvas;
      const place = Math.floor(((event.offsetX - this.left) / (width - this.left - RIGHT)) * this.run.length);
      const token = Math.floor(((event.offsetY - TOP) / (height - TOP - BOTTOM)) * this.run.tokens);
      const inside = place >= 0 && place < this.run.length && token >= 0 && token < this.run.tokens;
      return inside ? [place, token] : null;
    };
    canvas.addEventListener("pointerdown", (event) => under(event) && picked(...under(event)));
    canvas.addEventListener("pointermove", (event) => hovered(...(under(event) ?? [null])));
    canvas.addEventListener("pointerleave", () => hovered(null));
  }

  show(run, names) {
    Object.assign(this, { run, names });
    const { canvas } = this.surface;
    canvas.style.height = `${Math.max(90, Math.min(360, 18 * run.tokens + TOP + BOTTOM))}px`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Movement of ${run.tokens} tokens over ${run.length} steps.`);
    this.surface.changed();
  }

  at(place, chosen) {
    Object.assign(this, { place, chosen });
    this.surface.moved();
  }

  get named() {
    return this.run && this.run.tokens <= 40;
  }

  still(pen, width, height) {
    const { run } = this;
    this.left = 34;
    if (!run?.tokens) return;
    pen.font = `11px ${ink("mono")}`;
    if (this.named) {
      const longest = Math.max(...this.names.map((name) => pen.measureText(name.slice(0, 12)).width));
      this.left = Math.max(34, longest + 12);
    }
    // One pixel a cell, enlarged: as fast for 256 rows and 1,024 columns as for three.
    const image = new ImageData(run.length, run.tokens);
    const colours = this.colours();
    for (let place = 0; place < run.length; place++)
      for (let token = 0; token < run.tokens; token++) {
        const moved = run.movement[place];
        const loud = moved ? Math.round(63 * loudness(moved[token], run.most)) : 0;
        image.data.set(moved ? colours[loud] : [0, 0, 0, 0], 4 * (token * run.length + place));
      }
    const small = new OffscreenCanvas(run.length, run.tokens);
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    const [w, h] = [width - this.left - RIGHT, height - TOP - BOTTOM];
    pen.drawImage(small, this.left, TOP, w, h);
    pen.fillStyle = ink("soft");
    if (this.named) {
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      this.names.forEach((name, token) => {
        pen.fillText(name.slice(0, 12), this.left - 6, TOP + ((token + 0.5) / run.tokens) * h);
      });
    }
    pen.textBaseline = "alphabetic";
    for (const place of new Set([0, run.length - 1])) {
      const end = place && run.length > 20;
      pen.textAlign = end ? "right" : "center";
      const x = end ? width - RIGHT : column(place, run.length, this.left, width - RIGHT);
      pen.fillText(String(place + 1), x, height - 5);
    }
    pen.textAlign = "center";
    if (w / run.length > 26) {
      pen.globalAlpha = 0.8;
      pen.fillText("–", column(0, run.length, this.left, width - RIGHT), TOP + h / 2);
      pen.globalAlpha = 1;
    }
  }

  colours() {
    const [from, to] = [ink("card"), ink("wave")];
    return Array.from({ length: 64 }, (_, place) => {
      const rgb = mixed(from, to, place / 63).match(/\d+/g).map(Number);
      return [...rgb, 255];
    });
  }

  cursor(pen, width, height) {
    const { run } = this;
    if (!run?.tokens) return;
    const [w, h] = [(width - this.left - RIGHT) / run.length, (height - TOP - BOTTOM) / run.tokens];
    pen.strokeStyle = ink("ink");
    pen.globalAlpha = 0.6;
    pen.lineWidth = 1;
    pen.strokeRect(this.left + this.place * w, TOP, Math.max(w, 1), height - TOP - BOTTOM);
    pen.globalAlpha = 1;
    pen.strokeStyle = ink("ink");
    pen.lineWidth = 2;
    for (const token of this.chosen) pen.strokeRect(this.left, TOP + token * h, w * run.length, Math.max(h, 2));
  }
}
