// The picture of a graph: edges as bent arrows, nodes tinted by their state, a glow around what moves.

import { ink, mixed } from "../views/canvas.js";

export const EDGE = 34; // pixels around the drawing

export function spotOf(board, key, width, height) {
  const { x, y } = board.points.get(key) ?? { x: 0.5, y: 0.5 };
  return [EDGE + x * (width - 2 * EDGE), EDGE + y * (height - 2 * EDGE)];
}

// board: keys, edges of names, points, radius, tags, frame, chosen; and where it has them bad, drawn, focus.
export function drawGraph(board, pen, width, height) {
  const { keys, radius, frame, chosen } = board;
  const colours = { shallow: ink("shallow"), deep: ink("deep"), wave: ink("wave"), ink: ink("ink"), card: ink("card") };
  const spots = new Map(keys.map((key) => [key, spotOf(board, key, width, height)]));
  const token = new Map(keys.map((key, place) => [key, place]));
  const live = frame && frame.tokens === keys.length ? frame : null;
  board.edges.forEach((edge, place) => {
    const [from, to] = edge.map((name) => spots.get(JSON.stringify(name)));
    if (!from || !to || edge.length !== 2) return;
    const bad = place === board.bad;
    pen.strokeStyle = pen.fillStyle = bad ? ink("bad") : ink("edge");
    pen.lineWidth = bad ? 3 : radius > 10 ? 1.6 : 0.8;
    arrow(pen, from, to, radius);
  });
  if (board.drawn && board.dragged) {
    pen.strokeStyle = pen.fillStyle = ink("accent");
    pen.lineWidth = 2;
    arrow(pen, spots.get(board.dragged.key), board.drawn, 2);
  }
  for (const key of keys) {
    const [x, y] = spots.get(key);
    const place = token.get(key);
    const glow = live ? live.glow[place] : 0;
    if (glow > 0.02) {
      const light = pen.createRadialGradient(x, y, radius * 0.7, x, y, radius * 2.3);
      light.addColorStop(0, colours.wave);
      light.addColorStop(1, "rgb(255 170 40 / 0)");
      pen.globalAlpha = glow ** 1.5;
      pen.fillStyle = light;
      disc(pen, x, y, radius * 2.3);
      pen.globalAlpha = 1;
    }
    pen.fillStyle = live ? mixed(colours.shallow, colours.deep, live.tint[place]) : colours.card;
    pen.strokeStyle = ink("rim");
    pen.lineWidth = radius > 10 ? 1.6 : 1;
    disc(pen, x, y, radius, true);
    if (chosen.has(place)) {
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 3;
      ring(pen, x, y, radius + 4);
    }
    if (board.focus === key && document.activeElement === board.canvas) {
      pen.setLineDash([3, 3]);
      pen.strokeStyle = colours.ink;
      ring(pen, x, y, radius + 5);
      pen.setLineDash([]);
    }
    if (board.named) {
      pen.fillStyle = colours.ink;
      pen.font = `600 12px ${ink("sans")}`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(String(JSON.parse(key)), Math.max(30, Math.min(width - 30, x)), y + radius + 12);
    } else if (radius > 10) {
      const dark = live ? live.tint[place] > 0.5 : false;
      pen.fillStyle = dark ? ink("on-deep") : live ? ink("on-shallow") : colours.ink;
      pen.font = `600 ${radius > 14 ? 13 : 11}px ${ink("sans")}`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      const name = String(JSON.parse(key));
      pen.fillText(name.length > 4 ? `${name.slice(0, 3)}…` : name, x, y + 0.5);
    }
  }
  for (const [word, key] of board.tags) {
    const spot = spots.get(key);
    if (!spot) continue;
    pen.strokeStyle = ink("accent");
    pen.lineWidth = 2;
    ring(pen, ...spot, radius + 4);
    tag(pen, word, spot[0], spot[1] + (board.named ? -radius - 16 : radius + 17), width);
  }
}

function tag(pen, word, x, y, width) {
  pen.font = `600 11px ${ink("sans")}`;
  const half = pen.measureText(word).width / 2 + 6;
  const at = Math.max(half, Math.min(width - half, x));
  pen.fillStyle = ink("accent");
  pen.beginPath();
  pen.roundRect(at - half, y - 9, 2 * half, 17, 8);
  pen.fill();
  pen.fillStyle = ink("on-accent");
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(word, at, y);
}

function disc(pen, x, y, radius, rim = false) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
  if (rim) pen.stroke();
}

function ring(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.stroke();
}

function arrow(pen, [ax, ay], [bx, by], radius) {
  const far = Math.hypot(bx - ax, by - ay);
  if (far < 1) return ring(pen, ax, ay - radius - 6, 8);
  const bend = Math.min(18, far * 0.08);
  const [cx, cy] = [(ax + bx) / 2 - ((by - ay) / far) * bend, (ay + by) / 2 + ((bx - ax) / far) * bend];
  const into = Math.atan2(by - cy, bx - cx);
  const [tx, ty] = [bx - Math.cos(into) * (radius + 3), by - Math.sin(into) * (radius + 3)];
  pen.beginPath();
  pen.moveTo(ax, ay);
  pen.quadraticCurveTo(cx, cy, tx, ty);
  pen.stroke();
  const size = radius > 10 ? 8 : 4;
  pen.beginPath();
  pen.moveTo(tx, ty);
  for (const side of [2.7, -2.7]) pen.lineTo(tx + size * Math.cos(into + side), ty + size * Math.sin(into + side));
  pen.fill();
}
